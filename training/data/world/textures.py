"""World-anchored noise: the texture stays on its surface when the camera moves, and fades before it aliases."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

OCTAVES = (3.0, 0.9, 0.3, 0.1)  # metres
TILE = 512  # pixels of the noise tile
ROW = 256  # samples that are looked up side by side
PIXELS_PER_WAVE = 4  # of the tile, for one octave's length


@lru_cache(maxsize=1)
def noise_tile() -> NDArray[np.float32]:
    """(TILE, TILE) smooth noise of zero mean and unit variance that repeats seamlessly; the same in every clip."""
    white = np.random.default_rng(0).standard_normal((TILE, TILE)).astype(np.float32)
    wrapped = np.pad(white, 8, mode="wrap")
    smooth = cv2.GaussianBlur(wrapped, (0, 0), 1.1)[8:-8, 8:-8]
    return np.asarray((smooth - smooth.mean()) / smooth.std(), np.float32)


def look_up(image: NDArray[np.float32], x: NDArray[Any], y: NDArray[Any], border: int) -> NDArray[np.float32]:
    """Bilinear samples of `image` at columns x and rows y, of any shape; `border` is OpenCV's rule outside."""
    count = x.size
    # OpenCV wants a picture with sides from 1 to 32767
    columns, rows = (np.zeros((max(-(-count // ROW), 1) * ROW,), np.float32) for _ in range(2))
    columns[:count], rows[:count] = x.ravel(), y.ravel()
    found = cv2.remap(image, columns.reshape(-1, ROW), rows.reshape(-1, ROW), cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(np.asarray(found, np.float32).ravel()[:count].reshape(x.shape))


def _wrap(coordinate: NDArray[np.float32]) -> NDArray[np.float32]:
    tiles = np.floor(coordinate * np.float32(1 / TILE))  # much faster than numpy's remainder
    tiles *= np.float32(TILE)
    return np.asarray(coordinate - tiles)


def sample_noise(u: NDArray[Any], v: NDArray[Any], wavelength: float) -> NDArray[np.float32]:
    """Noise of one octave at surface coordinates in metres, of any shape."""
    scale = np.float32(PIXELS_PER_WAVE / wavelength)
    x, y = (_wrap(coordinate.astype(np.float32) * scale) for coordinate in (u, v))
    return look_up(noise_tile(), x, y, cv2.BORDER_WRAP)


def fade(wavelength: float, footprint: NDArray[Any]) -> NDArray[np.float32]:
    """How much of a pattern of this wavelength a sample of this footprint (both metres) can show, 0..1."""
    share = (wavelength / np.maximum(footprint, 1e-6) - 1.5) / 2.5
    return np.asarray(np.clip(share, 0, 1), np.float32)


def fractal_noise(
    u: NDArray[Any], v: NDArray[Any], footprint: NDArray[Any], amplitudes: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(h, w) sum of the octaves.

    Args:
        u: (h, w) metres along the surface.
        v: (h, w) metres across it.
        footprint: (h, w) metres of surface between samples.
        amplitudes: (h, w, 4) standard deviation of each octave.
    """
    total = np.zeros(u.shape, np.float32)
    for octave, wavelength in enumerate(OCTAVES):
        # shifted, so that octaves do not repeat each other
        noise = sample_noise(u + 7.3 * octave, v + 3.1 * octave, wavelength)
        total += amplitudes[..., octave] * fade(wavelength, footprint) * noise
    return total
