"""Frames of a stream that drifts, or not, go through a recorder onto the disk."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from serving import clip_writer
from serving.answers import AnswerEncoder, DecodedFrame, Outcome
from serving.bundle import Bundle, read_bundle
from serving.clip_files import ClipFolder, RecordingFolder
from serving.clip_writer import MIN_CLIP_FRAMES, ClipWriter
from serving.drift import MIN_FRAMES, DriftMeter
from serving.drift_recorder import MAX_OPEN_CLIPS, PAUSE, DriftRecorder, StreamRecorder
from serving.frames import Encoding
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import (
    serve_here,
    served_model,
    step_result,
    toy_baseline,
    toy_frame,
    wait_until,
    write_toy_bundle,
)
from tests.serving.conversations import configuration, converse, in_asyncio, jpeg, requests

CLIP = 12  # frames
JPEG = b"\xff\xd8 a picture \xff\xd9"


@dataclass(eq=False)
class Stream:
    """A stream whose drift is what a test says."""

    recorder: StreamRecorder
    meter: DriftMeter
    number: int = 0

    def drift_by(self, deviations: float) -> None:
        """From now on, of the toy's baseline: 64, with a deviation of 16."""
        level = (64 + 16 * deviations) / 256
        for _ in range(2000):  # the means forget what was before
            signals = {"mean_confidence": level, "mean_entropy": level, "disagreement": level}
            self.meter.observe(step_result(key_frame_age=1, **signals))

    def send(self, *images: bytes | NDArray[np.uint8], sequences: range | None = None) -> None:
        for place, image in enumerate(images):
            self.number += 1
            sequence = self.number if sequences is None else sequences[place]
            frame = pb.Frame(sequence=sequence, capture_time_us=self.number * 40_000)
            if isinstance(image, bytes):
                frame.data = image
                self.recorder.observe(self.number, frame, None)
            else:
                self.recorder.observe(self.number, frame, image if self.recorder.keeps_native else None)

    def lose(self, frames: int) -> None:
        """They are dropped, refused or held."""
        self.number += frames


@dataclass(eq=False)
class Recording:
    """A recorder and its folder."""

    root: Path
    recorder: DriftRecorder
    is_closed: bool = False

    def open_stream(self, name: str = "stream-1", drift: float = 4.0, encoding: Encoding = Encoding.JPEG) -> Stream:
        meter = DriftMeter(toy_baseline(64))
        stream = Stream(self.recorder.watch(name, "toy@1", encoding, meter), meter)
        stream.drift_by(drift)
        return stream

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.recorder.close()

    def clips(self) -> list[Path]:
        """Once all is written."""
        self.close()
        assert not list(self.root.rglob(".*.partial"))
        return sorted((path.parent for path in self.root.rglob("clip.json")), key=lambda path: path.stat().st_mtime_ns)

    def lengths(self) -> list[int]:
        return [len(list(clip.glob("*.jpg"))) for clip in self.clips()]


def record_into(root: Path, max_bytes: int = 1_000_000) -> Recording:
    writer = ClipWriter(RecordingFolder(root, max_bytes))
    return Recording(root, DriftRecorder(writer, threshold=3.0, clip_frames=CLIP))


