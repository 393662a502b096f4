import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip, LabelledClip
from training.methods.distortion_pretraining import Example, distortion_examples, distortion_loss
from training.methods.method import Method, Networks
from training.models.da_vss import at_quarter_resolution
from training.models.distortion import DistortionMap
from training.models.optical_flow import FlowNet
from training.models.per_frame import PerFrame
from training.models.upsampling import upsample
from training.models.warping import warp

NOTHING = Clip(torch.empty(0, 0, 3, 0, 0))


class LeftHalf(DistortionMap):
    """Is rather sure that the left half is wrong."""

    def forward(self, warped: Tensor, image: Tensor) -> Tensor:
        del image
        probability = torch.full_like(warped[:, :1], 0.1)
        probability[..., : probability.shape[3] // 2] = 0.8
        return probability


@pytest.fixture
def networks(small: Callable[..., Method[Any]]) -> Networks:
    """With flows of about a pixel and predictions that vary."""
    networks = small("distortion_pretraining").networks(4)
    for parameter in networks["flow_net"].parameters():
        nn.init.normal_(parameter, std=0.05)
    for parameter in cast("PerFrame", networks["segmenter"]).segnet.layer6.parameters():
        nn.init.normal_(parameter)
    for module in networks["segmenter"].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics become those of the frames forwarded last
    networks["segmenter"].train()(torch.rand(4, 1, 3, 32, 32))
    networks["segmenter"].eval()
    return networks


def test_the_loss_by_hand() -> None:
    image = torch.rand(1, 3, 1, 16)  # at the frame's size the halves are 32 columns each, of which 2 are a mixture
    is_wrong = torch.zeros(1, 4, 64, dtype=torch.bool)
    is_wrong[..., :16] = True
    right, wrong = torch.zeros_like(is_wrong), torch.ones_like(is_wrong)
    border = [0.8 - 0.7 * share for share in (0.125, 0.375, 0.625, 0.875)]  # between the centres of two cells
    left, other = 30 * [0.8], 30 * [0.1]
    row = torch.tensor([*left, *border, *other])

    def hop(truth: Tensor) -> Example:
        return Example(image, image, truth)

    for truth in (is_wrong, right, wrong):
        agreement = torch.where(truth[0, 0], row, 1 - row)
        torch.testing.assert_close(distortion_loss(LeftHalf(), [hop(truth)]), -agreement.log().mean())
    both = (distortion_loss(LeftHalf(), [hop(right)]) + distortion_loss(LeftHalf(), [hop(wrong)])) / 2
    torch.testing.assert_close(distortion_loss(LeftHalf(), [hop(right), hop(wrong)]), both)


def test_certainty_costs_no_more_than_its_margin() -> None:
    class Certain(DistortionMap):
        def forward(self, warped: Tensor, image: Tensor) -> Tensor:
            del image
            return torch.zeros_like(warped[:, :1])

    image, wrong = torch.rand(1, 3, 4, 4), torch.ones(1, 16, 16, dtype=torch.bool)
    loss = distortion_loss(Certain(), [Example(image, image, wrong)])
    torch.testing.assert_close(loss, torch.tensor(-math.log(1e-6)))


def test_nothing_is_wrong_in_a_still_scene(networks: Networks) -> None:
    for parameter in networks["flow_net"].parameters():
        nn.init.zeros_(parameter)
    still = torch.rand(2, 1, 3, 32, 32).expand(-1, 3, -1, -1, -1)
    examples = list(distortion_examples(networks, still))
    assert len(examples) == 2
    for example in examples:
        assert not example.is_wrong.any()
        torch.testing.assert_close(example.warped, example.image)


def test_what_came_along_is_compared_with_the_frames_own_prediction_hop_by_hop(networks: Networks) -> None:
    segnet, flow_net = cast("PerFrame", networks["segmenter"]).segnet, cast("FlowNet", networks["flow_net"])
    frames = torch.rand(2, 3, 3, 32, 32)
    first, second, third = frames.unbind(1)
    flows = flow_net(second, first), flow_net(third, second)
    _, example = distortion_examples(networks, frames)
    torch.testing.assert_close(example.warped, warp(warp(at_quarter_resolution(first), flows[0]), flows[1]))
    torch.testing.assert_close(example.image, at_quarter_resolution(third))
    came = upsample(warp(warp(upsample(segnet(first), 2), flows[0]), flows[1]), 4).argmax(1)
    own = upsample(upsample(segnet(third), 2), 4).argmax(1)
    assert torch.equal(example.is_wrong, came != own)
    assert 0 < example.is_wrong.double().mean() < 1


def test_gradients_reach_the_distortion_network_alone_and_no_label_matters(
    small: Callable[..., Method[Any]], networks: Networks, source: LabelledClip
) -> None:
    method = small("distortion_pretraining")
    unlabelled = LabelledClip(source.frames, torch.full_like(source.labels, -1), source.quarter_labels)
    (update,) = method.updates(networks, unlabelled, NOTHING)
    assert update.network == "dmnet"
    torch.autograd.backward(update.losses["distortion"])
    assert all(bool(each.grad.any()) for each in networks["dmnet"].parameters() if each.grad is not None)
    assert any(each.grad is not None for each in networks["dmnet"].parameters())
    assert all(each.grad is None for name in ("segmenter", "flow_net") for each in networks[name].parameters())


def test_the_momentum_of_its_statistics_is_a_hyperparameter(small: Callable[..., Method[Any]]) -> None:
    for momentum in (3e-4, 0.05):
        networks = small("distortion_pretraining", statistics_momentum=momentum).networks(4)
        norms = [module for module in networks["dmnet"].modules() if isinstance(module, nn.BatchNorm2d)]
        assert [norm.momentum for norm in norms] == 3 * [momentum, momentum, 0.1]
