from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from training.data.clip import Clip, LabelledClip
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method, Networks
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.tpl import Tpl, statistics_kept
from training.models.deeplab import DeepLab
from training.models.per_frame import PerFrame

Small = Callable[..., Method[Any]]  # Any: methods of either source
Snapshot = Callable[[Networks], dict[str, Tensor]]


def test_it_shares_the_methods_teacher_or_brings_its_own(small: Small) -> None:
    assert list(small("tpl", method=small("sfc")).networks(4)) == ["segmenter", "teacher_flow", "sfm"]
    assert list(small("tpl", method=small("tps")).networks(4)) == ["segmenter", "teacher_flow"]
    alone = small("tpl", method=small("supervised"))
    networks = alone.networks(4)
    assert list(networks) == ["segmenter", "teacher_flow"]
    assert set(alone.optimizers(networks)) == {"segmenter"}


@pytest.mark.parametrize("stage", ["one", "two"])
def test_the_methods_own_losses_and_weights_are_what_they_are_without_it(
    stage: str, small: Small, snapshot: Snapshot, source: LabelledClip, target: Clip
) -> None:
    losses, weights = [], []
    for method in (small("sfc", stage), small("tpl", stage, pseudo_weight=0.5)):
        torch.manual_seed(1)
        networks = method.networks(4)
        weights.append(snapshot(networks))
        (update,) = method.updates(networks, source, target)
        losses.append(update.losses)
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert set(losses[1]) == {"source", "flow", "temporal_pseudo"}
    assert all(torch.equal(value, losses[1][name]) for name, value in losses[0].items())


def test_it_joins_the_step_of_the_segmenter_alone(small: Small, source: LabelledClip, target: Clip) -> None:
    steps = []
    for method in (small("advent"), small("tpl", method=small("advent"))):
        networks = method.networks(4)
        assert "main_discriminator" in method.optimizers(networks)
        steps.append({update.network: set(update.losses) for update in method.updates(networks, source, target)})
    assert {name: losses - steps[0][name] for name, losses in steps[1].items()} == {
        name: {"temporal_pseudo"} if name == "segmenter" else set() for name in steps[0]
    }


@pytest.mark.parametrize("stage", ["one", "two"])
def test_its_gradient_reaches_what_the_stage_trains(
    stage: str, small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("tpl", stage)
    networks = method.networks(4)
    method.optimizers(networks)
    networks["teacher_flow"].requires_grad_(False)
    (update,) = method.updates(networks, source, target)
    torch.autograd.backward(update.losses["temporal_pseudo"])
    trained = [parameter for parameter in networks["segmenter"].parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    assert any(bool(cast("Tensor", parameter.grad).any()) for parameter in trained)


def test_the_student_moves_statistics_and_its_labels_do_not(small: Small, source: LabelledClip, target: Clip) -> None:
    num_forwards = []
    for method in (small("supervised"), small("tpl", method=small("supervised"))):
        networks = method.networks(4)
        list(method.updates(networks, source, target))
        segnet = cast("PerFrame", networks["segmenter"]).segnet
        num_forwards.append(segnet.get_buffer("bn1.num_batches_tracked").item())
    assert num_forwards == [2, 3]


def test_statistics_are_kept_and_features_are_those_of_training() -> None:
    network, frame = DeepLab("resnet10_slim", 4, auxiliary=False), torch.rand(2, 3, 32, 32)
    network.bn1.eval()  # as `freeze_bn` leaves them
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad(), statistics_kept(network):
        scores = network(frame)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    assert torch.equal(network(frame), scores)
    moved = {name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved == {name for name in before if not name.startswith("bn1.")}


def test_graphs_from_before_can_still_be_differentiated() -> None:
    network, frame = DeepLab("resnet10_slim", 4, auxiliary=False), torch.rand(2, 3, 32, 32)
    loss = network(frame).square().mean()
    with torch.no_grad(), statistics_kept(network):
        network(frame)
    torch.autograd.backward(loss)
    assert network.conv1.weight.grad is not None


@pytest.mark.parametrize("method", [FlowSupervision(), SfmPretraining()])
def test_a_method_without_a_segmenter_is_refused(method: Method[Any]) -> None:
    sentence = f"added to {type(method).__name__}, they take a method that trains a segmenter in one of its stages"
    with pytest.raises(ValueError, match=sentence):
        Tpl(method)
