"""Pastes a rectangle of one clip, and of its labels, into another.

Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, ICCV 2019: the
rectangle covers a share 1 - lambda of the frame, lambda ~ Beta(1, 1), before what lies outside is cut off.
"""

import math
from typing import NamedTuple

from torch import Tensor

from training.methods.chance import happens, uniform


class CutMix(NamedTuple):
    """Which part of a frame changes, whatever its size."""

    share: float  # 1 - lambda, area of the rectangle over that of the frame
    center: tuple[float, float]  # (y, x), 0..1 of the frame's height and width
    is_swapped: bool  # whether the first clip is what is pasted, and the second the background


def draw_cut_mix() -> CutMix:
    """A new draw: Beta(1, 1) is uniform."""
    return CutMix(uniform(0, 1), (uniform(0, 1), uniform(0, 1)), happens(0.5))


def mix(first: Tensor, second: Tensor, choice: CutMix) -> Tensor:
    """`first` with a rectangle from `second`, or the other way about: frames or labels (..., H, W) of one shape."""
    background, pasted = (second, first) if choice.is_swapped else (first, second)
    (top, bottom), (left, right) = (
        _span(center, choice.share, length) for center, length in zip(choice.center, first.shape[-2:], strict=True)
    )
    mixed = background.clone()
    mixed[..., top:bottom, left:right] = pasted[..., top:bottom, left:right]
    return mixed


def _span(center: float, share: float, length: int) -> tuple[int, int]:
    half = int(length * math.sqrt(share)) // 2
    middle = min(int(center * length), length - 1)
    return max(middle - half, 0), min(middle + half, length)