def read(path: Path) -> NDArray[np.uint8]:
    """RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image.astype(np.uint8)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    recording = record_into(tmp_path / "drifted")
    yield recording
    recording.close()


def test_a_stream_that_does_not_drift_is_not_recorded(recording: Recording) -> None:
    recording.open_stream(drift=2.9).send(*[JPEG] * 100)
    assert recording.clips() == []
    assert [path.name for path in recording.root.iterdir()] == [".lock"]


def test_a_clip_of_a_stream_that_drifts_holds_its_frames_as_they_came_and_says_why(recording: Recording) -> None:
    images = [JPEG[:2] + bytes([value]) + JPEG[2:] for value in range(CLIP)]
    recording.open_stream().send(*images)
    (clip,) = recording.clips()
    assert clip.parent == recording.root / "toy@1"
    assert clip.name.startswith("stream-1-20")
    assert [path.read_bytes() for path in sorted(clip.glob("*.jpg"))] == images
    assert [path.name for path in sorted(clip.glob("*.jpg"))][-1] == "000011.jpg"
    description = json.loads((clip / "clip.json").read_text())
    assert description["highest_drift"] == pytest.approx(4)
    assert description["signals"]["mean_entropy"]["deviations"] == pytest.approx(4)
    assert description["signals"]["mean_entropy"]["baseline"] == {"mean": 0.25, "std": 0.0625}
    assert description["frames_per_second"] == pytest.approx(25)
    about = {name: description[name] for name in ("model", "threshold", "frames")}
    assert about == {"model": "toy@1", "threshold": 3.0, "frames": CLIP}


def test_frames_that_are_no_jpeg_are_kept_from_when_they_are_wanted(recording: Recording) -> None:
    stream = recording.open_stream(encoding=Encoding.RAW_RGB)
    assert not stream.recorder.keeps_native
    frames = [
        np.dstack([toy_frame(10 * value)[..., 0], toy_frame(50)[..., 0], toy_frame(200)[..., 0]])
        for value in range(CLIP + 1)
    ]
    stream.send(*frames)
    assert not stream.recorder.keeps_native
    (clip,) = recording.clips()
    written = [read(path) for path in sorted(clip.glob("*.jpg"))]
    assert len(written) == CLIP
    for image, frame in zip(written, frames[1:], strict=True):  # the first was not kept: nobody wanted it yet
        assert np.abs(image.astype(int) - frame).max() <= 4


@pytest.mark.parametrize(("before", "kept"), [(MIN_CLIP_FRAMES, [MIN_CLIP_FRAMES]), (MIN_CLIP_FRAMES - 1, [])])
def test_a_frame_that_is_missing_ends_a_clip_and_one_too_short_is_thrown_away(
    recording: Recording, before: int, kept: list[int]
) -> None:
    stream = recording.open_stream()
    stream.send(*[JPEG] * before)
    stream.lose(1)
    stream.send(*[JPEG] * 3)
    stream.recorder.close()
    assert recording.lengths() == kept
    if not kept:
        assert list((recording.root / "toy@1").iterdir()) == []


def test_a_frame_that_the_client_left_out_ends_a_clip_but_every_second_one_does_not(recording: Recording) -> None:
    gap = recording.open_stream("stream-1")
    gap.send(*[JPEG] * 5, sequences=range(5))
    gap.send(*[JPEG] * (CLIP - 5), sequences=range(6, 100))
    halved = recording.open_stream("stream-2")
    halved.send(*[JPEG] * CLIP, sequences=range(7, 100, 2))
    (clip,) = recording.clips()
    assert clip.name.startswith("stream-2-")


def test_a_jpeg_that_is_cut_short_is_not_kept(recording: Recording) -> None:
    stream = recording.open_stream()
    stream.send(*[JPEG] * MIN_CLIP_FRAMES, JPEG[:-1], JPEG)
    assert recording.lengths() == [MIN_CLIP_FRAMES]


def test_a_clip_ends_with_the_drift(recording: Recording) -> None:
    stream = recording.open_stream()
    stream.send(*[JPEG] * MIN_CLIP_FRAMES)
    stream.drift_by(1)
    stream.send(JPEG)
    assert recording.lengths() == [MIN_CLIP_FRAMES]


def test_a_stream_that_ends_leaves_its_clip(recording: Recording) -> None:
    stream = recording.open_stream()
    stream.send(*[JPEG] * MIN_CLIP_FRAMES)
    stream.recorder.close()
    assert recording.lengths() == [MIN_CLIP_FRAMES]


def test_pauses_between_clips_of_a_stream_grow(recording: Recording) -> None:
    stream = recording.open_stream()
    expected = [0]
    for doublings in range(3):
        expected.append(expected[-1] + CLIP * (1 + PAUSE * 2**doublings))
    for number in range(expected[-1] + CLIP):
        stream.send(JPEG[:-2] + b"%06d" % number + JPEG[-2:])
    first_frames = [(clip / "000000.jpg").read_bytes() for clip in recording.clips()]
    assert [int(content[-8:-2]) for content in first_frames] == expected


def test_only_some_streams_are_recorded_at_a_time(recording: Recording) -> None:
    streams = [recording.open_stream(f"stream-{number}") for number in range(MAX_OPEN_CLIPS + 1)]
    for stream in streams:
        stream.send(JPEG)
    assert len(recording.recorder.having_turn) == MAX_OPEN_CLIPS
    assert streams[-1].recorder not in recording.recorder.having_turn
    streams[0].recorder.close()
    streams[-1].send(JPEG)
    assert streams[-1].recorder in recording.recorder.having_turn


def test_a_stream_leaves_as_much_to_others_as_it_takes(tmp_path: Path) -> None:
    """The folder has room for 100 frames; streams drift one after the other, each as long as it may."""
    image = JPEG[:2] + bytes(10_000 - len(JPEG)) + JPEG[2:]
    recording = record_into(tmp_path, max_bytes=100 * len(image))
    for number in range(3):
        stream = recording.open_stream(f"stream-{number}")
        for _ in range(6):
            stream.send(*[image] * CLIP)
            wait_until(lambda: recording.recorder.writer.num_queued_bytes == 0)
            stream.number += 100 * CLIP * PAUSE  # the pause is over
    counts = [len(list(tmp_path.glob(f"toy@1/stream-{number}-*/*.jpg"))) for number in range(3)]
    assert counts[0] >= counts[1] >= counts[2] > 0
    assert counts[0] <= 50 + CLIP
    recording.close()


def test_recording_ends_with_one_warning_when_the_folder_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = JPEG[:2] + bytes(10_000 - len(JPEG)) + JPEG[2:]
    recording = record_into(tmp_path, max_bytes=MIN_CLIP_FRAMES * len(image))
    for name in ("stream-1", "stream-2"):
        recording.open_stream(name).send(*[image] * CLIP)
    assert recording.lengths() == [MIN_CLIP_FRAMES]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "holds all it may, 0.11 MB: adapt to it" in warning
    assert recording.recorder.writer.has_stopped
    recording.close()


def test_a_disk_that_fails_ends_recording_with_one_warning_and_no_stream(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(clip: ClipFolder, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ClipFolder, "add", refuse)
    stream = recording.open_stream()
    stream.send(*[JPEG] * (3 * CLIP))
    wait_until(lambda: recording.recorder.writer.has_stopped)
    stream.send(*[JPEG] * (3 * CLIP))
    assert recording.clips() == []
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "No space left on device" in warning
    assert warning.endswith("streams go on unrecorded")


def test_what_waits_for_a_slow_disk_is_bounded(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk, add = threading.Event(), ClipFolder.add

    def wait(clip: ClipFolder, content: bytes) -> None:
        assert disk.wait(timeout=20)
        add(clip, content)

    monkeypatch.setattr(ClipFolder, "add", wait)
    monkeypatch.setattr(clip_writer, "MAX_QUEUED_BYTES", MIN_CLIP_FRAMES * len(JPEG))
    stream = recording.open_stream()
    stream.send(*[JPEG] * (20 * CLIP))
    assert recording.recorder.writer.num_queued_bytes == MIN_CLIP_FRAMES * len(JPEG)
    disk.set()
    assert recording.lengths() == [MIN_CLIP_FRAMES]
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == [f"{recording.root} is slower than the streams that drift: clips end early"]


def write_model(tmp_path: Path) -> Bundle:
    return read_bundle(write_toy_bundle(tmp_path / "toy", baseline=toy_baseline(64)))


NUM_FRAMES = 1 + MIN_FRAMES + CLIP  # the first is its own key frame, and then the drift is not known


@in_asyncio
async def test_of_two_cameras_the_one_that_drifts_is_recorded(recording: Recording, tmp_path: Path) -> None:
    """PNG frames of another value than that of the baseline, among them one that does not decode."""
    model = served_model(write_model(tmp_path))
    async with serve_here(model, recorder=recording.recorder) as server:
        known = await converse(server.address, configuration(), *requests(*[64] * NUM_FRAMES))
        drifting = await converse(server.address, configuration(), *requests(*[128] * 100))
        refused = await converse(
            server.address, configuration(), *requests(*[160] * (MIN_FRAMES + 2), b"", *[160] * (NUM_FRAMES - 1))
        )
    assert known.results[-1].quality.drift == 0
    assert drifting.results[-1].quality.drift == 4
    assert refused.results[-1].quality.drift == 6
    clips = {clip.name[:9]: clip for clip in recording.clips()}
    assert set(clips) == {"stream-2-", "stream-3-"}
    for stream, value in (("stream-2-", 128), ("stream-3-", 160)):
        images = sorted(clips[stream].glob("*.jpg"))
        assert len(images) == CLIP
        assert abs(int(read(images[0])[0, 0, 0]) - value) <= 1


@in_asyncio
async def test_jpeg_frames_are_kept_as_they_were_sent(recording: Recording, tmp_path: Path) -> None:
    sent = jpeg(toy_frame(128))
    document = {"encoding": "FRAME_ENCODING_JPEG"}
    async with serve_here(served_model(write_model(tmp_path)), recorder=recording.recorder) as server:
        answered = await converse(server.address, configuration(format=document), *requests(*[sent] * NUM_FRAMES))
    assert len(answered.results) == NUM_FRAMES
    (clip,) = recording.clips()
    assert {path.read_bytes() for path in clip.glob("*.jpg")} == {sent}


@in_asyncio
async def test_a_stream_of_a_model_without_a_baseline_is_not_recorded(recording: Recording, toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle), recorder=recording.recorder) as server:
        answered = await converse(server.address, configuration(), *requests(*[128] * NUM_FRAMES))
    assert answered.results[-1].quality.drift == 0
    assert recording.clips() == []


@in_asyncio
async def test_frames_decoded_for_recording_are_let_go_once_the_stream_pauses(
    recording: Recording, tmp_path: Path
) -> None:
    """Of PNG frames, which must be decoded; the two that are answered at the clip's edge are in flight."""
    model = served_model(write_model(tmp_path))
    kept: list[bool] = []
    encode = AnswerEncoder.encode

    def watch(
        encoder: AnswerEncoder, frame: pb.Frame, decoded: DecodedFrame, outcome: Outcome, received_at: float
    ) -> pb.FrameResult:
        kept.append(decoded.native is not None)
        return encode(encoder, frame, decoded, outcome, received_at)

    delivery = {"max_in_flight": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerEncoder, "encode", watch)
        async with serve_here(model, recorder=recording.recorder) as server:
            await converse(server.address, configuration(delivery=delivery), *requests(*[128] * (NUM_FRAMES + 30)))
    assert kept.index(True) > MIN_FRAMES
    assert CLIP <= kept.count(True) <= CLIP + 2
    assert recording.lengths() == [CLIP]
