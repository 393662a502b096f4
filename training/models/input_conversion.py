"""From frames (RGB in 0..1) to what the released networks were trained on: BGR images of two scales."""

import torch
from torch import Tensor

IMAGENET_MEAN = (104.00698793, 116.66876762, 122.67891434)  # blue, green, red in 0..255


def segmentation_input(frame: Tensor) -> Tensor:
    """Input of the segmentation networks: (B, 3, H, W), BGR in 0..255 minus the ImageNet mean, not divided."""
    blue_mean, green_mean, red_mean = IMAGENET_MEAN
    red, green, blue = (255 * frame).chunk(3, dim=1)
    return torch.cat([blue - blue_mean, green - green_mean, red - red_mean], dim=1)


def flow_input(frame: Tensor) -> Tensor:
    """Input of the flow networks: (B, 3, H, W), BGR in 0..1, no mean."""
    red, green, blue = frame.chunk(3, dim=1)
    return torch.cat([blue, green, red], dim=1)
