"""Videos to read: files, folders of images, cameras, and streams of a network."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.frames import Size

DEFAULT_FPS = 25.0  # of sources that do not say
MAX_FPS = 240.0  # above which a source is not believed: some say how fine their clock is
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class VideoError(ValueError):
    """A video that cannot be read, or an output that cannot be written, in one sentence for the user."""


class Video(Protocol):
    """A video that could be opened."""

    @property
    def is_live(self) -> bool:
        """A camera or a network stream: its frames come when they come, and it has no end of its own."""

    @property
    def size(self) -> Size:
        """Of the frames."""

    @property
    def fps(self) -> float:
        """Frames per second, for who plays it."""

    @property
    def num_frames(self) -> int:
        """As the video says; 0 if unknown."""

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Frames (H, W, 3) RGB until the video ends; then it is closed.

        Raises:
            VideoError: if one cannot be read.
        """

    def close(self) -> None:
        """Lets go of it, for who only wanted to know whether it opens."""


@dataclass(frozen=True)
class CapturedVideo:
    """A file, camera or network stream that OpenCV reads."""

    capture: cv2.VideoCapture
    is_live: bool
    size: Size
    fps: float
    num_frames: int

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """As `Video` says."""
        try:
            while True:
                is_read, frame = self.capture.read()
                if not is_read:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
        finally:
            self.capture.release()

    def close(self) -> None:
        """As `Video` says."""
        self.capture.release()


@dataclass(frozen=True)
class ImageFolder:
    """Images of one size, which are the frames of a video."""

    paths: tuple[Path, ...]  # in order
    size: Size  # of the first one
    fps: float
    is_live: bool = False

    @property
    def num_frames(self) -> int:
        """One for each image."""
        return len(self.paths)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """As `Video` says; an image of another size is an error."""
        for path in self.paths:
            image = _read_image(path)
            size = Size(image.shape[1], image.shape[0])
            if size != self.size:
                raise VideoError(
                    f"{path} is {size}, {self.paths[0].name} is {self.size}: the images of a folder must have one size"
                )
            yield image

    def close(self) -> None:
        """As `Video` says: nothing is open between two images."""


def open_video(source: str, image_fps: float = DEFAULT_FPS) -> Video:
    """Opens a file, a folder of images, a camera by its number, or a URL.

    Args:
        source: "3" is a camera, "./3" a file.
        image_fps: frames per second of a folder of images.

    Raises:
        VideoError: if there is no such thing, or it is no video.
    """
    if Path(source).is_dir():
        return _open_folder(Path(source), image_fps)
    is_camera, is_url = source.isdecimal(), "://" in source
    if not is_camera and not is_url and not Path(source).is_file():
        raise VideoError(f"there is no video at {source}")
    capture = cv2.VideoCapture(int(source)) if is_camera else cv2.VideoCapture(source)
    size = Size(int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    if not capture.isOpened() or min(size) < 1:
        capture.release()
        raise VideoError(f"{source} cannot be opened as a video")
    num_frames = 0 if is_camera else max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    fps = capture.get(cv2.CAP_PROP_FPS)
    return CapturedVideo(
        capture=capture,
        is_live=is_camera or (is_url and not num_frames),  # a file behind a URL has a length
        size=size,
        fps=fps if 0 < fps <= MAX_FPS else DEFAULT_FPS,
        num_frames=num_frames,
    )


def _open_folder(folder: Path, fps: float) -> ImageFolder:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise VideoError(f"{folder} has no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    paths.sort(key=lambda path: _natural(path.name))
    height, width, _ = _read_image(paths[0]).shape
    return ImageFolder(tuple(paths), Size(width, height), fps)


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """A key by which 10 comes after 9; the name itself decides between 01 and 1."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part], name


def _read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise VideoError(f"{path} cannot be read as an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
