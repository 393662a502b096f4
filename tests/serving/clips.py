"""Three frames of one colour each, and what a codec leaves of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.frames import Size

SIZE = Size(64, 48)
COLOURS = [(200, 30, 60), (20, 220, 90), (10, 40, 240)]  # RGB


def still(color: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((SIZE.height, SIZE.width, 3), color, np.uint8)


def assert_shows(frames: list[NDArray[np.uint8]]) -> None:
    """The frames are those of the clip, as far as a codec leaves them alone."""
    for frame, color in zip(frames, COLOURS, strict=True):
        assert frame.shape == (SIZE.height, SIZE.width, 3)
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - still(color)).max() < 16


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
