"""The training stages equal the official ones in float64: losses, gradients, running statistics, optimizer steps."""

from collections.abc import Callable
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip, LabelledClip
from training.methods.losses import prediction_flow_loss, scaled_softmax
from training.methods.method import Networks
from training.methods.optimization import RepeatedSgd
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import Accel
from training.models.flownet_s import FlowNetS
from training.models.per_frame import PerFrame
from training.models.segmentation_to_flow import flow_from_labels, flow_from_probabilities

Reference = Callable[[str], dict[str, Tensor]]


class AssertEqual(Protocol):
    def __call__(self, actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None: ...


def _gradient(network: nn.Module, name: str) -> Tensor:
    gradient = network.get_parameter(name).grad
    assert gradient is not None
    return gradient


def test_source_half_of_stage_one(
    per_frame: PerFrame, source: LabelledClip, target: Clip, reference: Reference, assert_equal: AssertEqual
) -> None:
    arrays, method, networks = reference("stage_one_source"), Supervised(StageOne()), {"segmenter": per_frame}
    method.optimizers(dict(networks))
    (update,) = method.updates(dict(networks), source, target)
    torch.autograd.backward(update.losses["source"])
    segnet = per_frame.segnet
    assert_equal(update.losses["source"], arrays["loss"])
    assert_equal(_gradient(segnet, "layer6.conv2d_list.0.weight").norm(), arrays["grad_layer6_norm"])
    assert_equal(_gradient(segnet, "layer5.conv2d_list.0.weight").norm(), arrays["grad_layer5_norm"])
    assert_equal(_gradient(segnet, "conv1.weight"), arrays["grad_conv1"])
    assert_equal(segnet.get_buffer("bn1.running_mean"), arrays["bn1_running_mean_after"])
    assert_equal(segnet.get_buffer("bn1.running_var"), arrays["bn1_running_var_after"])


@pytest.mark.slow
def test_flow_loss_of_stage_one(
    per_frame: PerFrame,
    teacher_flow: FlowNetS,
    sfm: FlowNetS,
    source: LabelledClip,
    target: Clip,
    reference: Reference,
    assert_equal: AssertEqual,
) -> None:
    arrays, method = reference("stage_one_sfc"), Sfc(StageOne(), flow_weight=1.0)
    networks: Networks = {"segmenter": per_frame, "teacher_flow": teacher_flow, "sfm": sfm.requires_grad_(False)}
    method.optimizers(networks)
    (update,) = method.updates(networks, source, target)
    torch.autograd.backward(update.losses["flow"])
    segnet = per_frame.segnet
    assert_equal(update.losses["flow"], arrays["loss_flow"])
    assert_equal(_gradient(segnet, "layer6.conv2d_list.0.weight").norm(), arrays["grad_layer6_norm"])
    assert_equal(_gradient(segnet, "layer5.conv2d_list.0.weight").norm(), arrays["grad_layer5_norm"])
    assert_equal(_gradient(segnet, "layer6.conv2d_list.0.weight")[:, :8], arrays["grad_layer6"])
    assert_equal(_gradient(segnet, "conv1.weight"), arrays["grad_conv1"])


@pytest.mark.slow
def test_two_steps_of_stage_one_with_repeated_parameters(
    per_frame: PerFrame,
    teacher_flow: FlowNetS,
    sfm: FlowNetS,
    frames: Tensor,
    source: LabelledClip,
    reference: Reference,
    assert_equal: AssertEqual,
) -> None:
    arrays, method = reference("stage_one_two_steps"), Sfc(StageOne(optimizer=RepeatedSgd()))
    networks: Networks = {"segmenter": per_frame, "teacher_flow": teacher_flow, "sfm": sfm.requires_grad_(False)}
    optimizer = method.optimizers(networks)["segmenter"]
    base_rates = [group["lr"] for group in optimizer.param_groups]
    losses = []
    for step in range(2):
        for group, base_rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base_rate * method.learning_rate_factor(step, steps=10)
        for update in method.updates(networks, source, Clip(frames[:, 1:])):
            optimizer.zero_grad()
            torch.autograd.backward(torch.stack(list(update.losses.values())).sum())
            optimizer.step()
            losses += [update.losses["source"], update.losses["flow"]]
    assert_equal(torch.stack(losses), arrays.pop("losses"))
    state = per_frame.segnet.state_dict()
    for name, expected in arrays.items():
        assert_equal(state[name.replace("__", ".")], expected)


def test_flow_loss_of_stage_two(
    accel: Accel,
    teacher_flow: FlowNetS,
    sfm: FlowNetS,
    frames: Tensor,
    reference: Reference,
    assert_equal: AssertEqual,
) -> None:
    arrays, pair = reference("stage_two_sfc"), (frames[:, 2], frames[:, 1])
    sfm.requires_grad_(False)
    stage = StageTwo()
    stage.optimizer_of(accel)
    current, previous = (accel.upsample(scores) for (scores,) in stage.levels_of_last_two(accel, frames))
    flow = teacher_flow(*pair)
    segmentation_flow = flow_from_probabilities(sfm, scaled_softmax(current, 100), scaled_softmax(previous, 100), *pair)
    loss = prediction_flow_loss(sfm, flow, (current, previous), pair, softmax_scale=100)
    torch.autograd.backward(loss)
    assert_equal(flow, arrays["flow_label"])
    assert_equal(segmentation_flow, arrays["flow_pred"])
    assert_equal(loss, arrays["loss_flow"])
    # The last digit of one input pixel moves the scores by 2e-13 here (batch normalisation of one sample), the scale of
    # 100 turns that into 1e-9 of the gradients: 1.03e-9 is what was seen.
    assert_equal(_gradient(accel, "merge.weight"), arrays["grad_merge_w"], tolerance=3e-9)
    assert_equal(_gradient(accel, "flownet.predict_flow2.weight"), arrays["grad_flow_pf2"], tolerance=3e-9)
    name = "layer6.conv2d_list.0.weight"
    assert_equal(_gradient(accel.net_ref, name).norm(), arrays["grad_layer6_ref_norm"])
    assert_equal(_gradient(accel.net_update, name).norm(), arrays["grad_layer6_upd_norm"])
    assert_equal(accel.net_ref.get_buffer("bn1.running_mean"), arrays["bn1_ref_mean_after"])
    assert_equal(accel.net_update.get_buffer("bn1.running_mean"), arrays["bn1_upd_mean_after"])


def test_sfm_pretraining(
    teacher_flow: FlowNetS,
    sfm: FlowNetS,
    frames: Tensor,
    target: Clip,
    reference: Reference,
    assert_equal: AssertEqual,
) -> None:
    arrays, pair = reference("sfm_pretrain"), (frames[:, 1], frames[:, 0])
    labels = torch.stack([arrays["gt0"], arrays["gt1"]], dim=1)
    clip = LabelledClip(frames[:, :2], labels, arrays["gt_quarter"])
    (update,) = SfmPretraining().updates({"sfm": sfm, "teacher_flow": teacher_flow}, clip, target)
    torch.autograd.backward(update.losses["flow"])
    assert_equal(teacher_flow(*pair), arrays["flow_label"])
    assert_equal(flow_from_labels(sfm, labels[:, 1], labels[:, 0], *pair), arrays["flow_pred"])
    assert_equal(update.losses["flow"], arrays["loss_masked"])
    assert_equal(_gradient(sfm, "predict_flow2.weight"), arrays["grad_pf2"])
    assert_equal(_gradient(sfm, "conv1.0.weight"), arrays["grad_conv1"])
