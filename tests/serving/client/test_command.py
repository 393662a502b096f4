"""The command `python -m serving.client`: in a process of its own, or by its `run` and `main`."""

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from serving.client.answers import FrameAnswer
from serving.client.command import run, stream_video
from serving.client.command_options import ClientOptions
from serving.client.events import ignore_event
from serving.client.frames import Frame
from serving.client.interruption import Interruption
from serving.client.ledger import Totals
from serving.client.options import AdaptiveKeyFrames
from serving.client.summary import Meter
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png
from serving.videos import CapturedVideo, open_video
from tests.serving.conftest import MODULUS, REPOSITORY, SIZE, ServerProcess, start_server, wait_until

NUM_FRAMES = 12
LONG = 2000  # frames
CLIENT_COMMAND = (sys.executable, "-m", "serving.client")


def write_video(path: Path, num_frames: int, width: int, height: int) -> Path:
    """A ramp that moves over a gray that brightens, far from the values that poison the toy."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (width, height))
    assert writer.isOpened()
    for index in range(num_frames):
        frame = np.full((height, width, 3), 40 + 5 * (index % 20), np.uint8)
        frame[..., 2] = (np.arange(width) + 3 * index) % 100
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the toy's own size."""
    return write_video(tmp_path_factory.mktemp("videos") / "video.mp4", NUM_FRAMES, SIZE, SIZE)


@pytest.fixture(scope="session")
def wide_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "wide.mp4", NUM_FRAMES, 96, 48)


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    return list(open_video(str(path)).frames())


def toy_labels(frames: Sequence[NDArray[np.uint8]], interval: int) -> list[NDArray[np.uint8]]:
    """What the toy answers, by its definition in conftest.py."""
    total, age, labels = int(frames[0].max()), 0, []
    for frame in frames:
        labels.append(((frame[..., 0].astype(int) + total) % MODULUS).astype(np.uint8))
        if age > 0:
            total = (total + int(frame.max())) % MODULUS
        if age >= interval:
            total, age = int(frame.max()), 0
        age += 1
    return labels


def names(folder: Path) -> set[str]:
    """Of all that lies there, hidden or not."""
    return {path.name for path in folder.iterdir()}


