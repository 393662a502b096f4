import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from training.data.clip import Clip, LabelledClip
from training.methods.da_vsn import consistency_loss, joint_probabilities, splat
from training.methods.method import Method
from training.models.per_frame import PerFrameConfig

Small = Callable[..., Method[Any]]  # Any: methods of either source


def looped_splat(values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The loop of the released code, as the specification tells it."""
    _, _, h, w = values.shape
    moved, filled = torch.zeros_like(values), torch.zeros(len(values), 1, h, w, dtype=torch.bool)
    for sample in range(len(values)):
        for x in range(w):
            for y in range(h):
                to_x = round(x - flow[sample, 0, y, x].item())
                to_y = round(y - flow[sample, 1, y, x].item())
                if 0 <= to_x < w and 0 <= to_y < h:
                    moved[sample, :, to_y, to_x] = values[sample, :, y, x]
                    filled[sample, 0, to_y, to_x] = True
    return moved, filled


def test_splatting_is_the_released_loop_where_pixels_collide_and_leave() -> None:
    values = torch.rand(2, 3, 5, 7)
    for flow in (4 * torch.rand(2, 2, 5, 7) - 2, torch.randint(-3, 4, (2, 2, 5, 7)) / 2):  # halves round to even
        moved, filled = splat(values, flow)
        expected, expected_filled = looped_splat(values, flow)
        assert torch.equal(moved, expected)
        assert torch.equal(filled, expected_filled)


def test_splatting_by_hand() -> None:
    # The scene moved one pixel to the right: the flow points left, the first column stays empty.
    flow = torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    moved, filled = splat(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3), flow)
    assert moved.flatten().tolist() == [0, 1, 2]
    assert filled.flatten().tolist() == [False, True, True]


def test_consistency_counts_where_the_past_is_surer() -> None:
    sure, unsure = math.log(3), 0.0  # probabilities 3/4 and 1/4, or 1/2 each
    scores = torch.tensor([[unsure, sure, unsure, unsure], [0.0] * 4]).view(1, 2, 1, 4).requires_grad_()
    earlier = torch.tensor([[sure, sure, unsure, sure], [0.0] * 4]).view(1, 2, 1, 4).requires_grad_()
    # At the first of four pixels and at the last: |1/2 - 3/4| in both classes.
    loss = consistency_loss(scores, earlier, torch.zeros(1, 2, 1, 4))
    assert loss.item() == pytest.approx(4 * 0.25 / 8)
    torch.autograd.backward(loss)
    assert earlier.grad is None
    assert scores.grad is not None
    assert scores.grad[0, 0, 0].ne(0).tolist() == [True, False, False, True]
    # One pixel to the right: what came to the last pixel is unsure, to the third sure, to the first nothing.
    flow = torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    assert consistency_loss(scores, earlier, flow).item() == pytest.approx(2 * 0.25 / 8)


def test_flow_comes_to_the_scores_resolution() -> None:
    # Two quarter-resolution pixels are one at 1/8.
    scores = torch.zeros(1, 2, 1, 2)
    earlier = torch.tensor([[9.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    flow = torch.tensor([-2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 4)
    assert consistency_loss(scores, earlier, flow).item() == pytest.approx((0.5 - 1 / (1 + math.exp(9))) / 2)


def test_joint_probabilities_are_one_softmax_over_both_frames() -> None:
    segmenter = PerFrameConfig("resnet10_slim").build(2)
    scores, earlier = torch.zeros(1, 2, 1, 1), torch.full((1, 2, 1, 1), math.log(3))
    joint = joint_probabilities(segmenter, scores, earlier)
    assert joint.shape == (1, 4, 8, 8)
    torch.testing.assert_close(joint[0, :, 3, 3], torch.tensor([1.0, 1.0, 3.0, 3.0]) / 8)


@pytest.mark.parametrize(("stage", "levels"), [("one", ["main", "auxiliary"]), ("two", ["main"])])
def test_the_segmenter_learns_from_every_adversary_and_they_apart(
    stage: str, levels: list[str], small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("da_vsn", stage)
    networks = method.networks(4)
    method.optimizers(networks)
    networks["teacher_flow"].requires_grad_(False)
    adversaries = [f"{level}_{kind}" for level in levels for kind in ("sta", "sa")]
    first, *others = method.updates(networks, source, target)
    assert set(first.losses) == {"source", *(f"{level}_consistency" for level in levels), *adversaries}
    assert [update.network for update in others] == adversaries
    for update in others:
        assert set(update.losses) == {f"{update.network}_discriminator", f"{update.network}_discrepancy"}
        torch.autograd.backward(torch.stack(list(update.losses.values())).sum())
        reached = {
            name for name, network in networks.items() if any(each.grad is not None for each in network.parameters())
        }
        assert reached == {update.network}
        networks[update.network].zero_grad()


def test_one_step_gives_the_main_adversaries_five_times_the_weight(
    small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("da_vsn")
    networks = method.networks(4)
    for name in ("main_sta", "main_sa", "auxiliary_sta", "auxiliary_sa"):  # each is undecided
        for parameter in networks[name].parameters():
            torch.nn.init.zeros_(parameter)
    losses = next(iter(method.updates(networks, source, target))).losses
    for kind in ("sta", "sa"):
        assert losses[f"main_{kind}"].item() == pytest.approx(0.001 * math.log(2))
        assert losses[f"auxiliary_{kind}"].item() == pytest.approx(0.0002 * math.log(2))
