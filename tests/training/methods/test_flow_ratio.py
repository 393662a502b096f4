"""The flow's likelihood ratio: its training, its validation, and a teacher that is told it."""

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip, LabelledClip
from training.methods.flow_ratio_pretraining import flow_ratio_losses
from training.methods.method import Method, Networks
from training.models.flow_ratio import FlowRatio
from training.models.optical_flow import FlowNet

Small = Callable[..., Method[Any]]  # Any: methods of either source
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]


class Shifted(FlowNet):
    """Where the red channel says class 2 or 3, all moves by 8 pixels; elsewhere nothing does."""

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        del previous
        red = current[:, :1, 2::4, 2::4]
        return torch.cat([8.0 * (red > 0.5), torch.zeros_like(red)], dim=1)


def say(classifier: nn.Module, *probabilities: float) -> None:
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        list(classifier.parameters())[-1].copy_(torch.tensor(probabilities).log())


def test_losses_by_hand(source: LabelledClip) -> None:
    ratio = FlowRatio(4, width=4)
    say(ratio.of_flow, 0.4, 0.2, 0.2, 0.2)
    say(ratio.of_position, 0.25, 0.25, 0.25, 0.25)
    clip = source._replace(quarter_labels=torch.zeros_like(source.quarter_labels))
    losses = flow_ratio_losses({"flow_ratio": ratio, "teacher_flow": Shifted()}, clip)
    assert [loss.item() for loss in losses] == pytest.approx([-math.log(0.4), math.log(4)])


def test_flow_that_tells_two_classes_from_two_others_is_worth_a_bit(
    small: Small, source: LabelledClip, train: Train
) -> None:
    method = small("flow_ratio_pretraining")
    networks = {**method.networks(4), "teacher_flow": Shifted()}
    train(method, networks, 150)
    with_flow, of_position = flow_ratio_losses(networks, source)
    assert of_position.item() - with_flow.item() > 0.5 * math.log(2)


@pytest.mark.parametrize("stage", ["one", "two"])
def test_the_teacher_is_told_half_of_the_ratio(stage: str, small: Small, target: Clip) -> None:
    told: Any = small("flow_ratio_teacher", stage, ratio_weight=0.5)  # Any: a method of its own
    networks = told.networks(4)
    for network in networks.values():
        network.eval()
    alone = small("mean_teacher", stage)
    ratio = cast("FlowRatio", networks["flow_ratio"])
    say(ratio.of_flow, 0.4, 0.2, 0.2, 0.2)
    say(ratio.of_position, 0.2, 0.4, 0.2, 0.2)
    scores = alone.teacher_scores(networks, target.frames)  # type: ignore[attr-defined]  # it has them
    difference = told.teacher_scores(networks, target.frames) - scores
    expected = 0.5 * torch.tensor([math.log(2), -math.log(2), 0, 0]).view(1, 4, 1, 1)
    torch.testing.assert_close(difference, expected.expand_as(difference), rtol=0, atol=1e-5)


def test_the_ratio_is_of_the_flow_from_the_last_frame_to_the_one_before(small: Small, target: Clip) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Watched(FlowNet):
        def forward(self, current: Tensor, previous: Tensor) -> Tensor:
            seen.append((current, previous))
            return torch.zeros(len(current), 2, 8, 8)

    method: Any = small("flow_ratio_teacher")  # Any: a method of its own
    method.teacher_scores({**method.networks(4), "teacher_flow": Watched()}, target.frames)
    (frames,) = seen
    assert torch.equal(frames[0], target.frames[:, -1])
    assert torch.equal(frames[1], target.frames[:, -2])
