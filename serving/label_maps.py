"""Maps of one byte per pixel: scaling, PNG, class shares."""

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.frames import Size


def scale_labels(labels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Labels at another size: each pixel takes the label nearest to its centre."""
    if labels.shape == (size.height, size.width):
        return labels
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A map (H, W), or an RGB image (H, W, 3), as a PNG file."""
    image = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    is_encoded, encoded = cv2.imencode(".png", image)
    assert is_encoded
    return encoded.tobytes()


def decode_png(encoded: bytes) -> NDArray[np.uint8]:
    """The map (H, W) in a PNG file.

    Raises:
        ValueError: if it is none.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # of an empty file
        pixels = None
    if pixels is None:
        raise ValueError("the label map does not decode as PNG")
    return pixels.astype(np.uint8, copy=False)


def class_shares(labels: NDArray[np.uint8]) -> list[tuple[int, float]]:
    """(label, share of the pixels) of each label that occurs, largest first."""
    counts = np.bincount(labels.reshape(-1), minlength=1)
    present = np.flatnonzero(counts)
    order = present[np.argsort(-counts[present], kind="stable")]
    return [(int(label), float(counts[label] / labels.size)) for label in order]
