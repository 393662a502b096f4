import os
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.frames import Size
from serving.recordings import LabelFolder, VideoFile, check_output
from serving.videos import DEFAULT_FPS, VideoError, open_video
from tests.serving.clips import COLOURS, SIZE, assert_shows, names, still


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


def test_a_video_file_keeps_a_frame_rate_that_is_no_whole_number(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "overlay.mp4", SIZE, 30000 / 1001) as file:
        file.write(still(COLOURS[0]))
        file.write(still(COLOURS[1]))
        file.finish()
    assert open_video(str(tmp_path / "overlay.mp4")).fps == pytest.approx(30000 / 1001, rel=1e-4)


def test_a_frame_of_another_size_is_scaled(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "overlay.mp4", SIZE, 10.0) as file:
        file.write(still(COLOURS[0]))
        file.write(still(COLOURS[1])[:20, :30])
        file.write(still(COLOURS[2]))
        file.finish()
    assert_shows(list(open_video(str(tmp_path / "overlay.mp4")).frames()))


def test_a_part_is_kept_under_a_name_that_says_so(tmp_path: Path) -> None:
    with LabelFolder(tmp_path / "labels") as labels, VideoFile(tmp_path / "overlay.mp4", SIZE, 10.0) as overlay:
        labels.write(0, b"first")
        overlay.write(still(COLOURS[0]))
        assert labels.keep_part() == tmp_path / "labels.partial"
        assert overlay.keep_part() == tmp_path / "overlay.partial.mp4"
    assert names(tmp_path) == ["labels.partial", "overlay.partial.mp4"]
    assert len(list(open_video(str(tmp_path / "overlay.partial.mp4")).frames())) == 1


def test_a_part_does_not_take_the_place_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "labels.partial").mkdir()
    (tmp_path / "overlay.partial.mp4").write_text("precious")
    with LabelFolder(tmp_path / "labels") as labels, VideoFile(tmp_path / "overlay.mp4", SIZE, 10.0) as overlay:
        for recording in (labels, overlay):
            with pytest.raises(VideoError, match=r"\.partial(\.mp4)? exists, so what was done is not kept$"):
                recording.keep_part()
    assert names(tmp_path) == ["labels.partial", "overlay.partial.mp4"]
    assert (tmp_path / "overlay.partial.mp4").read_text() == "precious"


def test_a_video_file_that_did_not_reach_the_disk_whole_is_no_success(tmp_path: Path) -> None:
    """As on a full disk: OpenCV goes on without a word."""
    with VideoFile(tmp_path / "overlay.mp4", SIZE, 10.0) as file:
        for color in COLOURS:
            file.write(still(color))
        file._writer.release()
        (tmp_path / ".overlay.unfinished.mp4").write_bytes(b"")
        with pytest.raises(VideoError, match="could not be written in full, 0 of 3 frames are there: is the disk full"):
            file.finish()
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
