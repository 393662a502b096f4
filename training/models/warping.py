"""Backward warping: where in an earlier frame's map each pixel of the current frame comes from."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """Samples `features` where `flow` points: bilinear, the border repeated outside.

    Equal to the official Resample2d with kernel size 1. The four weights of a pixel sum to one, so a warp
    commutes with any 1x1 convolution.

    Args:
        features: (B, C, h, w).
        flow: (B, 2, h, w), (x, y) in pixels of the feature map, current to previous.
    """
    h, w = flow.shape[2:]
    x = torch.arange(w, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(h, dtype=flow.dtype, device=flow.device).unsqueeze(1) + flow[:, 1]
    # align_corners=True: -1 and 1 are the centres of the first and the last pixel. A side of one pixel has no extent.
    grid = torch.stack([2 * x / max(w - 1, 1) - 1, 2 * y / max(h - 1, 1) - 1], dim=3)
    return F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=True)


def resize_flow(flow: Tensor, size: Sequence[int]) -> Tensor:
    """A flow (B, 2, h, w) for maps of another size (height, width), in pixels of those: of smaller maps the mean."""
    if flow.shape[2:] == torch.Size(size):
        return flow
    height, width = size
    scale = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]]).view(2, 1, 1)
    return scale * F.interpolate(flow, size=(height, width), mode="area")