def run_client(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [*CLIENT_COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def refusal(*arguments: str | Path) -> str:
    """The one sentence with which the command ends."""
    done = run_client(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.rstrip("\n")


# --- a video --------------------------------------------------------------------------------------------------------


def test_label_maps_are_the_answers_to_the_videos_frames(
    toy_server: ServerProcess, video: Path, tmp_path: Path
) -> None:
    options = ClientOptions(
        source=str(video), server=toy_server.address, labels=tmp_path / "labels", encoding="png", key_frame_interval=3
    )
    summary = run(options)
    expected = toy_labels(frames_of(video), interval=3)
    assert len(expected) == NUM_FRAMES
    assert names(tmp_path / "labels") == {f"{index:06d}.png" for index in range(NUM_FRAMES)}
    for index, labels in enumerate(expected):
        found = decode_png((tmp_path / "labels" / f"{index:06d}.png").read_bytes())
        assert np.array_equal(found, labels), index
    assert (summary.frames, summary.answered, summary.dropped, summary.errors) == (NUM_FRAMES, NUM_FRAMES, 0, 0)
    assert (summary.key_frames, summary.model) == (4, "toy@1")  # frames 0, 3, 6 and 9


def test_the_command_writes_labels_and_an_overlay_and_its_figures_as_json(
    toy_server: ServerProcess, wide_video: Path, tmp_path: Path
) -> None:
    done = run_client(
        wide_video, "--server", toy_server.address, "--json",
        "--labels", tmp_path / "labels", "--overlay", tmp_path / "overlay.mp4",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["answered"], summary["model"]) == (NUM_FRAMES, NUM_FRAMES, "toy@1")
    assert summary["fps"] > 0
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    assert names(tmp_path) == {"labels", "overlay.mp4"}
    assert len(names(tmp_path / "labels")) == NUM_FRAMES
    assert decode_png((tmp_path / "labels" / "000000.png").read_bytes()).shape == (48, 96)
    overlay = frames_of(tmp_path / "overlay.mp4")
    assert [frame.shape for frame in overlay] == [(48, 96, 3)] * NUM_FRAMES
    assert open_video(str(tmp_path / "overlay.mp4")).fps == 25.0


def test_without_outputs_nothing_is_written_and_the_figures_come_as_a_table(
    toy_server: ServerProcess, video: Path
) -> None:
    done = run_client(video, "--server", toy_server.address)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("frames", "answered", "key frames", "p50 ms", "toy@1"):
        assert name in done.stdout


def test_the_overlay_is_as_long_as_the_video_whatever_became_of_its_frames(
    toy_server: ServerProcess, tmp_path: Path
) -> None:
    """White frames are poison to the toy: they have an error for an answer."""
    video = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (SIZE, SIZE))  # keeps white white
    for value in (50, 255, 60, 255, 70):
        writer.write(np.full((SIZE, SIZE, 3), value, np.uint8))
    writer.release()
    assert [int(frame.max()) == 255 for frame in frames_of(video)] == [False, True, False, True, False]
    options = ClientOptions(
        source=str(video),
        server=toy_server.address,
        labels=tmp_path / "labels",
        overlay=tmp_path / "overlay.mp4",
        encoding="png",
    )
    summary = run(options)
    assert (summary.frames, summary.answered, summary.errors) == (5, 3, 2)
    assert names(tmp_path / "labels") == {"000000.png", "000002.png", "000004.png"}
    assert len(frames_of(tmp_path / "overlay.mp4")) == 5


def answer(latency_ms: float, result: pb.FrameResult | None) -> FrameAnswer:
    return FrameAnswer(sequence=0, frame=Frame(np.zeros((1, 1, 3), np.uint8)), result=result, latency_ms=latency_ms)


def test_figures_of_a_stream_without_answers_are_zero() -> None:
    meter = Meter()
    meter.observe(answer(5.0, None))
    assert meter.speed() == ""
    summary = meter.summarize(Totals(frames=2, errors=2), pb.Model(name="toy", version="1"))
    assert (summary.fps, summary.p50_ms, summary.p99_ms, summary.errors) == (0.0, 0.0, 0.0, 2)
    assert summary.model == "toy@1"


def test_figures_are_percentiles_of_the_latencies() -> None:
    meter = Meter()
    for value in range(101):
        meter.observe(answer(float(value), pb.FrameResult()))
    summary = meter.summarize(Totals(frames=101, results=101, held=3, reconnects=2), pb.Model())
    assert (summary.p50_ms, summary.p99_ms, summary.held, summary.reconnects) == (50.0, 99.0, 3, 2)
    assert summary.fps > 0
    assert meter.speed().endswith(" frames/s, 100 ms")


# --- what the user got wrong ----------------------------------------------------------------------------------------


def test_a_video_that_is_not_there_or_none_is_refused(toy_server: ServerProcess, tmp_path: Path) -> None:
    outputs = ("--labels", tmp_path / "labels", "--overlay", tmp_path / "overlay.mp4")
    missing, text = tmp_path / "missing.mp4", tmp_path / "text.mp4"
    text.write_text("no video at all")
    assert refusal(missing, "--server", toy_server.address, *outputs) == f"there is no video at {missing}"
    assert refusal(text, "--server", toy_server.address, *outputs) == f"{text} cannot be opened as a video"
    for absent in ("99", "rtsp://127.0.0.1:1/absent"):
        assert refusal(absent, "--server", toy_server.address, *outputs) == f"{absent} cannot be opened as a video"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty, "--server", toy_server.address, *outputs).startswith(f"{empty} has no images (.bmp, ")
    assert names(tmp_path) == {"text.mp4", "empty"}


def test_existing_outputs_are_refused_and_left_alone(toy_server: ServerProcess, video: Path, tmp_path: Path) -> None:
    labels, overlay = tmp_path / "labels", tmp_path / "overlay.mp4"
    labels.mkdir()
    (labels / "precious").touch()
    overlay.write_text("precious")
    server = ("--server", toy_server.address)
    assert refusal(video, *server, "--labels", labels) == f"{labels} exists: remove it or name another output"
    new = tmp_path / "new"
    sentence = refusal(video, *server, "--labels", new, "--overlay", overlay)
    assert sentence == f"{overlay} exists: remove it or name another output"
    assert names(tmp_path) == {"labels", "overlay.mp4"}
    assert names(labels) == {"precious"}
    assert overlay.read_text() == "precious"


def test_outputs_that_cannot_be_written_are_refused(toy_server: ServerProcess, video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    labels, overlay = tmp_path / "nowhere" / "labels", tmp_path / "file" / "overlay.mp4"
    server = ("--server", toy_server.address)
    assert refusal(video, *server, "--labels", labels) == (
        f"{labels} cannot be written: there is no folder {tmp_path / 'nowhere'}"
    )
    assert refusal(video, *server, "--overlay", overlay) == (
        f"{overlay} cannot be written: there is no folder {tmp_path / 'file'}"
    )
    assert refusal(video, *server, "--overlay", tmp_path / "overlay.avi") == (
        f"{tmp_path / 'overlay.avi'} cannot be written: the overlay is an MP4 file, call it {tmp_path / 'overlay.mp4'}"
    )
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--key-frame-interval", "-1"], "--key-frame-interval must be within 0..100000, it is -1"),
        (["--max-in-flight", "0"], "--max-in-flight must be 1 or more, it is 0"),
        (
            ["--max-in-flight", "1", "--delivery", "drop-oldest"],
            "--max-in-flight must be 2 or more, it is 1",
        ),
        (
            ["--model", "dog"],
            "the server ended the call with NOT_FOUND: there is no model 'dog': this server has toy@1",
        ),
        (["--max-age-ms", "-1"], "--max-age-ms must be 0 or more milliseconds, it is -1"),
        (["--outage-s", "inf"], "--outage-s must be 0 or more and finite, it is inf"),
        (["--staleness", "nan", "--adaptive"], "--staleness must be 0 or more and finite, it is nan"),
        (["--fps", "500"], "--fps must be within 0..240, it is 500.0"),
        (
            ["--adaptive", "--key-frame-interval", "5"],
            "--key-frame-interval is a fixed distance, --adaptive is not: give one of them",
        ),
        (["--max-interval", "5"], "--max-interval has no effect without --adaptive: give both or none"),
        (["--trace-every", "0"], "--trace-every must be 1 or more, it is 0"),
        (["--trace-every", "5"], "--trace-every has no effect without --trace: give both or none"),
        (["--may-skip-steps"], "--may-skip-steps has no effect without --target-ms: give both or none"),
        (
            ["--adaptive", "--min-interval", "9", "--max-interval", "5"],
            "the server ended the call with INVALID_ARGUMENT: config.key_frames.adaptive.max_interval: 5 is less than"
            " min_interval, 9",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_work_is_refused(
    toy_server: ServerProcess, video: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    outputs = ("--labels", tmp_path / "labels", "--overlay", tmp_path / "overlay.mp4")
    assert refusal(video, "--server", toy_server.address, *outputs, *arguments) == sentence
    assert names(tmp_path) == set()


def test_a_frame_rate_is_for_folders_of_images(toy_server: ServerProcess, video: Path) -> None:
    assert refusal(video, "--server", toy_server.address, "--fps", "5") == (
        f"--fps is for a folder of images, {video} has a frame rate: 25"
    )


def test_a_window_without_a_display_is_refused_in_one_sentence(
    toy_server: ServerProcess, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    sentence = refusal(video, "--server", toy_server.address, "--window", "--labels", tmp_path / "labels")
    assert sentence.startswith("--window needs a display and an OpenCV with windows, and there is none here: ")
    assert names(tmp_path) == set()


def test_a_server_that_is_not_there_is_missed(video: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outputs = ("--labels", tmp_path / "labels", "--overlay", tmp_path / "overlay.mp4")
    done = run_client(video, "--server", address, "--connect-s", "0.5", *outputs)
    assert (done.returncode, done.stdout) == (2, "")
    *attempts, sentence = done.stderr.splitlines()
    assert sentence == f"no server answers at {address}: start one with 'python -m serving.server BUNDLE'"
    assert attempts
    assert all(line.startswith("UNAVAILABLE, ") for line in attempts)
    assert names(tmp_path) == set()


@pytest.fixture(scope="session")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seconds of work, so that a test can step in."""
    return write_video(tmp_path_factory.mktemp("videos") / "long.mp4", LONG, SIZE, SIZE)


@contextlib.contextmanager
def client_in_the_middle(
    server: ServerProcess, video: Path, folder: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """A client that has written a few label maps, and is not through."""
    outputs = ["--labels", str(folder / "labels"), "--overlay", str(folder / "overlay.mp4")]
    unfinished = folder / ".labels.unfinished"
    with subprocess.Popen(
        [*CLIENT_COMMAND, str(video), "--server", server.address, *outputs, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as client:
        wait_until(lambda: unfinished.is_dir() and len(names(unfinished)) > 2)
        yield client


def test_a_server_that_dies_in_the_middle_leaves_nothing_half_written(
    toy_folder: Path, long_video: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("server") / "log"
    with (
        start_server(log, str(toy_folder)) as server,
        client_in_the_middle(server, long_video, tmp_path, "--outage-s", "0.5") as client,
    ):
        server.process.kill()
        out, error = client.communicate()
    assert (client.returncode, out) == (2, "")
    assert error.splitlines()[-1].startswith("the server ended the call with UNAVAILABLE and did not serve in ")
    assert names(tmp_path) == set()


def test_a_server_that_comes_back_is_told_of_and_nothing_is_missing(
    toy_folder: Path, long_video: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    logs = tmp_path_factory.mktemp("server")
    with (
        start_server(logs / "first", str(toy_folder)) as server,
        client_in_the_middle(server, long_video, tmp_path, "--json") as client,
    ):
        server.process.kill()
        server.process.wait()
        with start_server(logs / "second", str(toy_folder), port=server.port):
            out, error = client.communicate()
    summary = json.loads(out)
    assert client.returncode == 0
    assert (summary["frames"], summary["answered"], summary["reconnects"]) == (LONG, LONG, 1)
    assert "the stream goes on with a key frame" in error
    assert len(names(tmp_path / "labels")) == LONG


def test_an_interrupted_file_is_kept_in_part_under_names_that_say_so(
    toy_server: ServerProcess, long_video: Path, tmp_path: Path
) -> None:
    with client_in_the_middle(toy_server, long_video, tmp_path, "--json") as client:
        client.send_signal(signal.SIGINT)
        out, error = client.communicate()
    assert client.returncode == 130
    summary = json.loads(out)
    assert error.splitlines() == [
        "stopping once the frames under way are answered; Ctrl-C again keeps nothing",
        f"interrupted; {tmp_path / 'labels.partial'} holds what was done;"
        f" {tmp_path / 'overlay.partial.mp4'} holds what was done",
    ]
    assert names(tmp_path) == {"labels.partial", "overlay.partial.mp4"}
    assert 2 < summary["frames"] < LONG
    assert len(names(tmp_path / "labels.partial")) == summary["frames"]
    assert len(frames_of(tmp_path / "overlay.partial.mp4")) == summary["frames"]


def test_a_client_that_is_interrupted_twice_keeps_nothing(toy_folder: Path, long_video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with (
        start_server(tmp_path / "log", str(toy_folder)) as server,
        client_in_the_middle(server, long_video, folder) as client,
    ):
        server.process.send_signal(signal.SIGSTOP)  # so that no answer ends the stream between the two
        time.sleep(0.2)
        client.send_signal(signal.SIGINT)
        assert client.stderr is not None
        assert client.stderr.readline().startswith("stopping once ")
        client.send_signal(signal.SIGINT)
        out, error = client.communicate()
    assert (client.returncode, out, error) == (130, "", "interrupted: nothing is kept\n")
    assert names(folder) == set()


# --- sources and the ways to ask ------------------------------------------------------------------------------------


def test_a_folder_of_images_becomes_an_overlay_of_the_frame_rate_that_was_asked_for(
    toy_server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for value in (8, 9, 10):
        cv2.imwrite(str(tmp_path / "images" / f"{value}.png"), np.full((48, 64, 3), value, np.uint8))
    options = ClientOptions(
        source=str(tmp_path / "images"),
        server=toy_server.address,
        labels=tmp_path / "labels",
        overlay=tmp_path / "overlay.mp4",
        fps=12.5,
        encoding="rgb",
        label_encoding="delta-rle",
    )
    assert run(options).answered == 3
    overlay = open_video(str(tmp_path / "overlay.mp4"))
    assert (overlay.fps, overlay.num_frames) == (12.5, 3)
    found = [decode_png((tmp_path / "labels" / f"{index:06d}.png").read_bytes()) for index in range(3)]
    assert [int(labels.max()) for labels in found] == [16, 17, 27]  # totals 8, 8, 17


def test_a_live_source_that_is_interrupted_is_complete(
    toy_server: ServerProcess, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that plays the part of a camera."""
    camera = replace(cast("CapturedVideo", open_video(str(video))), is_live=True)
    monkeypatch.setattr("serving.client.command.open_video", lambda source, fps: camera)
    options = ClientOptions(source="0", server=toy_server.address, labels=tmp_path / "labels", delivery="block")
    interruption = Interruption()
    interruption.is_wanted = True
    outcome = stream_video(options, interruption, Console(file=io.StringIO()), ignore_event)
    assert (interruption.has_cut, outcome.is_partial) == (True, False)
    assert names(tmp_path) == {"labels"}


def test_live_sources_ask_for_the_latest_and_files_for_everything(video: Path) -> None:
    options = ClientOptions(source=str(video), adaptive=True, max_interval=9, target_ms=40, encoding="nv12")
    file = cast("CapturedVideo", open_video(str(video)))
    asked = options.stream_options(file)
    assert asked.delivery == "block"
    assert (asked.size, asked.outputs.labels, asked.latency.target_ms) == (file.size, "none", 40)
    assert asked.key_frames == AdaptiveKeyFrames(max_interval=9)
    assert options.stream_options(replace(file, is_live=True)).delivery == "latest-only"
