from typing import Any

import pytest
import torch
from torch import nn

from training.methods.optimization import (
    OPTIMIZERS,
    SCHEDULES,
    Clipped,
    Constant,
    OptimizerSpec,
    ParameterGroup,
    Poly,
    RepeatedSgd,
    Schedule,
    Sgd,
    StepDecay,
    WarmUp,
)
from training.methods.parameter_groups import (
    freeze_statistics,
    freeze_statistics_of_fixed,
    stage_one_groups,
    stage_two_groups,
)
from training.models.accel import AccelConfig
from training.models.da_vss import DaVssConfig
from training.models.deeplab import DeepLab
from training.models.flownet_s import FlowNetSConfig


def _parameter() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0], dtype=torch.float64))


def test_schedules_by_hand() -> None:
    assert Constant().factor(7, 10) == 1
    assert Poly().factor(0, 10) == 1
    assert Poly(power=2).factor(5, 10) == 0.25
    assert [WarmUp(warm_up_steps=2).factor(step, 10) for step in range(4)] == [0.1, 0.1, 1, 1]
    assert [StepDecay().factor(step, 5) for step in range(5)] == [1, 1, 1, 0.1, 0.1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_start_positive_and_stay_within_one(schedule: type[Schedule]) -> None:
    factors = [schedule().factor(step, 2000) for step in range(2000)]
    assert min(factors) > 0
    assert max(factors) == 1


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_go_downhill_and_multiply_the_rate_of_a_group(kind: type[OptimizerSpec]) -> None:
    slow, fast = _parameter(), _parameter()
    # Any: every listed optimizer but that around another has a learning rate.
    options: dict[str, Any] = {"optimizer": Sgd(1e-3)} if kind is Clipped else {"learning_rate": 1e-3}
    optimizer = kind(**options).build([ParameterGroup([slow]), ParameterGroup([fast], factor=10)])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-2])
    torch.autograd.backward(slow.square().sum() + fast.square().sum())
    optimizer.step()
    assert 1 > slow.item() > fast.item()


def test_sgd_repeated_once_is_sgd() -> None:
    once, plain = _parameter(), _parameter()
    optimizers = RepeatedSgd(0.1).build([ParameterGroup([once])]), Sgd(0.1).build([ParameterGroup([plain])])
    for _ in range(3):
        for parameter, optimizer in zip((once, plain), optimizers, strict=True):
            optimizer.zero_grad()
            torch.autograd.backward(parameter.square().sum())
            optimizer.step()
    torch.testing.assert_close(once, plain)


def test_repeated_sgd_by_hand() -> None:
    parameter = _parameter()
    optimizer = RepeatedSgd(0.1, momentum=0.5, weight_decay=0.0).build([ParameterGroup([parameter], repeats=2)])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # without a buffer yet: twice 0.1
    assert parameter.item() == pytest.approx(0.8)
    optimizer.step()  # buffers 1.5 and 1.75
    assert parameter.item() == pytest.approx(0.8 - 0.15 - 0.175)


def test_stage_one_repeats_tensors_as_the_official_parameter_list_does() -> None:
    with torch.device("meta"):
        network = DeepLab("resnet101", 15, auxiliary=True)
    groups = stage_one_groups(network, train_bn=True)
    backbone = {group.repeats: len(group.parameters) for group in groups if group.factor == 1}
    assert backbone == {1: 1, 3: 297, 4: 12}
    assert [(group.factor, group.repeats, len(group.parameters)) for group in groups if group.factor != 1] == [
        (10.0, 1, 16)
    ]


def test_stage_one_trains_all_but_the_first_batch_norm() -> None:
    network = DeepLab("resnet10_slim", 4, auxiliary=True)
    grouped = {id(parameter) for group in stage_one_groups(network, train_bn=True) for parameter in group.parameters}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in network.named_parameters() if id(parameter) in grouped}
    assert set(dict(network.named_parameters())) - trained == {"bn1.weight", "bn1.bias"}


def test_stage_two_trains_merge_flow_and_classifiers() -> None:
    accel = AccelConfig(reference="resnet10_slim", update="resnet10_slim").build(4)
    (group,) = stage_two_groups(accel)
    trained = {name for name, parameter in accel.named_parameters() if parameter.requires_grad}
    assert len(group.parameters) == len(trained)
    assert {name.split(".conv")[0] for name in trained if not name.startswith("flownet.")} == {
        "merge.weight", "merge.bias", "net_ref.layer6", "net_update.layer6",
    }  # fmt: skip


def test_frozen_statistics_do_not_move_until_training_is_set_again() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train().requires_grad_(False)
    freeze_statistics(network)
    before = network.get_buffer("1.running_mean").clone()
    network(torch.rand(1, 3, 4, 4))
    assert torch.equal(network.get_buffer("1.running_mean"), before)
    assert network[0].training
    network.train()(torch.rand(1, 3, 4, 4))
    assert not torch.equal(network.get_buffer("1.running_mean"), before)


def test_a_clipped_optimizer_shortens_gradients_to_the_norm_and_leaves_short_ones() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    groups = [ParameterGroup([first]), ParameterGroup([second], factor=10)]
    optimizer = Clipped(Sgd(learning_rate=1.0, momentum=0.0, weight_decay=0.0), max_norm=1.0).build(groups)
    first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
    optimizer.step()
    assert (first.item(), second.item()) == pytest.approx((-0.6, -8.0))
    first.grad, second.grad = torch.tensor([0.3]), torch.tensor([0.4])
    optimizer.step()
    assert (first.item(), second.item()) == pytest.approx((-0.9, -12.0))


def test_a_longer_decay_is_cut_off() -> None:
    assert Poly(power=1.0).factor(5, 10) == 0.5
    assert Poly(power=1.0, length=2.5).factor(5, 10) == pytest.approx(0.8)


def test_stage_one_can_leave_every_batch_norm_alone() -> None:
    network = DeepLab("resnet10_slim", 4, auxiliary=True)
    grouped = {id(each) for group in stage_one_groups(network, train_bn=False) for each in group.parameters}
    left_out = {name for name, parameter in network.named_parameters() if id(parameter) not in grouped}
    assert left_out == {name for name, each in network.named_parameters() if not each.requires_grad}
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(left_out) == 2 * len(norms)


def test_statistics_of_fixed_are_those_of_networks_that_are_not_trained() -> None:
    flow_net = FlowNetSConfig(width=1 / 4)
    segmenter = DaVssConfig("resnet10_slim", flow_net, correction_width=1 / 8).build(4).train()
    stage_two_groups(segmenter)
    freeze_statistics_of_fixed(segmenter)
    in_training = {
        name.split(".")[0]
        for name, module in segmenter.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
    }
    assert in_training == {"cfnet"}
