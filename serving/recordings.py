"""Label folders and overlay videos to write. What is written appears under its name only once it is complete."""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.frames import Size, fit
from serving.videos import VideoError


class Recording(Protocol):
    """Something that is being written."""

    def finish(self) -> None:
        """Gives it its name, now that it is complete."""

    def keep_part(self) -> Path:
        """Gives it another name, which says that it is not complete, and returns that.

        Raises:
            VideoError: if the name is taken.
        """


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

    def keep_part(self) -> Path:
        """As `Recording` says."""
        part = self._folder.with_name(f"{self._folder.name}.partial")
        _check_free(part)
        self._unfinished.rename(part)
        return part

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
        self._num_frames = 0  # written
        self._unfinished = path.with_name(f".{path.stem}.unfinished.mp4")
        self._writer = cv2.VideoWriter(str(self._unfinished), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._writer.isOpened():
            raise VideoError(f"{path} cannot be written: OpenCV has no MP4 encoder for {size} at {fps:g} frames/s")

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Adds a frame (H, W, 3) RGB. One of another size is scaled: OpenCV would skip it."""
        self._writer.write(cv2.cvtColor(fit(frame, self._size), cv2.COLOR_RGB2BGR))
        self._num_frames += 1

    def finish(self) -> None:
        """Gives the file its name.

        Raises:
            VideoError: if not all of it arrived on the disk, which OpenCV does not tell.
        """
        self._close()
        self._unfinished.rename(self._path)

    def keep_part(self) -> Path:
        """As `Recording` says."""
        part = self._path.with_name(f"{self._path.stem}.partial{self._path.suffix}")
        _check_free(part)
        self._close()
        self._unfinished.rename(part)
        return part

    def _close(self) -> None:
        self._writer.release()
        written = cv2.VideoCapture(str(self._unfinished))
        num_written = max(0, int(written.get(cv2.CAP_PROP_FRAME_COUNT)))
        written.release()
        if self._num_frames and num_written != self._num_frames:
            raise VideoError(
                f"{self._path} could not be written in full, {num_written} of {self._num_frames} frames are there:"
                " is the disk full?"
            )

    def __enter__(self) -> Self:
        """The file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Removes what was not finished."""
        self._writer.release()
        self._unfinished.unlink(missing_ok=True)


def _check_free(part: Path) -> None:
    if part.exists():
        raise VideoError(f"{part} exists, so what was done is not kept")


def check_output(path: Path) -> None:
    """Refuses an output that is there already or cannot be made; VideoError says why."""
    if path.exists():
        raise VideoError(f"{path} exists: remove it or name another output")
    if not path.parent.is_dir():
        raise VideoError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise VideoError(f"{path} cannot be written: no permission in {path.parent}")
