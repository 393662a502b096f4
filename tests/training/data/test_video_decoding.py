import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.data import video_decoding
from training.data.video_decoding import VideoDecoder, VideoFrame, index_videos

NUM_FRAMES = 60
SIZE = (32, 64)
CODECS = {"ride.mp4": "mp4v", "ride.avi": "MJPG", "ride.mkv": "mp4v", "ride.webm": "VP80"}


def write_video(path: Path, codec: str = "mp4v", num_frames: int = NUM_FRAMES) -> Path:
    """A square that wanders over noise that fades, so that no two frames are equal."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25.0, (SIZE[1], SIZE[0]))
    assert writer.isOpened()
    noise = np.random.default_rng(0).integers(0, 128, (*SIZE, 3), np.uint8)
    for number in range(num_frames):
        frame = noise + np.uint8(number)
        frame[4:16, number % 50 : number % 50 + 12] = (255, 2 * number, 0)
        writer.write(frame)
    writer.release()
    return path


def decoded_from_the_beginning(path: Path) -> list[NDArray[np.uint8]]:
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while (read := capture.read())[0]:
        frames.append(np.asarray(read[1][..., ::-1], np.uint8))
    return frames


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "ride.mp4")


def order(num_frames: int) -> list[int]:
    shuffled: list[int] = np.random.default_rng(0).permutation(num_frames).tolist()
    return [*shuffled, 0, num_frames - 1, 5, 4, 3, *range(10, 14)]


@pytest.mark.parametrize("name", CODECS)
def test_frames_in_any_order_are_those_of_decoding_from_the_beginning(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, CODECS[name])
    expected = decoded_from_the_beginning(path)
    decoder = VideoDecoder(index_videos([path]))
    assert len(expected) == len(decoder.indices[path].checksums) == NUM_FRAMES
    assert decoder.indices[path].size == SIZE
    for number in order(NUM_FRAMES):
        assert np.array_equal(decoder.read(VideoFrame(path, number)), expected[number])


def test_a_file_that_cannot_be_entered_in_the_middle_is_read_from_its_beginning(
    video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class MissesByThree:
        """A capture whose seeking lands beside the frame, as in files with frames of unequal duration."""

        def __init__(self, capture: cv2.VideoCapture) -> None:
            self.capture = capture

        def set(self, key: int, value: float) -> bool:
            return self.capture.set(key, value + 3)

        def __getattr__(self, name: str) -> Any:  # all else is OpenCV's, which has no useful types
            return getattr(self.capture, name)

    decoder, expected = VideoDecoder(index_videos([video])), decoded_from_the_beginning(video)
    open_video = video_decoding._capture
    monkeypatch.setattr(video_decoding, "_capture", lambda path: MissesByThree(open_video(path)))
    for number in order(NUM_FRAMES):
        assert np.array_equal(decoder.read(VideoFrame(video, number)), expected[number])
    assert [record.getMessage() for record in caplog.records] == [
        f"{video} cannot be entered in the middle: reading it is slow, convert it"
    ]


def test_more_files_than_may_be_open_are_read(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{number}.mp4", num_frames=5 + number) for number in range(6)]
    decoder = VideoDecoder(index_videos(paths))
    for path in (*paths, *paths):
        assert np.array_equal(decoder.read(VideoFrame(path, 4)), decoded_from_the_beginning(path)[4])


def test_a_decoder_can_be_sent_to_another_process(video: Path) -> None:
    decoder = VideoDecoder(index_videos([video]))
    frame = decoder.read(VideoFrame(video, 40))
    assert np.array_equal(pickle.loads(pickle.dumps(decoder)).read(VideoFrame(video, 40)), frame)


def test_a_video_that_changed_since_it_was_opened_is_noticed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ride.mp4")
    decoder = VideoDecoder(index_videos([path]))
    write_video(path, num_frames=20)
    with pytest.raises(ValueError, match=r"frame 30 of .*ride\.mp4 does not decode as it did"):
        decoder.read(VideoFrame(path, 30))
    assert len(index_videos([path])[path].checksums) == 20


def test_all_files_that_are_no_videos_are_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"no frame can be decoded of \S*a\.mp4, \S*c\.mp4: copy them again"):
        index_videos([tmp_path / "a.mp4", write_video(tmp_path / "b.mp4", num_frames=2), tmp_path / "c.mp4"])
