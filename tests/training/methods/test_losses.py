import math

import pytest
import torch
from torch import Tensor, nn

from training.methods.losses import (
    cross_entropy,
    end_point_error,
    label_flow_loss,
    prediction_flow_loss,
    scaled_softmax,
    weighted_mean,
)
from training.models.optical_flow import FlowNet


class ConstantFlow(FlowNet):
    """Sees the mean brightness of the current frame as motion to the right, plus a bias of one downwards."""

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(current.mean(1, keepdim=True), 4)
        return torch.cat([x, torch.ones_like(x)], dim=1)


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 0, 0, 1] = math.log(3)  # probabilities 3/4 and 1/4 in the second pixel
    loss = cross_entropy(scores, torch.tensor([[[0, 1, -1]]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_cross_entropy_without_labels_is_zero() -> None:
    assert cross_entropy(torch.rand(1, 2, 2, 2), torch.full((1, 2, 2), -1)).item() == 0


def test_scaled_softmax_decides_and_does_not_overflow_in_half_precision() -> None:
    scores = torch.tensor([700.0, 699.0, 0.0], dtype=torch.float16).view(1, 3, 1, 1)
    probabilities = scaled_softmax(scores, 100)
    assert probabilities.dtype == torch.float32
    assert probabilities.flatten().tolist() == pytest.approx([1, math.exp(-100), 0])
    torch.testing.assert_close(
        scaled_softmax(torch.tensor([0.01, 0.0]).view(1, 2, 1, 1), 100).flatten(),
        torch.tensor([math.e, 1.0]) / (math.e + 1),
    )


def test_end_point_error_is_a_length_with_zero_gradient_at_zero() -> None:
    flow = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).view(1, 2, 1, 2).requires_grad_()
    error = end_point_error(flow, torch.zeros(1, 2, 1, 2))
    assert error.flatten().tolist() == [5.0, 0.0]
    torch.autograd.backward(error.sum())
    assert flow.grad is not None
    torch.testing.assert_close(flow.grad.flatten(), torch.tensor([0.6, 0.0, 0.8, 0.0]))


def test_weighted_mean() -> None:
    assert weighted_mean(torch.tensor([1.0, 4.0, 7.0]), torch.tensor([1.0, 0.5, 0.0])).item() == 2
    assert weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([False, True])).item() == 4
    assert weighted_mean(torch.tensor([1.0, 4.0]), torch.tensor([False, False])).item() == 0


def test_label_flow_loss_by_hand() -> None:
    # Two present classes: flow (0.5, 2) where a pixel has either class, (0, 2) where it is ignored.
    frame = torch.full((1, 3, 4, 8), 0.5)
    labels = torch.zeros(1, 4, 8, dtype=torch.int64)
    labels[:, :, 4:] = -1
    previous_labels = torch.full_like(labels, 3)
    teacher = torch.tensor([0.5 - 0.3, 2 - 0.4]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    both = labels, previous_labels
    loss = label_flow_loss(ConstantFlow(), teacher, both, torch.tensor([[[0, -1]]]), (frame, frame))
    assert loss.item() == pytest.approx(0.5)  # the right cell, with another error, is ignored


def test_prediction_flow_loss_by_hand() -> None:
    # Three classes, one dead, add up to flow (0.5, 3); the teacher says none.
    frame = torch.full((1, 3, 4, 4), 0.5)
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 2] = -9
    loss = prediction_flow_loss(ConstantFlow(), torch.zeros(1, 2, 1, 1), (scores, scores), (frame, frame), 100)
    assert loss.item() == pytest.approx(math.hypot(0.5, 3))
