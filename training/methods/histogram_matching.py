"""Gives a frame the colours of another: per channel, each grey level moves to the other's level of the same rank.

The rule of `skimage.exposure.match_histograms`, on the device that trains: a level takes the place of its quantile in
the other frame's cumulative histogram, interpolated between the levels that occur there.
"""

import torch
from torch import Tensor

LEVELS = 256


def match_histograms(frames: Tensor, reference: Tensor) -> Tensor:
    """Frames (B, 3, H, W) with the histograms of `reference` (B, 3, h, w), channel by channel.

    Both are RGB in 0..1 and are rounded to 256 levels; the result need not be on one.
    """
    values, other_values = _levels(frames), _levels(reference)
    quantiles, other_quantiles = _quantiles(values), _quantiles(other_values)
    above = torch.searchsorted(other_quantiles, quantiles).clamp(max=LEVELS - 1)
    # The level that occurs before `above`: the first to reach the quantile that the level before it has.
    below_quantile = other_quantiles.gather(2, (above - 1).clamp(min=0))
    below = torch.searchsorted(other_quantiles, below_quantile)
    span = other_quantiles.gather(2, above) - below_quantile
    fraction = (quantiles - below_quantile) / torch.where(span > 0, span, 1)
    between = below + fraction * (above - below)
    # Nothing occurs below the lowest level that does.
    moved = torch.where((above == 0) | (below_quantile == 0), above, between) / (LEVELS - 1)
    return moved.to(frames.dtype).gather(2, values).view_as(frames)


def _levels(frames: Tensor) -> Tensor:
    """Grey levels (B, 3, H * W), int64."""
    return ((LEVELS - 1) * frames).round().clamp(0, LEVELS - 1).long().flatten(2)


def _quantiles(values: Tensor) -> Tensor:
    """Share of pixels up to each of 256 levels, (B, 3, 256) float64, increasing to 1."""
    counts = values.new_zeros(*values.shape[:2], LEVELS).scatter_add_(2, values, torch.ones_like(values))
    return counts.cumsum(2).double() / values.shape[2]
