import math

import pytest
import torch
from torch import Tensor, nn

from training.models.flow_ratio import FlowRatio


def always(classifier: nn.Module, *probabilities: float) -> None:
    """Makes one of the classifiers say the same of every pixel."""
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        list(classifier.parameters())[-1].copy_(torch.tensor(probabilities).log())


def test_the_ratio_by_hand_is_limited_to_a_factor_of_e_cubed() -> None:
    ratio = FlowRatio(3, width=4)
    always(ratio.of_flow, 0.5, 0.499, 0.001)
    always(ratio.of_position, 0.25, 0.01, 0.74)
    logarithm = ratio(torch.rand(2, 2, 3, 5))
    assert logarithm.shape == (2, 3, 3, 5)
    for index, expected in enumerate((math.log(2), 3, -3)):
        assert logarithm[:, index].unique().tolist() == [pytest.approx(expected)]


def test_ratios_weighted_by_how_likely_classes_are_at_a_position_have_mean_one() -> None:
    ratio = FlowRatio(5, width=8).double()
    flow = 4 * torch.randn(2, 2, 6, 7, dtype=torch.float64)
    _, of_position = ratio.scores(flow)
    torch.testing.assert_close(
        (of_position.softmax(1) * ratio(flow).exp()).sum(1), torch.ones(2, 6, 7, dtype=torch.float64)
    )


def test_one_classifier_sees_flow_in_widths_of_the_image_and_both_where_they_are() -> None:
    ratio = FlowRatio(3, width=4)
    seen: list[Tensor] = []
    for classifier in (ratio.of_flow, ratio.of_position):
        classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for size in (4, 8):  # the same motion at two resolutions
        flow = torch.tensor([size / 8, -size / 4]).view(1, 2, 1, 1).expand(1, 2, 3, size)
        ratio.scores(flow)
    for with_flow, position in (seen[:2], seen[2:]):
        assert with_flow[0, :2, 0, 0].tolist() == [4, -8]
        assert torch.equal(with_flow[:, 2:], position)
        assert (position[0, 0, 0, [0, -1]].tolist(), position[0, 1, :, 0].tolist()) == ([-1, 1], [-1, 0, 1])


def test_the_classifier_of_flow_sees_fifteen_pixels_square() -> None:
    ratio = FlowRatio(3, width=4)
    flow = torch.zeros(1, 2, 31, 31, requires_grad=True)
    torch.autograd.backward(ratio.scores(flow)[0][0, :, 15, 15].sum())
    assert flow.grad is not None
    rows = flow.grad.abs().sum((0, 1, 3)).nonzero().flatten().tolist()
    assert (rows[0], rows[-1]) == (8, 22)
