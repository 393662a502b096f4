"""Reading frames, labels and lists of video data sets, and saying in one sentence what is wrong with a file."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Size = tuple[int, int]  # height, width in pixels


def read_frame(path: Path, size: Size, crop_bottom: float = 0.0) -> tuple[Tensor, Size]:
    """A frame (3, H, W) float32, RGB in 0..1, and the size of its file.

    Resized as the official code does it: bicubic with PIL's anti-aliasing, on 8-bit values.

    Args:
        path: of the image.
        size: what to resize to.
        crop_bottom: share of the rows to cut off below, before resizing.
    """
    image = _open_image(path)
    return to_frame(image, size, crop_bottom), (image.height, image.width)


def to_frame(image: Image.Image, size: Size, crop_bottom: float = 0.0) -> Tensor:
    """An image as a frame (3, H, W); see `read_frame`."""
    if crop_bottom:
        image = image.crop((0, 0, image.width, image.height - round(crop_bottom * image.height)))
    resized = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def file_size(path: Path) -> Size:
    """The size of an image file; reads no more than its header."""
    with _reporting_damage(path), Image.open(path) as image:
        return image.height, image.width


def read_ids(path: Path, frame_size: Size) -> NDArray[np.uint8]:
    """The ids (H, W) of an 8-bit label image, indexed or grey, without conversion."""
    image = _open_image(path)
    if image.mode not in ("L", "P"):
        raise ValueError(
            f"{path} is an image of mode {image.mode}, not of 8-bit ids: give the id images, not coloured ones"
        )
    ids = np.array(image)
    _require_size(path, ids, frame_size)
    return ids


def read_ids_of_16_bit(path: Path, frame_size: Size) -> NDArray[np.uint16]:
    """The ids (H, W) in the red channel of a 16-bit label image."""
    _require_file(path)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path} cannot be read: it is damaged or no image, copy it again")
    if image.ndim != 3 or image.dtype != np.uint16:
        raise ValueError(f"{path} is not a 16-bit colour image: give SYNTHIA's GT/LABELS, not the coloured ones")
    ids = np.ascontiguousarray(image[..., 2])  # OpenCV orders channels B, G, R
    _require_size(path, ids, frame_size)
    return np.asarray(ids, np.uint16)


def resize_ids(ids: NDArray[Any], size: Size) -> NDArray[Any]:
    """Ids at another size as PIL's NEAREST reads them: pixel i comes from floor((i + 0.5) * scale)."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64) for new, old in zip(size, ids.shape, strict=True)
    )
    return np.asarray(ids[rows[:, None], columns])


def quarter(size: Size) -> Size:
    """The size of quarter labels."""
    return size[0] // 4, size[1] // 4


def require_folder(folder: Path, what: str, option: str = "--root") -> None:
    """Raises ValueError unless a folder exists."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: point {option} at {what}")


def require_frames(*, size: Size, num_frames: int) -> None:
    """Raises ValueError for sizes and numbers no data set can give."""
    if min(size) < 4 or size[0] % 4 or size[1] % 4:
        raise ValueError(f"frames of {size[1]}x{size[0]} pixels do not work: height and width must be multiples of 4")
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}: a clip has at least 1 frame")


def read_list(path: Path) -> list[str]:
    """The lines of a list file, without empty ones and without Windows line ends."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list {path} cannot be read ({error}): give another --frame-list") from error
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"the list {path} is empty: give another --frame-list, or none to use every labelled frame")
    return lines


def neighbours(path: Path, num_frames: int) -> list[Path]:
    """The files of `num_frames` consecutive frames that end with `path`, the oldest first.

    The number of a frame is the last group of digits in its name, and keeps its width.
    """
    prefix, number, suffix = _name_parts(path)
    names = []
    for back in range(num_frames - 1, -1, -1):
        previous = int(number) - back
        if previous < 0:
            raise ValueError(f"{path} has no {num_frames - 1} frames before it: leave it out of the list")
        names.append(path.with_name(f"{prefix}{previous:0{len(number)}}{suffix}"))
    return names


def require_files(paths: Sequence[Path], remedy: str) -> None:
    """Raises ValueError for the first file that is missing. Lists each folder once: asking file by file is slow."""
    names = lru_cache(maxsize=None)(_names)
    for path in paths:
        if path.name not in names(path.parent):
            raise ValueError(f"{path} is missing: {remedy}")


def without_beginnings(frames: Iterable[Path], num_frames: int) -> list[Path]:
    """Leaves out frames before which their folder, which holds one video, has fewer than `num_frames - 1`.

    Frames behind a gap stay: that files are missing should be said, not hidden.
    """
    first_number = lru_cache(maxsize=None)(_first_number)
    return [frame for frame in frames if frame_number(frame) - num_frames + 1 >= first_number(frame.parent)]


def frame_number(path: Path) -> int:
    """The last group of digits in the name of a frame."""
    return int(_name_parts(path)[1])


def _name_parts(path: Path) -> tuple[str, str, str]:
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", path.name)
    if match is None:
        raise ValueError(
            f"{path} has no frame number in its name, so the frame before it is unknown: rename the frames"
        )
    prefix, number, suffix = match.groups()
    return prefix, number, suffix


def _first_number(folder: Path) -> int:
    numbers = (frame_number(folder / name) for name in _names(folder) if re.search(r"\d", name))
    return min(numbers, default=1)  # an empty folder: its second frame will be missed


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no name of a file, as a list may have
        return frozenset()
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror}): correct its name or its permissions") from error


def _open_image(path: Path) -> Image.Image:
    with _reporting_damage(path), Image.open(path) as image:
        return image.copy()  # reads all of it, and closes the file


@contextlib.contextmanager
def _reporting_damage(path: Path) -> Iterator[None]:
    _require_file(path)
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} claims more pixels than any frame has: it is damaged, copy it again") from error
    except (OSError, SyntaxError) as error:  # PIL reports broken PNG chunks as SyntaxError
        raise ValueError(f"{path} cannot be read: it is damaged or no image, copy it again") from error


def _require_file(path: Path) -> None:
    if not os.path.isfile(path):  # Path.is_file raises for names that are too long
        raise ValueError(f"{path} is missing: copy it there, or leave its frame out of the list")


def _require_size(path: Path, ids: NDArray[Any], frame_size: Size) -> None:
    if ids.shape != frame_size:
        found, expected = (f"{size[1]}x{size[0]}" for size in (ids.shape, frame_size))
        raise ValueError(f"{path} is {found}, its frame is {expected}: labels must have the size of their frame")
