"""What RAFT matches frames by: the similarity of all pixels of two frames, looked up around a moving centre.

Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020, Section 3.2. At 1/8 resolution
N pixels make N x N similarities, and a third more for the pyramid: 357 MB for a frame of 512 x 1024 pixels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
RADIUS = 4  # pixels of each level, to all sides of the centre
SIMILARITIES = LEVELS * (2 * RADIUS + 1) ** 2  # that a pixel looks up


def correlation_pyramid(current: Tensor, previous: Tensor) -> list[Tensor]:
    """The similarity of each pixel of one frame to all pixels of another one, whose side is halved from level to level.

    Args:
        current: (B, C, h, w), features.
        previous: (B, C, h, w).

    Returns:
        `LEVELS` maps (B h w, 1, h / 2^l, w / 2^l), rounded down; fewer if the last has a side of a single pixel.
    """
    batch, channels, h, w = current.shape
    pixels = current.flatten(2).transpose(1, 2) / math.sqrt(channels)
    level = (pixels @ previous.flatten(2)).reshape(batch * h * w, 1, h, w)
    pyramid = [level]
    while len(pyramid) < LEVELS and min(level.shape[2:]) > 1:
        level = F.avg_pool2d(level, 2)
        pyramid.append(level)
    return pyramid


def look_up(pyramid: list[Tensor], centres: Tensor) -> Tensor:
    """Each pixel's similarities within `RADIUS` of its centre on every level, zero outside the frame.

    Args:
        pyramid: see `correlation_pyramid`. Levels that it lacks have no pixel: all of them is outside.
        centres: (B, 2, h, w), (x, y) in pixels of the first level.

    Returns:
        (B, `SIMILARITIES`, h, w): level by level, in each the columns of the window from left to right. The released
        network has columns before rows, and its weights expect it.
    """
    batch, _, h, w = centres.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=centres.dtype, device=centres.device)
    x, y = (axis.reshape(-1, 1, 1) for axis in centres.unbind(1))  # (B h w, 1, 1)
    levels = []
    for index, level in enumerate(pyramid):
        columns, rows = x / 2**index + steps.unsqueeze(1), y / 2**index + steps
        # align_corners=False: -1 and 1 are the outer edges. Unlike the centres of the outer pixels, which the released
        # code counts from, these are apart where a side has one pixel; the sampled places are the same.
        h_level, w_level = level.shape[2:]
        across, down = (2 * columns + 1) / w_level - 1, (2 * rows + 1) / h_level - 1
        side = len(steps)
        grid = torch.stack([across.expand(-1, -1, side), down.expand(-1, side, -1)], dim=3)
        window = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        levels.append(window.reshape(batch, h, w, -1))
    found = torch.cat(levels, dim=3).permute(0, 3, 1, 2)
    return F.pad(found, (0, 0, 0, 0, 0, SIMILARITIES - found.shape[1])) if len(pyramid) < LEVELS else found
