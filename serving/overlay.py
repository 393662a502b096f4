"""Labels drawn over the frame they belong to, with the names of the largest classes."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.label_maps import class_shares

OPACITY = 0.5
MAX_LEGEND = 10  # classes
MIN_SHARE = 0.005  # of the pixels, to be named


class Palette(NamedTuple):
    """How classes are shown; the label is the index."""

    names: tuple[str, ...]
    colors: NDArray[np.uint8]  # (256, 3) RGB; black beyond the last class


def make_palette(classes: list[tuple[str, tuple[int, int, int]]]) -> Palette:
    """A palette from (name, RGB colour) of each class."""
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(classes)] = [color for _, color in classes]
    return Palette(tuple(name for name, _ in classes), colors)


def draw_overlay(frame: NDArray[np.uint8], labels: NDArray[np.uint8], palette: Palette) -> NDArray[np.uint8]:
    """The frame (H, W, 3) RGB tinted by its labels (H, W), with a legend."""
    tinted = cv2.addWeighted(frame, 1 - OPACITY, palette.colors[labels], OPACITY, 0).astype(np.uint8, copy=False)
    shown = [label for label, share in class_shares(labels) if share >= MIN_SHARE and label < len(palette.names)]
    line = max(12, frame.shape[0] // 30)  # pixels from one name to the next
    for row, label in enumerate(shown[:MAX_LEGEND]):
        top = line // 2 + row * line
        color = tuple(int(channel) for channel in palette.colors[label])
        cv2.rectangle(tinted, (line // 2, top), (line // 2 + line * 2 // 3, top + line * 2 // 3), color, cv2.FILLED)
        _write(tinted, palette.names[label], (line * 3 // 2, top + line * 2 // 3), line / 36)
    return tinted


def draw_note(frame: NDArray[np.uint8], note: str) -> NDArray[np.uint8]:
    """A copy of the frame with a line of text."""
    noted = frame.copy()
    line = max(12, frame.shape[0] // 30)
    _write(noted, note, (line // 2, line), line / 36)
    return noted


def _write(image: NDArray[np.uint8], text: str, position: tuple[int, int], scale: float) -> None:
    """White with a dark rim, readable on anything."""
    x, y = position
    # Shifted copies: a thicker stroke would be a wider font in OpenCV 5.
    rim = [((x + right, y + down), (0, 0, 0)) for right in (-1, 0, 1) for down in (-1, 0, 1)]
    for corner, color in (*rim, (position, (255, 255, 255))):
        cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
