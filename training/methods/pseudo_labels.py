"""What a network's own predictions say, as labels to train with."""

from torch import Tensor
from torch.nn import functional as F

from training.data.clip import IGNORE
from training.models.warping import resize_flow, warp


def confident_labels(probabilities: Tensor, threshold: float) -> Tensor:
    """The most probable class where its probability exceeds the threshold, else `IGNORE`: (B, H, W) of (B, C, H, W)."""
    confidence, labels = probabilities.max(dim=1)
    return labels.masked_fill(confidence <= threshold, IGNORE)


def propagated_labels(scores: Tensor, flow: Tensor, threshold: float) -> Tensor:
    """Labels (B, h, w) of the current frame, from an earlier frame's scores.

    Args:
        scores: (B, C, h, w), before softmax, of the earlier frame.
        flow: (B, 2, h', w'), current to earlier, (x, y) in pixels of that size; is brought to the size of the scores.
        threshold: of the warped probabilities; 0 keeps every pixel.
    """
    return confident_labels(warp(scores.softmax(dim=1), resize_flow(flow, scores.shape[-2:])), threshold)


def resize_scores(scores: Tensor, size: tuple[int, ...]) -> Tensor:
    """Scores (B, C, h, w) at the size of labels, bilinear."""
    return F.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)
