"""One forward pass less must leave every number as it is."""

import copy

import pytest
import torch
from torch import Tensor

from training.methods.parameter_groups import freeze_statistics, stage_two_groups
from training.methods.twin_backbones import levels_of_last_two
from training.models.accel import Accel, AccelConfig
from training.models.flownet_s import FlowNetSConfig


@pytest.fixture
def twins() -> Accel:
    config = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4))
    accel = config.build(4).double().train()
    accel.net_update.load_state_dict(accel.net_ref.state_dict())
    for parameter in accel.net_update.layer6.parameters():  # stage two trains the classifiers apart
        torch.nn.init.normal_(parameter, std=0.1)
    stage_two_groups(accel)
    return accel


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(2, 3, 3, 64, 64, dtype=torch.float64)


def pairwise(accel: Accel, frames: Tensor) -> tuple[Tensor, Tensor]:
    return accel.level_logits(frames[:, -2:])[0], accel.level_logits(frames[:, -3:-1])[0]


def shared(accel: Accel, frames: Tensor) -> tuple[Tensor, Tensor]:
    (current,), (previous,) = levels_of_last_two(accel, frames)
    return current, previous


def num_forwards(accel: Accel, frames: Tensor) -> int:
    """How many frames the two backbones look at."""
    calls: list[object] = []
    handles = [
        net.conv1.register_forward_hook(lambda *call: calls.append(call)) for net in (accel.net_ref, accel.net_update)
    ]
    levels_of_last_two(accel, frames)
    for handle in handles:
        handle.remove()
    return len(calls)


def test_twins_forward_the_shared_frame_once_and_give_the_same_scores_and_gradients(
    twins: Accel, frames: Tensor
) -> None:
    expected_from = copy.deepcopy(twins)
    expected = pairwise(expected_from, frames)
    assert num_forwards(copy.deepcopy(twins), frames) == 3
    found = shared(twins, frames)
    weights = torch.rand_like(found[0])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for scores in (found, expected):
        torch.autograd.backward((weights * (scores[0] - 2 * scores[1])).sum())
    for (name, parameter), twin in zip(twins.named_parameters(), expected_from.parameters(), strict=True):
        assert (parameter.grad is None) == (twin.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-10, atol=1e-12, msg=name)


def test_statistics_move_as_if_every_frame_had_been_forwarded(twins: Accel, frames: Tensor) -> None:
    expected_from = copy.deepcopy(twins)
    for _ in range(3):
        levels_of_last_two(twins, frames)
        pairwise(expected_from, frames)
    for (name, buffer), expected in zip(twins.named_buffers(), expected_from.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-13, msg=name)


def test_backbones_that_differ_in_one_weight_are_forwarded_on_every_frame(twins: Accel, frames: Tensor) -> None:
    with torch.no_grad():
        twins.net_update.get_parameter("layer4.0.conv1.weight")[0, 0, 0, 0] += 1
    expected = pairwise(copy.deepcopy(twins), frames)
    assert num_forwards(copy.deepcopy(twins), frames) == 4
    for one, other in zip(shared(twins, frames), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_running_statistics_of_their_own_tell_twins_apart(twins: Accel, frames: Tensor) -> None:
    freeze_statistics(twins)
    assert num_forwards(twins, frames) == 4
    assert num_forwards(twins.eval(), frames) == 4


def test_backbones_of_two_kinds_are_no_twins(frames: Tensor) -> None:
    config = AccelConfig(reference="resnet18", update="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4))
    assert num_forwards(config.build(4).double().train(), frames) == 4
