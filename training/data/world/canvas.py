"""Draws flat pictures of materials in metres."""

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.world.materials import Material

SUBPIXEL_BITS = 4  # OpenCV draws with coordinates in 1/16 pixel


class Sprite(NamedTuple):
    """A drawing and its size. Row 0 is the top."""

    materials: NDArray[np.uint8]  # (h, w), `Material`, transparent where 0
    width: float  # metres
    height: float  # metres


class Canvas:
    """Draws shapes in metres, x to the right and y upwards from the lower left corner."""

    def __init__(self, width: float, height: float, pixels_per_metre: float) -> None:
        """An empty canvas of this size in metres."""
        self.width, self.height, self.scale = width, height, pixels_per_metre
        # one transparent pixel around, so that a look-up clipped to the map finds nothing outside
        self.map = np.zeros((round(height * pixels_per_metre) + 2, round(width * pixels_per_metre) + 2), np.uint8)

    def polygon(self, material: Material, *points: tuple[float, float]) -> None:
        """Fills a polygon."""
        pixels = [(1 + x * self.scale - 0.5, 1 + (self.height - y) * self.scale - 0.5) for x, y in points]
        scaled = np.round(np.array(pixels) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(self.map, [scaled], int(material), shift=SUBPIXEL_BITS)

    def box(self, material: Material, left: float, bottom: float, right: float, top: float) -> None:
        """Fills a rectangle."""
        self.polygon(material, (left, bottom), (right, bottom), (right, top), (left, top))

    def disc(self, material: Material, x: float, y: float, radius: float, radius_y: float | None = None) -> None:
        """Fills a circle, or an ellipse if `radius_y` is given."""
        angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        height = radius if radius_y is None else radius_y
        points = zip(x + radius * np.cos(angles), y + height * np.sin(angles), strict=True)
        self.polygon(material, *((float(a), float(b)) for a, b in points))

    def line(self, material: Material, width: float, *points: tuple[float, float]) -> None:
        """Draws a line of this width through points."""
        for (x0, y0), (x1, y1) in pairwise(points):
            length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6)
            across = (-(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2)
            self.polygon(
                material,
                (x0 + across[0], y0 + across[1]),
                (x1 + across[0], y1 + across[1]),
                (x1 - across[0], y1 - across[1]),
                (x0 - across[0], y0 - across[1]),
            )

    def sprite(self) -> Sprite:
        """The finished drawing."""
        frame = np.zeros_like(self.map)
        frame[1:-1, 1:-1] = self.map[1:-1, 1:-1]
        return Sprite(frame, self.width, self.height)
