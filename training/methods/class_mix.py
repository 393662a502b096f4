"""Pastes classes of labelled frames into other frames.

Olsson et al., ClassMix: Segmentation-Based Data Augmentation for Semi-Supervised Learning, WACV 2021: half of the
classes that a frame shows, rounded up, are cut out of it with all their pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.clip import IGNORE, LabelledClip


def draw_classes(labels: Tensor) -> Tensor:
    """Half of the classes in labels of any shape, rounded up: (N,), by torch's generator; empty if none is labelled."""
    present = torch.unique(labels[labels != IGNORE])
    order = torch.randperm(len(present)).to(present.device)
    drawn: Tensor = present[order[: (len(present) + 1) // 2]]
    return drawn


def paste_classes(source: LabelledClip, frames: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Target frames (B, T, 3, H, W), and what their last shows (B, C, H, W), with classes of source clips pasted in.

    Each frame of a clip gets the pixels that show one of the classes in the source frame as long before the last; where
    there are fewer source clips, they are pasted again. Pasted pixels are what their label says.
    """
    size, num_frames, num_classes = frames.shape[-2:], frames.shape[1], probabilities.shape[1]
    pasted_frames, pasted_labels = (each[:, -num_frames:] for each in _resized(source, size))
    mixed_frames, mixed_probabilities = [], []
    for number, (into, shown) in enumerate(zip(frames, probabilities, strict=True)):
        clip, labels = (each[number % len(pasted_frames)] for each in (pasted_frames, pasted_labels))
        is_pasted = torch.isin(labels, draw_classes(labels[-1]))
        certain = F.one_hot(labels[-1].clamp(min=0), num_classes).movedim(-1, 0).to(shown)
        mixed_frames.append(clip.where(is_pasted[:, None], into))
        mixed_probabilities.append(certain.where(is_pasted[-1], shown))
    return torch.stack(mixed_frames), torch.stack(mixed_probabilities)


def _resized(source: LabelledClip, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Frames, bilinear, and labels, nearest, at the size of the target's."""
    frames, labels = source.frames, source.labels
    if frames.shape[-2:] == size:
        return frames, labels
    resized = F.interpolate(frames.flatten(0, 1), tuple(size), mode="bilinear", align_corners=False)
    nearest = F.interpolate(labels.to(frames), tuple(size), mode="nearest-exact")
    return resized.view(*frames.shape[:3], *size), nearest.to(labels)
