"""Labels drawn over the frame they belong to, with the names of the largest classes."""

from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.label_maps import class_shares, encode_png

OPACITY = 0.5
JPEG_QUALITY = 90  # of 100
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
    colors = cv2.applyColorMap(labels, palette.colors[:, None])  # ten times as fast as an index
    tinted = cv2.addWeighted(frame, 1 - OPACITY, colors, OPACITY, 0).astype(np.uint8, copy=False)
    shown = [label for label, share in class_shares(labels) if share >= MIN_SHARE and label < len(palette.names)]
    line = max(12, frame.shape[0] // 30)  # pixels from one name to the next
    for row, label in enumerate(shown[:MAX_LEGEND]):
        top = line // 2 + row * line
        color = tuple(int(channel) for channel in palette.colors[label])
        cv2.rectangle(tinted, (line // 2, top), (line // 2 + line * 2 // 3, top + line * 2 // 3), color, cv2.FILLED)
        _write(tinted, palette.names[label], (line * 3 // 2, top + line * 2 // 3), line / 36)
    return tinted


def render_overlay(
    frame: NDArray[np.uint8], labels: NDArray[np.uint8], palette: Palette, file_type: Literal["jpeg", "png"]
) -> bytes:
    """`draw_overlay` as a file. JPEG takes a sixth of the bytes and a quarter of the time; PNG keeps every pixel.

    Args:
        frame: (H, W, 3) RGB.
        labels: (H, W), of the frame's size.
        palette: names and colours of the classes.
        file_type: of what is returned.
    """
    drawn = draw_overlay(frame, labels, palette)
    if file_type == "png":
        return encode_png(drawn)
    bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
    is_encoded, encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    assert is_encoded
    return encoded.tobytes()


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
