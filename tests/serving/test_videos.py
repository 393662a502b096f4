import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.frames import Size
from serving.videos import DEFAULT_FPS, LabelFolder, VideoError, VideoFile, check_output, open_video

SIZE = Size(64, 48)
COLOURS = [(200, 30, 60), (20, 220, 90), (10, 40, 240)]  # RGB


def still(color: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((SIZE.height, SIZE.width, 3), color, np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames, each of one colour."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, SIZE)
    for color in COLOURS:
        writer.write(cv2.cvtColor(still(color), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def assert_shows(frames: list[NDArray[np.uint8]]) -> None:
    """The frames are those of the clip, as far as a codec leaves them alone."""
    for frame, color in zip(frames, COLOURS, strict=True):
        assert frame.shape == (SIZE.height, SIZE.width, 3)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - still(color)).max() < 16


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# In


def test_a_file_is_opened_with_what_it_says_of_itself_and_read_in_rgb(clip: Path) -> None:
    video = open_video(str(clip))
    assert (video.size, video.fps, video.num_frames, video.is_live) == (SIZE, 12.5, 3, False)
    assert_shows(list(video.frames()))
    assert not video.capture.isOpened()


def test_a_video_is_closed_when_nobody_wants_more_of_it(clip: Path) -> None:
    video = open_video(str(clip))
    frames = video.frames()
    next(frames)
    assert video.capture.isOpened()
    frames.close()  # type: ignore[attr-defined]  # an Iterator to others, a generator to us
    assert not video.capture.isOpened()


def test_a_video_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"^there is no video at .*/absent\.mp4$"):
        open_video(str(tmp_path / "absent.mp4"))
    with pytest.raises(VideoError, match=r"^there is no video at "):
        open_video(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no video, only words\n" * 100])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"/words\.mp4 cannot be opened as a video$"):
        open_video(str(tmp_path / "words.mp4"))


# Out


def test_a_label_folder_appears_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    with LabelFolder(folder) as labels:
        labels.write(0, b"first")
        labels.write(12, b"second")
        assert not folder.exists()
        labels.finish()
        assert names(tmp_path) == ["labels"]
    assert names(tmp_path) == ["labels"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "000000.png": b"first",
        "000012.png": b"second",
    }


def test_a_label_folder_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with LabelFolder(tmp_path / "labels") as labels:
        labels.write(0, b"first")
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_not_mixed_in(tmp_path: Path) -> None:
    killed = LabelFolder(tmp_path / "labels")
    killed.write(5, b"stale")
    with LabelFolder(tmp_path / "labels") as labels:
        labels.write(0, b"fresh")
        labels.finish()
    assert names(tmp_path) == ["labels"]
    assert names(tmp_path / "labels") == ["000000.png"]


def test_a_video_file_appears_only_when_it_is_finished_and_shows_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "overlay.mp4"
    with VideoFile(path, SIZE, 12.5) as file:
        for color in COLOURS:
            file.write(still(color))
        assert not path.exists()
        file.finish()
        assert names(tmp_path) == ["overlay.mp4"]
    assert names(tmp_path) == ["overlay.mp4"]
    video = open_video(str(path))
    assert (video.size, video.fps, video.num_frames) == (SIZE, 12.5, 3)
    assert_shows(list(video.frames()))


def test_a_video_file_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "overlay.mp4", SIZE, DEFAULT_FPS) as file:
        file.write(still(COLOURS[0]))
    assert names(tmp_path) == []


def test_a_video_file_that_is_not_called_mp4_is_refused_with_the_name_it_should_have(tmp_path: Path) -> None:
    with pytest.raises(
        VideoError, match=r"/overlay\.avi cannot be written: the overlay is an MP4 file, call it .*/overlay\.mp4$"
    ):
        VideoFile(tmp_path / "overlay.avi", SIZE, DEFAULT_FPS)
    assert names(tmp_path) == []


def test_a_size_that_cannot_be_encoded_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"OpenCV has no MP4 encoder for 0x48 at 25 frames/s$"):
        VideoFile(tmp_path / "overlay.mp4", Size(0, 48), 25.0)
    assert names(tmp_path) == []


OUTPUTS = pytest.mark.parametrize(
    ("start", "name"),
    [(LabelFolder, "labels"), (lambda path: VideoFile(path, SIZE, DEFAULT_FPS), "overlay.mp4")],
)


@OUTPUTS
def test_an_output_that_exists_is_refused_and_left_alone(
    tmp_path: Path, start: Callable[[Path], object], name: str
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(VideoError, match=rf"/{name} exists: remove it or name another output$"):
        start(tmp_path / name)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


@OUTPUTS
def test_an_output_in_a_folder_that_is_not_there_is_refused(
    tmp_path: Path, start: Callable[[Path], object], name: str
) -> None:
    (tmp_path / "file").touch()
    for parent in ("absent", "file"):
        with pytest.raises(VideoError, match=rf"/{name} cannot be written: there is no folder .*/{parent}$"):
            start(tmp_path / parent / name)
    assert names(tmp_path) == ["file"]


@OUTPUTS
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_in_a_folder_of_others_is_refused(tmp_path: Path, start: Callable[[Path], object], name: str) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(VideoError, match=rf"/{name} cannot be written: no permission in "):
            start(tmp_path / name)
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_of_others_is_refused_by_what_the_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(VideoError, match="/labels cannot be written: no permission in "):
        check_output(tmp_path / "labels")


def test_a_name_too_long_for_the_disk_is_refused(tmp_path: Path) -> None:
    name = "x" * 250  # the temporary name is longer
    with pytest.raises(VideoError, match=r"cannot be written: File name too long$"):
        LabelFolder(tmp_path / name)
    with pytest.raises(VideoError, match="cannot be written: "):
        VideoFile(tmp_path / f"{name}.mp4", SIZE, DEFAULT_FPS)
    assert names(tmp_path) == []
