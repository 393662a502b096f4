from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from training.models.deeplab import DeepLab
from training.models.flownet_s import FlowNetS
from training.models.official_checkpoints import (
    KINDS,
    KindName,
    complete,
    contents,
    count_classes,
    detect_kind,
    recognise_backbone,
    rename,
)
from training.models.raft import Raft

State = dict[str, Tensor]
Official = Callable[..., State]


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def test_every_kind_is_described() -> None:
    assert tuple(KINDS) == get_args(KindName)


def test_the_flow_network_has_46_weights_that_keep_their_names(official: Official) -> None:
    state = official("flow_net")
    assert len(state) == 46
    assert sum(value.numel() for value in state.values()) == 5_462_674
    assert detect_kind(state) == "flownet-s"
    renamed = rename(state, "flownet-s")
    assert renamed.mapped == {name: f"flow_net.{name}" for name in state}
    assert not renamed.dropped


def test_raft_has_179_weights_that_keep_their_names(official: Official) -> None:
    state = official("raft")
    assert len(state) == 179
    assert detect_kind(state) == "raft"
    renamed = rename(state, "raft")
    assert renamed.mapped == {name: f"flow_net.{name}" for name in state}
    assert not renamed.dropped
    network = Raft()
    network.load_state_dict(state)
    assert {name: value.shape for name, value in network.state_dict().items()} == {
        name: value.shape for name, value in state.items()
    }


def test_biases_that_davss_lacks_are_zero(official: Official) -> None:
    state = official("flow_net")
    biases = [name for name in state if name.startswith(("deconv", "upsample")) and name.endswith("bias")]
    assert len(biases) == 8
    without = {name: value for name, value in state.items() if name not in biases}
    new = prefixed("flow_net.", state)
    completed = complete(rename(without, "flownet-s").state, new, "flownet-s")
    assert set(completed.zeroed) == {f"flow_net.{name}" for name in biases}
    assert not completed.missing
    assert not any(completed.state[name].any() for name in completed.zeroed)
    network = FlowNetS()
    network.load_state_dict({name.removeprefix("flow_net."): value for name, value in completed.state.items()})


def test_the_initialisation_loses_its_prefix_and_its_classifier(official: Official) -> None:
    state = official("initialisation")
    assert detect_kind(state) == "deeplab-init"
    renamed = rename(state, "deeplab-init")
    assert recognise_backbone(renamed.state, "segmenter.segnet") == "resnet101"
    assert sorted(renamed.dropped) == sorted(
        f"Scale.layer5.conv2d_list.{index}.{part}" for index in range(4) for part in ("weight", "bias")
    )
    assert count_classes(renamed.state) is None
    with torch.device("meta"):
        new = prefixed("segmenter.segnet.", DeepLab("resnet101", 15, auxiliary=True).state_dict())
    completed = complete(renamed.state, new, "deeplab-init")
    assert {name.split(".")[2] for name in completed.missing} == {"layer5", "layer6"}
    assert len(completed.missing) == 16
    assert {name.split(".")[-1] for name in completed.zeroed} == {"num_batches_tracked"}
    assert len(completed.zeroed) == 104
    assert len(renamed.mapped) == 640 - 16 - 104


@pytest.mark.parametrize("prefix", ["", "segnet.", "module.", "module.segnet."])
def test_stage_one_is_read_with_every_prefix(prefix: str, official: Official) -> None:
    state = official("deeplab")
    found = contents(prefixed(prefix, state), live=False).state
    assert detect_kind(found) == "stage-one"
    assert rename(found, "stage-one").state == prefixed("segmenter.segnet.", state)  # the very tensors


def test_pixmatch_keeps_the_two_convolutions_that_its_classifiers_use(official: Official) -> None:
    state = official("deeplab")
    renamed = rename(state, "pixmatch")
    assert len(renamed.dropped) == 8
    assert {name.split(".")[2] for name in renamed.dropped} == {"2", "3"}
    completed = complete(renamed.state, prefixed("segmenter.segnet.", state), "pixmatch")
    network = DeepLab("resnet10_slim", 15, auxiliary=True)
    network.load_state_dict({name.removeprefix("segmenter.segnet."): value for name, value in completed.state.items()})
    features = torch.rand(1, 96, 8, 8)
    first, second = list(network.layer6.conv2d_list)[:2]
    torch.testing.assert_close(network.layer6(features), first(features) + second(features))


def test_accel_loses_auxiliary_classifiers_and_what_is_not_its(official: Official) -> None:
    state = official("accel")
    assert detect_kind(state) == "accel"
    extra = prefixed("net_ref.", {"layer5.conv2d_list.0.bias": torch.zeros(15)}) | {"SFM.conv1.0.bias": torch.zeros(24)}
    renamed = rename({**state, **extra}, "accel")
    assert renamed.mapped == {name: f"segmenter.{name}" for name in state}
    assert set(renamed.dropped) == set(extra)
    assert count_classes(renamed.state) == 15


