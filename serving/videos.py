"""Videos in, label folders and overlay videos out. What is written appears under its name only once it is complete."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.frames import Size

DEFAULT_FPS = 25.0  # of sources that do not say


class VideoError(ValueError):
    """A video that cannot be read, or an output that cannot be written, in one sentence for the user."""


@dataclass(frozen=True)
class Video:
    """A video that could be opened."""

    capture: cv2.VideoCapture
    is_live: bool  # a camera or a network stream: its frames come when they come
    size: Size
    fps: float
    num_frames: int  # as the file says; 0 if unknown

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Frames (H, W, 3) RGB until the video ends; then the video is closed."""
        try:
            while True:
                is_read, frame = self.capture.read()
                if not is_read:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        finally:
            self.capture.release()


def open_video(source: str) -> Video:
    """Opens a file, a camera by its number, or a URL.

    Raises:
        VideoError: if there is no such thing, or it is no video.
    """
    is_live = source.isdecimal() or "://" in source
    if not is_live and not Path(source).is_file():
        raise VideoError(f"there is no video at {source}")
    capture = cv2.VideoCapture(int(source)) if source.isdecimal() else cv2.VideoCapture(source)
    size = Size(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    if not capture.isOpened() or min(size) < 1:
        capture.release()
        raise VideoError(f"{source} cannot be opened as a video")
    fps = capture.get(cv2.CAP_PROP_FPS)
    num_frames = 0 if is_live else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    return Video(capture, is_live, size, fps if fps > 0 else DEFAULT_FPS, num_frames)


class LabelFolder:
    """A new folder of label maps, one PNG per frame that has a result."""

    def __init__(self, folder: Path) -> None:
        """Starts the folder under a temporary name.

        Raises:
            VideoError: if it exists or cannot be made.
        """
        check_output(folder)
        self._folder = folder
        self._unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(self._unfinished, ignore_errors=True)
        try:
            self._unfinished.mkdir()
        except OSError as error:  # a full or read-only disk, a name too long
            raise VideoError(f"{folder} cannot be written: {error.strerror}") from error

    def write(self, sequence: int, png: bytes) -> None:
        """Adds a label map."""
        (self._unfinished / f"{sequence:06d}.png").write_bytes(png)

    def finish(self) -> None:
        """Gives the folder its name."""
        self._unfinished.rename(self._folder)

    def __enter__(self) -> Self:
        """The folder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished."""
        shutil.rmtree(self._unfinished, ignore_errors=True)


class VideoFile:
    """A new MP4 file."""

    def __init__(self, path: Path, size: Size, fps: float) -> None:
        """Starts the file under a temporary name.

        Raises:
            VideoError: if it exists, cannot be made, or is not called .mp4.
        """
        if path.suffix.lower() != ".mp4":
            raise VideoError(
                f"{path} cannot be written: the overlay is an MP4 file, call it {path.with_suffix('.mp4')}"
            )
        check_output(path)
        self._path = path
        self._size = size
        self._unfinished = path.with_name(f".{path.stem}.unfinished.mp4")
        self._writer = cv2.VideoWriter(str(self._unfinished), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._writer.isOpened():
            raise VideoError(f"{path} cannot be written: OpenCV has no MP4 encoder for {size} at {fps:g} frames/s")

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Adds a frame (H, W, 3) RGB of the file's size."""
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def finish(self) -> None:
        """Gives the file its name."""
        self._writer.release()
        self._unfinished.rename(self._path)

    def __enter__(self) -> Self:
        """The file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished."""
        self._writer.release()
        self._unfinished.unlink(missing_ok=True)


def check_output(path: Path) -> None:
    """Refuses an output that is there already or cannot be made; VideoError says why."""
    if path.exists():
        raise VideoError(f"{path} exists: remove it or name another output")
    if not path.parent.is_dir():
        raise VideoError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise VideoError(f"{path} cannot be written: no permission in {path.parent}")
