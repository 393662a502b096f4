"""A picture of the world: clips in all looks, their labels, and their flow in the usual colours."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.world.looks import LOOKS
from training.data.world.render import render_clip
from training.label_spaces import VIPER_TO_CITYSCAPES

# Steps from red over yellow, green, cyan, blue and magenta back to red: Baker et al., A Database and Evaluation
# Methodology for Optical Flow, IJCV 2011.
WHEEL_STEPS = (15, 6, 4, 11, 13, 6)
GAP = 4  # pixels between pictures
LEAST_WIDTH = 256  # pixels; smaller pictures are enlarged


def draw_preview(seeds: list[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One row per clip, RGB: of each place, the second frame in its looks, its labels, and its flow where visible."""
    return _join([_join([_enlarge(picture) for picture in _pictures(seed, size)], axis=1) for seed in seeds], axis=0)


def _pictures(seed: int, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    for _, looks in groupby(LOOKS.values(), lambda look: look.place.name):
        for look in looks:
            clip = render_clip(seed, look, size, num_frames=2)
            yield clip.frames[1]
        yield VIPER_TO_CITYSCAPES.color_labels(clip.labels[1])
        yield np.asarray(color_flow(clip.flow[0]) * clip.valid[0][..., None], np.uint8)


def color_flow(flow: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the hue is the direction, the saturation the length relative to the longest in the picture.

    Args:
        flow: (H, W, 2), (x, y) in pixels.
    """
    length = np.hypot(flow[..., 0], flow[..., 1])
    share = (length / max(float(length.max()), 1e-6))[..., None]
    wheel = _color_wheel()
    position = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2 * (len(wheel) - 1)
    first = np.floor(position).astype(int)
    rest = (position - first)[..., None]
    hue = (1 - rest) * wheel[first] + rest * wheel[(first + 1) % len(wheel)]
    return np.asarray(255 - share * (255 - hue), np.uint8)


@lru_cache(maxsize=1)
def _color_wheel() -> NDArray[np.float64]:
    corners = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0))
    arcs = [
        np.linspace(corners[k], corners[k + 1], steps, endpoint=False, dtype=np.float64)
        for k, steps in enumerate(WHEEL_STEPS)
    ]
    return np.concatenate(arcs)


def _enlarge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    factor = -(-LEAST_WIDTH // picture.shape[1])
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST), np.uint8)


def _join(pictures: list[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    margin = [(0, 0), (0, 0), (0, 0)]
    margin[axis] = (0, GAP)
    padded = [np.pad(picture, margin, constant_values=255) for picture in pictures[:-1]]
    return np.concatenate([*padded, pictures[-1]], axis)
