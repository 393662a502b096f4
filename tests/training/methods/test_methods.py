import contextlib
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip, FlowClip, LabelledClip
from training.methods.flow_supervision import FlowSupervision, quarter_flow
from training.methods.mean_teacher import Teacher
from training.methods.method import Method, Networks
from training.methods.stage import Stage, StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.per_frame import PerFrame, PerFrameConfig
from training.trainer import NO_TARGET

Small = Callable[..., Method[Any]]  # Any: methods of either source
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]
Snapshot = Callable[[Networks], dict[str, Tensor]]


def following(networks: Networks) -> set[str]:
    """Networks that no optimizer trains and that move all the same: averages of another."""
    return {name for name, network in networks.items() if isinstance(network, Teacher)}


def test_a_short_training_lowers_the_loss_and_leaves_frozen_networks_alone(
    method: Method[Any], train: Train, snapshot: Snapshot
) -> None:
    networks = method.networks(4)
    trained = set(method.optimizers(networks))
    before = snapshot(networks)
    losses = train(method, networks, 12)
    assert sum(losses[-1].values()) < sum(losses[0].values())
    changed = {key.split(".")[0] for key, value in snapshot(networks).items() if not torch.equal(value, before[key])}
    assert changed == trained | following(networks)
    for network in (network for key, network in networks.items() if key not in trained):
        assert all(parameter.grad is None for parameter in network.parameters())


def test_parameters_without_optimizer_have_no_gradient_and_stay(
    method: Method[Any], train: Train, snapshot: Snapshot
) -> None:
    networks = method.networks(4)
    before = snapshot(networks)
    train(method, networks, 2)
    after = snapshot(networks)
    for network_name in networks.keys() - following(networks):
        network = networks[network_name]
        for key, parameter in network.named_parameters():
            moved = not torch.equal(after[f"{network_name}.{key}"], before[f"{network_name}.{key}"])
            assert moved <= parameter.requires_grad


def test_only_its_own_update_reaches_the_segmenter(
    method: Method[Any], source: LabelledClip, flow_source: FlowClip, target: Clip
) -> None:
    networks = method.networks(4)
    optimizers = method.optimizers(networks)
    segmenter = [each for each in networks.get("segmenter", nn.Module()).parameters() if each.requires_grad]
    clip = flow_source if isinstance(method, FlowSupervision) else source
    for update in method.updates(networks, clip, target):
        assert update.network in optimizers
        if update.network != "segmenter":
            total = torch.stack(list(update.losses.values())).sum()
            reached = torch.autograd.grad(total, segmenter, allow_unused=True, retain_graph=True) if segmenter else ()
            assert all(gradient is None for gradient in reached)


@pytest.mark.parametrize("stage", ["one", "two"])
def test_sfc_without_flow_weight_is_supervision_that_forwards_target_frames(
    stage: str, small: Small, train: Train, snapshot: Snapshot
) -> None:
    states = []
    for method in (
        small("sfc", stage, flow_weight=0.0),
        small("supervised", stage, forward_target=True),
        small("supervised", stage),
    ):
        torch.manual_seed(1)
        networks = method.networks(4)
        (losses,) = train(method, networks, 1)
        assert set(losses) == {"source"}
        states.append(snapshot({"segmenter": networks["segmenter"]}))
    control, with_target, without_target = states
    assert all(torch.equal(value, with_target[key]) for key, value in control.items())
    differing = {key.rsplit(".")[-1] for key, value in control.items() if not torch.equal(value, without_target[key])}
    assert differing == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("stage", ["one", "two"])
