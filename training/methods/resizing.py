"""Clips and their labels at other sizes."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_frames(frames: Tensor, size: tuple[int, int], mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """Frames (B, T, 3, H, W), RGB in 0..1, at another height and width.

    Args:
        frames: stay as they are where they have that size.
        size: height and width in pixels.
        mode: "bilinear" as OpenCV has it, "bicubic" as Pillow has it, with a filter as wide as what it shrinks.
    """
    is_filtered = mode == "bicubic"
    resized = F.interpolate(frames.flatten(0, 1), size, mode=mode, align_corners=False, antialias=is_filtered)
    return resized.clamp(0, 1).reshape(*frames.shape[:3], *size)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (B, H, W) at another height and width: of each new pixel's centre."""
    rows, columns = (
        ((torch.arange(new, device=labels.device) + 0.5) * old / new).long()
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows.unsqueeze(1), columns]
