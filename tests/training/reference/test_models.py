"""The networks equal the official ones in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from training.data.clip import LabelledClip
from training.methods.parameter_groups import stage_two_groups
from training.methods.stage import StageTwo
from training.models.accel import Accel
from training.models.flownet_s import FlowNetS
from training.models.per_frame import PerFrame
from training.models.warping import warp

Reference = Callable[[str], dict[str, Tensor]]
AssertEqual = Callable[[Tensor, Tensor], None]


def _digest(network: nn.Module) -> Tensor:
    values = [value.double() for value in network.state_dict().values()]
    return torch.stack([torch.stack([value.sum(), value.abs().sum()]) for value in values]).sum(0)


def test_seeded_weights_are_those_of_the_reference(
    trainable_flow: FlowNetS,
    teacher_flow: FlowNetS,
    sfm: FlowNetS,
    per_frame: PerFrame,
    reference: Reference,
    assert_equal: AssertEqual,
) -> None:
    assert_equal(_digest(trainable_flow), reference("flownets_64x128")["digest"])
    assert_equal(_digest(teacher_flow), reference("stage_one_sfc")["digest_global"])
    assert_equal(_digest(sfm), reference("stage_one_sfc")["digest_sfm"])
    assert_equal(_digest(per_frame), reference("deeplab")["digest"])


def test_warping_equals_resample2d_with_its_gradients(reference: Reference, assert_equal: AssertEqual) -> None:
    arrays = reference("resample2d")
    features, flow = arrays["feature"].requires_grad_(), arrays["flow"].requires_grad_()
    warped = warp(features, flow)
    torch.autograd.backward(warped, arrays["grad_out"])
    assert features.grad is not None
    assert flow.grad is not None
    assert_equal(warped, arrays["out"])
    assert_equal(features.grad, arrays["grad_feature"])
    assert_equal(flow.grad, arrays["grad_flow"])


@pytest.mark.parametrize("size", ["64x128", "90x174", "100x72"])
def test_flownet_s_equals_the_official_one(
    size: str, trainable_flow: FlowNetS, reference: Reference, assert_equal: AssertEqual
) -> None:
    arrays = reference(f"flownets_{size}")
    current, previous = arrays["x"].view(1, 2, 3, *arrays["x"].shape[2:]).flip(2).unbind(1)
    assert_equal(trainable_flow(current, previous), arrays["flow"])


def test_deeplab_equals_the_official_one(
    per_frame: PerFrame, frames: Tensor, reference: Reference, assert_equal: AssertEqual
) -> None:
    arrays, segnet = reference("deeplab"), per_frame.segnet
    with torch.no_grad():
        main, auxiliary = segnet.eval().level_scores(frames[:, 0])
        assert_equal(main, arrays["main_eval"])
        assert_equal(auxiliary, arrays["aux_eval"])
        main, auxiliary = segnet.train().level_scores(frames[:, 0])
        assert_equal(main, arrays["main_train"])
        assert_equal(auxiliary, arrays["aux_train"])
    assert_equal(segnet.get_buffer("bn1.running_mean"), arrays["bn1_running_mean"])
    assert_equal(segnet.get_buffer("bn1.running_var"), arrays["bn1_running_var"])
    assert_equal(segnet.get_buffer("layer4.2.bn3.running_var"), arrays["last_running_var"])


def test_accel_equals_the_official_one_and_so_does_its_folded_form(
    accel: Accel, frames: Tensor, reference: Reference, assert_equal: AssertEqual
) -> None:
    arrays = reference("accel101")
    accel.eval()
    folded = accel.folded()
    with torch.no_grad():
        state = accel.encode_key(frames[:, 0])
        assert_equal(accel.propagate(state, frames[:, 0], frames[:, 1]).logits, arrays["pred_quarter"])
        assert_equal(accel(frames[:, :2]), arrays["pred_eval"])
        assert_equal(accel(frames), arrays["pred_eval_t3"])
        assert_equal(folded(frames), arrays["pred_eval_t3"])


def test_supervised_gradients_of_accel_equal_the_official_ones(
    accel: Accel, source: LabelledClip, reference: Reference, assert_equal: AssertEqual
) -> None:
    arrays = reference("accel101")
    stage_two_groups(accel)
    loss = StageTwo().source_loss(accel, source)
    torch.autograd.backward(loss)
    gradients = {name: parameter.grad for name, parameter in accel.named_parameters() if parameter.grad is not None}
    assert_equal(loss, arrays["loss_train"])
    assert_equal(gradients["merge.weight"], arrays["grad_merge_w"])
    assert_equal(gradients["net_ref.layer6.conv2d_list.0.weight"][:, :8], arrays["grad_layer6_ref"])
    assert_equal(gradients["net_update.layer6.conv2d_list.0.weight"].norm(), arrays["grad_layer6_upd_norm"])
    assert_equal(gradients["flownet.conv1.0.weight"], arrays["grad_flow_conv1"])
    assert_equal(gradients["flownet.predict_flow2.weight"], arrays["grad_flow_pf2"])