def test_da_vsn_and_tps_bring_one_deeplab_and_the_fusion_but_no_flow_network(official: Official) -> None:
    state = official("shared_accel")
    assert detect_kind(state) == "shared-accel"
    renamed = rename(state, "shared-accel")
    assert not renamed.dropped
    assert renamed.mapped["sf_layer.weight"] == "segmenter.sf_layer.weight"
    assert renamed.mapped["layer5.conv2d_list.3.bias"] == "segmenter.segnet.layer5.conv2d_list.3.bias"
    assert recognise_backbone(renamed.state, "segmenter.segnet") == "resnet10_slim"
    new = {**renamed.state, **prefixed("segmenter.flownet.", official("flow_net"))}
    completed = complete(renamed.state, new, "shared-accel")
    assert len(completed.missing) == 46
    assert not completed.zeroed


def test_sfc_brings_its_teacher_and_its_sfm(official: Official) -> None:
    state = official("sfc")
    assert detect_kind(state) == "sfc"
    mapped = rename(state, "sfc").mapped
    assert mapped["flownet_global.conv1.0.weight"] == "teacher_flow.conv1.0.weight"
    assert mapped["SFM.predict_flow2.bias"] == "sfm.predict_flow2.bias"
    assert mapped["flownet.deconv5.0.bias"] == "segmenter.flownet.deconv5.0.bias"
    assert len(mapped) == len(state)


@pytest.mark.parametrize(
    ("names", "network"),
    [
        (["conv1.0.weight", "predict_flow2.weight", "upsampled_flow6_to_5.weight"], "the full-width FlowNetS"),
    ],
)
def test_networks_that_come_later_are_named(names: list[str], network: str) -> None:
    with pytest.raises(ValueError, match=f"is a checkpoint of {network}.* not supported yet: deeplab-init, .* are$"):
        detect_kind(names)


def test_strange_weights_are_named() -> None:
    with pytest.raises(ValueError, match=r"has weights such as 'fc.weight', as no official checkpoint has"):
        detect_kind(["fc.weight", "fc.bias"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "holds a list, not weights by name"),
        ({}, "holds a dict where weights by name are expected"),
        ({"epoch": 3}, "holds an int under 'epoch', not a tensor"),
        ({"state_dict": [1]}, "holds a list where weights"),
        ({"state_dict": {"a": torch.zeros(1)}, "shadow": None}, "holds a NoneType where weights"),
        ({3: torch.zeros(1)}, "under 3"),
        ({"step": 1, "networks": {}}, "is a checkpoint of flowseg"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "of another kind than plain numbers"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, "of another kind than plain numbers"),
        ({"a": torch.zeros(2, device="meta")}, "of another kind than plain numbers"),
    ],
)
def test_what_is_no_state_dict_is_said(document: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contents(document, live=False)


def test_a_moving_average_is_preferred_to_live_weights() -> None:
    document = {"state_dict": {"module.a": torch.zeros(1)}, "shadow": {"module.a": torch.ones(1)}, "iter": 5}
    assert contents(document, live=False) == ({"a": torch.ones(1)}, True)
    assert contents(document, live=True) == ({"a": torch.zeros(1)}, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("segmenter.segnet.layer4.0.conv2.weight"),
            "from resnet10_slim it differs in layer4.0",
        ),
        (lambda state: state.update({"segmenter.segnet.fc.weight": torch.zeros(1)}), "differs in fc.weight"),
        (lambda state: state.update({"segmenter.segnet.conv1.weight": torch.zeros(24, 1, 7, 7)}), "differs in conv1"),
        (lambda state: state.clear(), "has no segmenter.segnet: is this the right kind"),
    ],
)
def test_other_residual_networks_are_refused(
    change: Callable[[State], object], message: str, official: Official
) -> None:
    state = prefixed("segmenter.segnet.", official("deeplab"))
    assert recognise_backbone(state, "segmenter.segnet") == "resnet10_slim"
    change(state)
    with pytest.raises(ValueError, match=message):
        recognise_backbone(state, "segmenter.segnet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("flow_net.conv2.0.bias"), "is no complete flownet-s: it lacks flow_net.conv2.0.bias:"),
        (lambda state: state.update({"flow_net.a": torch.zeros(1)}), "it has weights no such network has, flow_net.a"),
        (
            lambda state: state.update({"flow_net.conv1.0.bias": torch.zeros(9)}),
            r"flow_net.conv1.0.bias has shape \(9,\), expected is \(24,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Callable[[State], object], message: str, official: Official) -> None:
    state = prefixed("flow_net.", official("flow_net"))
    damaged = dict(state)
    change(damaged)
    with pytest.raises(ValueError, match=message):
        complete(damaged, state, "flownet-s")
