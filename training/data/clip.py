"""What a batch is: consecutive frames of videos, with or without labels or flow."""

from typing import NamedTuple

from torch import Tensor

from training.label_spaces import IGNORE as IGNORE


class Clip(NamedTuple):
    """Consecutive frames of one video per item, oldest first. A data set's item lacks the dimension B."""

    frames: Tensor  # (B, T, 3, H, W) float32, RGB in 0..1


class LabelledClip(NamedTuple):
    """Consecutive frames with labels. Frames that a data set leaves unlabelled are `IGNORE` all over."""

    frames: Tensor  # (B, T, 3, H, W) float32, RGB in 0..1
    labels: Tensor  # (B, T, H, W) int64, train ids or IGNORE
    quarter_labels: Tensor  # (B, H // 4, W // 4) int64, the last frame's labels read at quarter resolution


class FlowClip(NamedTuple):
    """A key frame and the next frame, with the true flow between them."""

    frames: Tensor  # (B, 2, 3, H, W) float32, RGB in 0..1: key frame, current frame
    flow: Tensor  # (B, 2, H, W) float32, current to key, (x, y) in pixels
    valid: Tensor  # (B, H, W) bool, True where the current pixel is visible in the key frame
