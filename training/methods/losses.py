"""The losses of SFC and of the supervised stages, as functions of tensors."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.clip import IGNORE
from training.models.optical_flow import FlowNet
from training.models.segmentation_to_flow import flow_from_labels, flow_from_probabilities


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled pixels; zero where no pixel is labelled.

    Args:
        scores: (B, C, H, W), before softmax.
        labels: (B, H, W), class indices or `IGNORE`.
    """
    total = F.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="sum")
    return total / (labels != IGNORE).sum().clamp(min=1)


def soft_cross_entropy(scores: Tensor, probabilities: Tensor) -> Tensor:
    """Mean over pixels of the cross entropy with what a pixel shows by `probabilities`.

    Args:
        scores: (B, C, H, W), before softmax.
        probabilities: (B, C, H, W), sum to one over classes.
    """
    return -(probabilities * scores.log_softmax(dim=1)).sum(dim=1).mean()


def scaled_softmax(scores: Tensor, scale: float) -> Tensor:
    """Softmax over classes of `scale * scores`, (B, C, H, W): nearly one-hot, and still differentiable.

    At least single precision: the paper's scale of 100 would overflow in half and turn rounding into labels.
    """
    return torch.softmax(scale * _at_least_single(scores), dim=1)


def end_point_error(flow: Tensor, true_flow: Tensor) -> Tensor:
    """Length (B, h, w) of the difference of two flows (B, 2, h, w); its gradient is zero where they are equal."""
    error: Tensor = torch.linalg.vector_norm(flow - true_flow, dim=1)
    return error


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` by a `weight` of the same shape, numbers or truth values; zero if all weights are."""
    weight = weight.to(values.dtype)
    total = weight.sum()
    return (weight * values).sum() / torch.where(total > 0, total, 1)


def label_flow_loss(
    sfm: FlowNet,
    flow: Tensor,
    labels: tuple[Tensor, Tensor],
    quarter_labels: Tensor,
    frames: tuple[Tensor, Tensor],
) -> Tensor:
    """Error of the flow that true labels imply (SFC, Eq. 2), over quarter-resolution pixels with a label.

    Args:
        sfm: The segmentation-to-flow module.
        flow: (B, 2, H / 4, W / 4), what it is to reproduce.
        labels: Of the current and of the previous frame, (B, H, W) each.
        quarter_labels: (B, H / 4, W / 4), of the current frame.
        frames: The current and the previous frame, (B, 3, H, W) each.
    """
    segmentation_flow = flow_from_labels(sfm, *labels, *frames)
    return weighted_mean(end_point_error(segmentation_flow, flow), quarter_labels != IGNORE)


def prediction_flow_loss(
    sfm: FlowNet, flow: Tensor, scores: tuple[Tensor, Tensor], frames: tuple[Tensor, Tensor], softmax_scale: float
) -> Tensor:
    """Error of the flow that predictions imply (SFC, Eq. 4), over all quarter-resolution pixels.

    Args:
        sfm: The segmentation-to-flow module.
        flow: (B, 2, H / 4, W / 4), what the predictions should agree with.
        scores: Of the current and of the previous frame, (B, C, H, W) each.
        frames: The current and the previous frame, (B, 3, H, W) each.
        softmax_scale: lambda_s.
    """
    current, previous = (scaled_softmax(of_frame, softmax_scale) for of_frame in scores)
    return end_point_error(flow_from_probabilities(sfm, current, previous, *frames), flow).mean()


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