def test_the_flow_loss_reaches_the_trained_networks_alone(
    stage: str, small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("sfc", stage, flow_weight=1.0, softmax_scale=1.0)
    networks = method.networks(4)
    method.optimizers(networks)
    for name in ("teacher_flow", "sfm"):
        networks[name].requires_grad_(False)
    (update,) = method.updates(networks, source, target)
    torch.autograd.backward(update.losses["flow"])
    segmenter = networks["segmenter"]
    parts = {name.split(".")[0] for name, each in segmenter.named_parameters() if each.grad is not None}
    assert parts == ({"segnet"} if stage == "one" else {"merge", "flownet", "net_ref", "net_update"})
    assert all(bool(each.grad.any()) for each in segmenter.parameters() if each.grad is not None)
    assert all(each.grad is None for name in ("teacher_flow", "sfm") for each in networks[name].parameters())


@pytest.mark.parametrize("stage", ["one", "two"])
@pytest.mark.parametrize("name", ["supervised", "sfc"])
def test_statistics_move_unless_frozen(name: str, stage: str, small: Small, train: Train, snapshot: Snapshot) -> None:
    for freeze_bn in (False, True):
        method = small(name, stage, freeze_bn=freeze_bn)
        networks = method.networks(4)
        before = snapshot(networks)
        train(method, networks, 1)
        moved = {key for key, value in snapshot(networks).items() if not torch.equal(value, before[key])}
        assert any("running_mean" in key for key in moved) is not freeze_bn


def test_the_earlier_source_frame_only_moves_statistics(small: Small, source: LabelledClip, target: Clip) -> None:
    losses, num_forwards = [], []
    for exact_bn in (True, False):
        torch.manual_seed(1)
        method = small("supervised", exact_bn=exact_bn)
        networks = method.networks(4)
        (update,) = method.updates(networks, source, target)
        losses.append(update.losses["source"].item())
        segnet = cast("PerFrame", networks["segmenter"]).segnet
        num_forwards.append(segnet.get_buffer("bn1.num_batches_tracked").item())
    assert losses[0] == losses[1]
    assert num_forwards == [2, 1]


def test_sfm_pretraining_skips_clips_without_labels(small: Small, source: LabelledClip, target: Clip) -> None:
    method = small("sfm_pretraining")
    unlabelled = LabelledClip(source.frames, torch.full_like(source.labels, -1), torch.full((2, 8, 8), -1))
    assert list(method.updates(method.networks(4), unlabelled, target)) == []


def test_quarter_flow_averages_valid_pixels() -> None:
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0, :, :4] = 8  # a cell that moves 8 pixels to the left frame's right, half of it hidden
    flow[:, 0, :2, :4] = 100
    valid = torch.ones(1, 4, 8, dtype=torch.bool)
    valid[:, :2, :4] = False
    quarter, share = quarter_flow(flow, valid)
    torch.testing.assert_close(quarter, torch.tensor([2.0, 0, 0, 0]).view(1, 2, 1, 2))
    torch.testing.assert_close(share, torch.tensor([0.5, 1.0]).view(1, 1, 2))


def test_hidden_cells_have_no_flow_and_no_weight() -> None:
    quarter, share = quarter_flow(torch.full((1, 2, 4, 4), 7.0), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert not quarter.any()
    assert not share.any()


def test_flow_supervision_asks_for_flow_from_the_last_frame_to_the_one_before(
    small: Small, flow_source: FlowClip, target: Clip
) -> None:
    # A network that says nothing moves is wrong by the length of (4, -8) pixels, in quarter-resolution pixels.
    method = small("flow_supervision")
    networks = method.networks(4)
    for parameter in networks["flow_net"].parameters():
        torch.nn.init.zeros_(parameter)
    (update,) = method.updates(networks, flow_source, target)
    assert update.losses["end_point_error"].item() == pytest.approx(5**0.5)


def test_a_method_that_reads_no_target_trains_without_one(
    method: Method[Any], source: LabelledClip, flow_source: FlowClip
) -> None:
    networks = method.networks(4)
    method.optimizers(networks)
    clip = flow_source if isinstance(method, FlowSupervision) else source
    with pytest.raises(IndexError) if method.num_target_frames() else contextlib.nullcontext():
        assert len(list(method.updates(networks, clip, NO_TARGET))) == 1


def test_a_method_looks_at_no_more_target_frames_than_it_says(
    method: Method[Any], source: LabelledClip, flow_source: FlowClip, target: Clip
) -> None:
    def losses(clip: Clip) -> list[dict[str, Tensor]]:
        torch.manual_seed(3)
        networks = method.networks(4)
        method.optimizers(networks)
        labelled = flow_source if isinstance(method, FlowSupervision) else source
        return [update.losses for update in method.updates(networks, labelled, clip)]

    num_frames = method.num_target_frames()
    last = Clip(target.frames[:, target.frames.shape[1] - num_frames :]) if num_frames else NO_TARGET
    torch.testing.assert_close(losses(last), losses(target), rtol=0, atol=0)


@pytest.mark.parametrize("stage", ["one", "two"])
def test_a_supervised_method_reads_the_target_only_to_forward_it(stage: str, small: Small) -> None:
    assert small("supervised", stage).num_target_frames() == 0
    assert small("supervised", stage, forward_target=True).num_target_frames() == (2 if stage == "one" else 3)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        (
            StageOne(AccelConfig("resnet10_slim", "resnet10_slim")),
            "a network of single frames, Accel is",
        ),
        (StageTwo(PerFrameConfig("resnet10_slim")), "PerFrame has nothing there: train it in stage one"),
    ],
)
def test_a_segmenter_that_a_stage_cannot_train_is_refused(stage: Stage, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Supervised(stage).networks(4)
