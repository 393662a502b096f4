"""Maps of one byte per pixel: scaling, PNG, raw, and how much of each class there is."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.errors import FrameRefusedError
from serving.frames import Size, check_png_chunks, check_size, png_size

CONFIDENCE_CELL = 4  # pixels of labels, both ways, behind one pixel of confidence
# 8192x8192, of a map from outside: its bytes may claim any size, and decoding takes the memory that they claim.
MAX_MAP_PIXELS = 1 << 26
# Maps are flat areas, which runs compress (the strategy OpenCV has anyway); its filter only hides the runs.
# Without it, maps take a quarter less of both bytes and time.
MAP_PNG_OPTIONS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)


class ClassStatistics(NamedTuple):
    """Of one class in one frame."""

    label: int
    share: float  # of the pixels, 0..1
    mean_confidence: float  # over its pixels, 0..1


def scale_labels(labels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Labels at another size: each pixel takes the label nearest to its centre."""
    if labels.shape == (size.height, size.width):
        return labels
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A map (H, W), or an RGB image (H, W, 3), as a PNG file."""
    if pixels.ndim == 2:
        is_encoded, encoded = cv2.imencode(".png", pixels, MAP_PNG_OPTIONS)
    else:
        is_encoded, encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert is_encoded
    return encoded.tobytes()


def decode_png(encoded: bytes) -> NDArray[np.uint8]:
    """The map (H, W) in a PNG file.

    Raises:
        ValueError: if it is none, or has more than `MAX_MAP_PIXELS`.
    """
    try:
        check_size(png_size(encoded), None, MAX_MAP_PIXELS)
        check_png_chunks(encoded)
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (FrameRefusedError, cv2.error):
        pixels = None
    if pixels is None:
        raise ValueError("the label map does not decode as PNG")
    return pixels.astype(np.uint8, copy=False)


def encode_raw(labels: NDArray[np.uint8]) -> bytes:
    """A map (H, W) as it is: one byte per pixel, row by row from the top left."""
    return labels.tobytes()


def decode_raw(encoded: bytes, size: Size) -> NDArray[np.uint8]:
    """The map (H, W) in raw bytes; not to be written to.

    Raises:
        ValueError: unless there is one byte per pixel.
    """
    if len(encoded) != size.width * size.height:
        raise ValueError(f"the label map has {len(encoded)} bytes, a map of {size} has {size.width * size.height}")
    return np.frombuffer(encoded, np.uint8).reshape(size.height, size.width)


def class_shares(labels: NDArray[np.uint8]) -> list[tuple[int, float]]:
    """(label, share of the pixels) of each label that occurs, largest first."""
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).reshape(-1)
    return [(label, float(counts[label]) / labels.size) for label in _by_size(counts)]


def class_statistics(labels: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> list[ClassStatistics]:
    """Share and mean confidence of each label that occurs, largest first.

    Every pixel counts with the confidence of its cell, so a class that fills a part of a cell gets that part of it.
    Both figures are exact up to 16 million pixels of a class, where OpenCV's counts are rounded to 24 bits.

    Args:
        labels: (H, W), as the model gave them.
        confidence: (H / 4, W / 4), 255 is certain.
    """
    height, width = labels.shape
    assert confidence.shape == (height // CONFIDENCE_CELL, width // CONFIDENCE_CELL)
    of_pixels = cv2.resize(confidence, (width, height), interpolation=cv2.INTER_NEAREST)
    num_labels = int(labels.max()) + 1  # a table of all 256 would take longer to sum up than to fill
    joint = cv2.calcHist([labels, of_pixels], [0, 1], None, [num_labels, 256], [0, num_labels, 0, 256])
    counts = joint.sum(1, dtype=np.float64)
    sums = joint @ np.arange(256.0)
    return [
        ClassStatistics(label, float(counts[label]) / labels.size, float(sums[label] / counts[label]) / 255)
        for label in _by_size(counts)
    ]


def _by_size(counts: NDArray[np.number]) -> list[int]:
    present = np.flatnonzero(counts)
    order: list[int] = present[np.argsort(-counts[present], kind="stable")].tolist()
    return order
