import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from serving.videos import DEFAULT_FPS, MAX_FPS, CapturedVideo, ImageFolder, VideoError, open_video
from tests.serving.clips import COLOURS, SIZE, assert_shows, still


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames, each of one colour."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, SIZE)
    for color in COLOURS:
        writer.write(cv2.cvtColor(still(color), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def test_a_file_is_opened_with_what_it_says_of_itself_and_read_in_rgb(clip: Path) -> None:
    video = open_video(str(clip))
    assert isinstance(video, CapturedVideo)
    assert (video.size, video.fps, video.num_frames, video.is_live) == (SIZE, 12.5, 3, False)
    assert_shows(list(video.frames()))
    assert not video.capture.isOpened()


def test_a_video_is_closed_when_nobody_wants_more_of_it(clip: Path) -> None:
    video = open_video(str(clip))
    assert isinstance(video, CapturedVideo)
    frames = video.frames()
    next(frames)
    assert video.capture.isOpened()
    frames.close()  # type: ignore[attr-defined]  # an Iterator to others, a generator to us
    assert not video.capture.isOpened()


def test_a_video_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"^there is no video at .*/absent\.mp4$"):
        open_video(str(tmp_path / "absent.mp4"))


@pytest.mark.parametrize("content", [b"", b"no video, only words\n" * 100])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "words.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"/words\.mp4 cannot be opened as a video$"):
        open_video(str(tmp_path / "words.mp4"))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of an HTTP server of the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_behind_an_address_has_an_end_and_is_not_live(clip: Path, web: str) -> None:
    video = open_video(f"{web}/{clip.name}")
    assert (video.size, video.fps, video.num_frames, video.is_live) == (SIZE, 12.5, 3, False)
    assert_shows(list(video.frames()))


class Camera(BaseHTTPRequestHandler):
    """An IP camera: JPEG after JPEG in one answer, without a length."""

    def do_GET(self) -> None:  # its name there
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for color in COLOURS:
            _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(still(color), cv2.COLOR_RGB2BGR))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
            with contextlib.suppress(OSError):  # who only looked what it is has gone
                self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the same
        pass


def test_a_camera_behind_an_address_is_live() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        video = open_video(f"http://127.0.0.1:{server.server_port}/stream.mjpg")
        assert (video.size, video.num_frames, video.is_live) == (SIZE, 0, True)
        assert 0 < video.fps <= MAX_FPS
        assert_shows(list(video.frames()))
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("source", ["99", "rtsp://127.0.0.1:1/absent"])
def test_a_camera_or_address_where_nothing_is_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VideoError, match=f"^{source} cannot be opened as a video$"):
        open_video(source)


# Folders of images


def write_images(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), cv2.cvtColor(still(COLOURS[index]), cv2.COLOR_RGB2BGR))
    return folder


def test_images_come_in_the_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", "frame 9.png", "frame 10.PNG", "frame 100.jpg")
    (folder / "frame 11.txt").write_text("no image")
    (folder / "frame 12.png").mkdir()
    video = open_video(str(folder), image_fps=5.0)
    assert isinstance(video, ImageFolder)
    assert [path.name for path in video.paths] == ["frame 9.png", "frame 10.PNG", "frame 100.jpg"]
    assert (video.size, video.fps, video.num_frames, video.is_live) == (SIZE, 5.0, 3, False)
    assert_shows(list(video.frames()))
    assert open_video(str(folder)).fps == DEFAULT_FPS


def test_names_that_differ_by_zeros_alone_have_an_order(tmp_path: Path) -> None:
    video = open_video(str(write_images(tmp_path / "images", "1.png", "01.png", "a.png")))
    assert isinstance(video, ImageFolder)
    assert [path.name for path in video.paths] == ["a.png", "01.png", "1.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r" has no images \(\.bmp, "):
        open_video(str(tmp_path))


def test_an_image_of_another_size_or_none_at_all_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", "1.png", "2.png")
    cv2.imwrite(str(folder / "2.png"), np.zeros((5, 7, 3), np.uint8))
    frames = open_video(str(folder)).frames()
    next(frames)
    with pytest.raises(VideoError, match=r"/2\.png is 7x5, 1\.png is 64x48: the images of a folder must have"):
        next(frames)
    (folder / "2.png").write_text("no image")
    frames = open_video(str(folder)).frames()
    next(frames)
    with pytest.raises(VideoError, match=r"/2\.png cannot be read as an image$"):
        next(frames)
