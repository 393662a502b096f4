import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export import to_onnx
from serving.bundle import read_bundle
from tests.training.conftest import TINY_FLOW, Train
from training import convert as command
from training import evaluate
from training.command_line import Machine
from training.convert import Conversion, Options, convert
from training.data.world.dataset import World
from training.methods.flow_supervision import FlowSupervision
from training.methods.sfc import Sfc
from training.methods.stage import StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.deeplab import DeepLab
from training.models.flownet_s import FlowNetSConfig
from training.models.official_checkpoints import KindName
from training.models.per_frame import PerFrameConfig
from training.models.raft import RaftConfig
from training.models.shared_accel import SharedAccelConfig
from training.models.video_segmenter import SegmenterConfig
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes.benchmarks import FLYING_CHAIRS, IMAGENET
from training.run_directory import RunError, read_run, start_weights
from training.train import train_with_prerequisites
from training.validation import FlowValidation

State = dict[str, Tensor]
Official = Callable[..., State]
Save = Callable[..., Path]


class Case(NamedTuple):
    """A checkpoint and what should become of it."""

    make: Callable[[Official], object]  # what the file holds
    kind: KindName
    method: type
    weights: Callable[[object], State]  # official weights in it, by name


def whole(document: object) -> State:
    assert isinstance(document, dict)
    return document


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def pixmatch(official: Official) -> dict[str, object]:
    return {
        "epoch": 3,
        "iter": 90000,
        "state_dict": prefixed("module.", official("deeplab")),
        "shadow": prefixed("module.", official("deeplab")),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "best_MIou": np.float64(0.51),
    }


def without_module(state: State) -> State:
    return {name.removeprefix("module."): value for name, value in state.items()}


def average(document: object) -> State:
    assert isinstance(document, dict)
    return without_module(document["shadow"])


CASES: dict[str, Case] = {
    "initialisation": Case(
        # slim: ResNet-101 has a test of its own
        lambda official: prefixed("Scale.", without_main_classifier(official("deeplab", counters=False, classes=21))),
        "deeplab-init", Supervised, whole,
    ),
    "flow": Case(lambda official: official("flow_net"), "flownet-s", FlowSupervision, whole),
    "raft": Case(lambda official: prefixed("module.", official("raft")), "raft", FlowSupervision,
        lambda document: without_module(whole(document)),
    ),
    "davss-flow": Case(lambda official: without_biases(official("flow_net")), "flownet-s", FlowSupervision, whole),
    "source-only": Case(
        lambda official: prefixed("segnet.", official("deeplab")), "stage-one", Supervised, whole
    ),
    "sfc-one": Case(lambda official: official("deeplab"), "stage-one", Supervised, whole),
    "single-level": Case(
        lambda official: official("deeplab", auxiliary=False), "stage-one", Supervised, whole
    ),
    "pixmatch": Case(pixmatch, "pixmatch", Supervised, average),
    "accel": Case(lambda official: official("accel"), "accel", Supervised, whole),
    "da-vsn": Case(lambda official: official("shared_accel"), "shared-accel", Supervised, whole),
    "tps-of-synthia": Case(
        lambda official: prefixed("module.", official("shared_accel", counters=False, classes=12)), "shared-accel",
        Supervised, lambda document: without_module(whole(document)),
    ),
    "sfc": Case(lambda official: official("sfc"), "sfc", Sfc, whole),
}  # fmt: skip


def without_main_classifier(state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith("layer6")}


def without_biases(state: State) -> State:
    """As DAVSS has it."""
    return {
        name: value
        for name, value in state.items()
        if not (name.startswith(("deconv", "upsample")) and name.endswith("bias"))
    }


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CASES)
def test_every_weight_lands_where_it_must(
    name: str, is_zip: bool, official: Official, save: Save, tmp_path: Path
) -> None:
    case = CASES[name]
    document = case.make(official)
    conversion = convert(Options(save(document, is_zip), tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert run.is_finished()
    assert isinstance(run.recipe.method, case.method)
    found = nn.ModuleDict(run.networks()).state_dict()
    weights = case.weights(document)
    for theirs, ours in conversion.mapped.items():
        assert torch.equal(found[ours], weights[theirs]), theirs
    assert conversion.kind == case.kind
    assert not any(found[ours].any() for ours in conversion.zeroed)
    assert {*conversion.mapped, *conversion.dropped} == set(weights)
    assert {*conversion.mapped.values(), *conversion.zeroed, *conversion.missing} == set(found)
    assert bool(conversion.missing) == (name in ("initialisation", "da-vsn", "tps-of-synthia"))
    assert sorted(path.name for path in run.folder.iterdir()) == ["last.pt", "run.json"]


def test_the_run_names_its_file(official: Official, save: Save, tmp_path: Path) -> None:
    path = save(official("flow_net"))
    conversion = convert(Options(path, tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert run.name == "official-flownet-s"
    assert run.provenance["checkpoint"] == "official.pth"
    assert run.provenance["checkpoint_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == conversion.sha256
    assert {"commit", "versions"} <= set(run.provenance)


def test_the_resnet101_of_the_initialisation_gets_new_classifiers(
    official: Official, save: Save, tmp_path: Path
) -> None:
    state = official("initialisation")
    conversion = convert(Options(save(state, is_zip=False), tmp_path / "run", classes="synthia", seed=3))
    assert {name.split(".")[2] for name in conversion.missing} == {"layer5", "layer6"}
    run = read_run(tmp_path / "run")
    assert isinstance(run.recipe.method, Supervised)
    assert run.recipe.method.stage.segmenter == PerFrameConfig("resnet101", auxiliary=True)
    network = run.networks()["segmenter"]
    assert torch.equal(network.get_parameter("segnet.layer3.22.conv2.weight"), state["Scale.layer3.22.conv2.weight"])
    classifier = network.get_parameter("segnet.layer6.conv2d_list.0.weight")
    assert classifier.shape == (12, 2048, 3, 3)
    assert classifier.std().item() == pytest.approx(0.01, rel=0.05)


def test_new_classifiers_come_from_the_seed(official: Official, save: Save, tmp_path: Path) -> None:
    path = save(CASES["initialisation"].make(official))
    drawn = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert(Options(path, tmp_path / folder, seed=seed))
        network = read_run(tmp_path / folder).networks()["segmenter"]
        drawn.append(network.get_parameter("segnet.layer6.conv2d_list.2.weight"))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_converted_network_gives_the_scores_of_the_official_one(
    official: Official, save: Save, tmp_path: Path
) -> None:
    state = official("deeplab")
    segnet = DeepLab("resnet10_slim", 15, auxiliary=True).eval()
    segnet.load_state_dict(state)
    convert(Options(save(state), tmp_path / "run"))
    frame = torch.rand(1, 1, 3, 32, 64)
    segmenter = read_run(tmp_path / "run").networks()["segmenter"]
    with torch.no_grad():
        expected = nn.functional.interpolate(segnet(frame[:, 0]), scale_factor=8.0, mode="bilinear")
        assert torch.equal(segmenter(frame), expected)


def test_live_weights_are_taken_on_request(official: Official, save: Save, tmp_path: Path) -> None:
    document = pixmatch(official)
    convert(Options(save(document), tmp_path / "run", live=True))
    live = whole(document["state_dict"])
    network = read_run(tmp_path / "run").networks()["segmenter"]
    assert torch.equal(network.get_parameter("segnet.conv1.weight"), live["module.conv1.weight"])


def test_a_kind_can_be_chosen(official: Official, save: Save, tmp_path: Path) -> None:
    conversion = convert(Options(save(official("sfc")), tmp_path / "accel", kind="accel"))
    assert {name.split(".")[0] for name in conversion.dropped} == {"flownet_global", "SFM"}
    assert len(conversion.dropped) == 2 * 46
    # All four convolutions of a classifier, where they were trained in repaired code.
    assert not convert(Options(save(pixmatch(official)), tmp_path / "pixmatch", kind="stage-one")).dropped


def test_classes_are_counted(official: Official, save: Save, tmp_path: Path) -> None:
    convert(Options(save(official("accel", classes=12)), tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert run.recipe.source.label_space.name == run.recipe.validation.data.label_space.name == "synthia-to-cityscapes"


@pytest.mark.parametrize("name", ["da-vsn", "tps-of-synthia"])
def test_da_vsn_and_tps_take_the_flow_network_of_a_run_with_its_width(
    name: str, official: Official, save: Save, tmp_path: Path, train_tiny: Train
) -> None:
    method = FlowSupervision(flow_net=FlowNetSConfig(width=0.25))
    flow = train_tiny("flow", method=method, source=TINY_FLOW, validation=FlowValidation(data=TINY_FLOW), steps=1)
    path = save(CASES[name].make(official))
    conversion = convert(Options(path, tmp_path / "run", flow_net=f"{flow.folder}:flow_net"))
    run = read_run(tmp_path / "run")
    assert isinstance(run.recipe.method, Supervised)
    expected: SegmenterConfig = SharedAccelConfig("resnet10_slim", FlowNetSConfig(width=0.25))
    assert run.recipe.method.stage.segmenter == expected
    segmenter = run.networks()["segmenter"].get_submodule("flownet").state_dict()
    trained = flow.networks()["flow_net"].state_dict()
    assert all(torch.equal(segmenter[part], value) for part, value in trained.items())
    assert set(conversion.filled) == {f"segmenter.flownet.{part}" for part in trained}
    assert not conversion.missing
    assert run.provenance["flow_net"] == f"{flow.folder}:flow_net"


def test_the_flow_network_of_a_segmenter_will_do(official: Official, save: Save, tmp_path: Path) -> None:
    state = official("sfc")
    convert(Options(save(state), tmp_path / "sfc"))
    path = save(official("shared_accel"))
    convert(Options(path, tmp_path / "run", flow_net=f"{tmp_path / 'sfc'}:segmenter.flownet"))
    weight = read_run(tmp_path / "run").networks()["segmenter"].get_parameter("flownet.conv6.0.weight")
    assert torch.equal(weight, state["flownet.conv6.0.weight"])


@pytest.mark.parametrize(
    ("flow_net", "message"),
    [
        ("flying-chairs", "'flying-chairs' does not read RUN:NETWORK.PART: name a flow network as "),
        ("none:flow_net", "there is no run at none: train one"),
        ("{flow}:segmenter", "flow has no flow network 'segmenter': it has flow_net"),
        ("{per_frame}:segmenter.segnet", "per_frame has no flow network 'segmenter.segnet': it has none at all"),
        ("{unfinished}:flow_net", "unfinished is not finished: go on with its training, or take another run's"),
    ],
)
def test_a_flow_network_that_is_not_there_is_named(
    flow_net: str, message: str, official: Official, save: Save, tmp_path: Path
) -> None:
    runs = {name: tmp_path / name for name in ("flow", "per_frame", "unfinished")}
    convert(Options(save(official("deeplab")), runs["per_frame"]))
    for name in ("flow", "unfinished"):
        convert(Options(save(official("flow_net")), runs[name]))
    (runs["unfinished"] / "last.pt").unlink()
    path = save(official("shared_accel"))
    with pytest.raises(ValueError, match=message):
        convert(Options(path, tmp_path / "run", flow_net=flow_net.format(**runs)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["source-only", "accel", "flow"])
def test_what_has_no_place_for_a_flow_network_takes_none(
    name: str, official: Official, save: Save, tmp_path: Path
) -> None:
    convert(Options(save(official("flow_net")), tmp_path / "flow"))
    path = save(CASES[name].make(official))
    with pytest.raises(ValueError, match=f"DA-VSN or TPS but {CASES[name].kind}, which takes .*: leave out --flow-net"):
        convert(Options(path, tmp_path / "run", flow_net=f"{tmp_path / 'flow'}:flow_net"))


def test_recipes_start_from_converted_runs(official: Official, save: Save, tmp_path: Path, tiny_recipe: Recipe) -> None:
    stage_one, flow = official("deeplab"), official("flow_net")
    convert(Options(save(stage_one), tmp_path / "official-one"))
    convert(Options(save(flow), tmp_path / "official-flow"))
    recipe = replace(
        tiny_recipe,
        method=Supervised(StageTwo(AccelConfig(reference="resnet10_slim", update="resnet10_slim"))),
        start_from={
            "segmenter.net_ref": "official-one:segmenter.segnet",
            "segmenter.net_update": "official-one:segmenter.segnet",
            "segmenter.flownet": "official-flow:flow_net",
        },
    )
    networks = recipe.method.networks(15)
    start_weights(networks, recipe, lambda name: read_run(tmp_path / name))
    state = networks["segmenter"].state_dict()
    assert torch.equal(state["net_ref.layer6.conv2d_list.3.bias"], stage_one["layer6.conv2d_list.3.bias"])
    assert torch.equal(state["net_update.bn1.running_var"], stage_one["bn1.running_var"])
    assert torch.equal(state["flownet.deconv2.0.weight"], flow["deconv2.0.weight"])


def test_accel_starts_from_a_converted_raft(
    official: Official, save: Save, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    state = official("raft")
    convert(Options(save(prefixed("module.", state)), tmp_path / "official-raft"))
    accel = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=RaftConfig(iterations=2))
    recipe = replace(
        tiny_recipe,
        method=Supervised(StageTwo(accel)),
        start_from={"segmenter.flownet": "official-raft:flow_net"},  # however many iterations
    )
    networks = recipe.method.networks(15)
    start_weights(networks, recipe, lambda name: read_run(tmp_path / name))
    started = networks["segmenter"].state_dict()
    assert torch.equal(started["flownet.cnet.layer2.0.norm3.running_var"], state["cnet.layer2.0.norm3.running_var"])
    assert torch.equal(started["flownet.update_block.gru.convq2.bias"], state["update_block.gru.convq2.bias"])


def test_the_recipes_of_the_paper_start_from_converted_files(official: Official, save: Save, tmp_path: Path) -> None:
    chairs, initialisation = official("flow_net"), official("initialisation")
    convert(Options(save(chairs), tmp_path / FLYING_CHAIRS))
    convert(Options(save(initialisation), tmp_path / IMAGENET))
    for name, needed in (("viper-accel-sfc", FLYING_CHAIRS), ("synthia-sfc-one", IMAGENET)):
        recipe = RECIPES[name].recipe
        origins = {part: origin for part, origin in recipe.start_from.items() if origin.startswith(f"{needed}:")}
        assert origins
        networks = recipe.method.networks(recipe.source.label_space.num_classes)
        start_weights(networks, replace(recipe, start_from=origins), lambda run: read_run(tmp_path / run))
        if needed == FLYING_CHAIRS:
            weight = networks["segmenter"].get_parameter("flownet.conv6.0.weight")
            assert torch.equal(weight, chairs["conv6.0.weight"])
        else:
            weight = networks["segmenter"].get_parameter("segnet.layer1.0.conv1.weight")
            assert torch.equal(weight, initialisation["Scale.layer1.0.conv1.weight"])


def test_training_takes_a_converted_run_for_finished(
    official: Official, save: Save, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    convert(Options(save(official("deeplab")), tmp_path / "official-one"))
    recipe = replace(tiny_recipe, steps=1, start_from={"segmenter": "official-one:segmenter"})
    assert train_with_prerequisites("mine", recipe, tmp_path / "mine", Machine("cpu")).is_finished()


def test_a_converted_run_is_evaluated_and_exported(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = DeepLab("resnet10_slim", 15, auxiliary=True)  # scores of a usual size, which export's check relies on
    convert(Options(save(prefixed("segnet.", network.state_dict())), tmp_path / "run"))
    monkeypatch.setattr(evaluate, "World", lambda **_: World(size=(64, 64), num_clips=2))
    monkeypatch.setattr(sys, "argv", ["evaluate", str(tmp_path / "run"), "--dataset", "world", "--json"])
    evaluate.main()
    assert json.loads(capsys.readouterr().out)["dataset"] == "world"
    monkeypatch.setattr(
        sys, "argv", ["to_onnx", str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--size", "64x64"]
    )
    to_onnx.main()
    trained = read_bundle(tmp_path / "bundle").manifest.provenance["trained"]
    assert isinstance(trained, dict)
    assert trained["checkpoint"] == "official.pth"


BAD: dict[str, tuple[Callable[[Official], object], dict[str, object], str]] = {
    "other-classes": (
        lambda o: o("deeplab", classes=19),
        {},
        "tells 19 classes apart, neither the 15 of viper nor the",
    ),
    "other-benchmark": (lambda o: o("deeplab"), {"classes": "synthia"}, "15 classes apart, as viper does: leave out"),
    "two-numbers-of-classes": (
        lambda o: o("accel") | prefixed("net_update.", o("deeplab", auxiliary=False, classes=12)),
        {},
        "net_update.layer6.conv2d_list.0.weight has shape",
    ),
    "other-backbone": (
        lambda o: o("deeplab") | {"layer1.1.conv1.weight": torch.zeros(24, 24, 3, 3)},
        {},
        "none of resnet101, .* from resnet10_slim it differs in layer1.1.conv1.weight",
    ),
    "wide-flow": (
        lambda o: o("flow_net") | {"conv1.0.weight": torch.zeros(64, 6, 7, 7)},
        {},
        "has shape .64, 6, 7, 7.",
    ),
    "half-a-flow": (
        lambda o: dict(list(o("flow_net").items())[::2]) | {"predict_flow2.weight": torch.zeros(2, 74, 3, 3)},
        {},
        "it lacks flow_net.conv1.0.bias and",
    ),
    "half-of-sfc": (lambda o: {**o("accel"), "SFM.conv1.0.bias": torch.zeros(24)}, {}, "it lacks teacher_flow"),
    "other-kind": (lambda o: o("flow_net"), {"kind": "accel"}, "has no segmenter.net_ref: is this the right kind"),
    "fusion-of-other-classes": (
        lambda o: {**o("shared_accel"), "sf_layer.weight": torch.zeros(12, 24, 1, 1)},
        {},
        "is no shared-accel as the official one: segmenter.sf_layer.weight has shape .12, 24, 1, 1., expected is .15,",
    ),
    "half-of-da-vsn": (
        lambda o: {**o("deeplab", auxiliary=False), "sf_layer.weight": torch.zeros(15, 30, 1, 1)},
        {},
        "is no complete shared-accel: it lacks segmenter.segnet.layer5",
    ),
    "raft-small": (
        lambda o: {"module.fnet.conv1.weight": torch.zeros(32, 3, 7, 7)},
        {},
        "is no complete raft: it lacks",
    ),
    "classes-of-flow": (lambda o: o("flow_net"), {"classes": "viper"}, "tells no classes apart: leave out --classes"),
    "classes-of-raft": (lambda o: o("raft"), {"classes": "viper"}, "tells no classes apart: leave out --classes"),
    "live-of-one": (lambda o: o("deeplab"), {"live": True}, "holds no moving average of weights: leave out --live"),
    "seed-of-whole": (lambda o: o("deeplab"), {"seed": 1}, "lacks no weight that would be drawn: leave out --seed"),
    "a-list": (lambda o: [1.0], {}, "holds a list, not weights by name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    name: str, official: Official, save: Save, tmp_path: Path
) -> None:
    make, options, message = BAD[name]
    with pytest.raises(ValueError, match=message) as raised:
        convert(replace(Options(save(make(official)), tmp_path / "run"), **options))  # type: ignore[arg-type]  # by name
    assert str(raised.value).startswith(f"{tmp_path / 'official.pth'} ")
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


def test_an_existing_or_unwritable_place_is_named(official: Official, save: Save, tmp_path: Path) -> None:
    path = save(official("deeplab"))
    with pytest.raises(RunError, match="exists: choose another --out or remove it"):
        convert(Options(path, tmp_path))
    for folder in (path / "run", tmp_path / ("x" * 300)):
        with pytest.raises(RunError, match=r"cannot be written \(.+\): choose another --out"):
            convert(Options(path, folder))
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


def test_a_full_disk_leaves_nothing(
    official: Official, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(official("deeplab"))

    def failing(value: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(RunError, match=r"cannot be written \(.*is the disk full\?\): choose another --out"):
        convert(Options(path, tmp_path / "run"))
    assert [path.name for path in tmp_path.iterdir()] == ["official.pth"]


def test_the_command_prints_what_became_of_the_weights(
    official: Official, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(CASES["initialisation"].make(official))
    monkeypatch.setattr(sys, "argv", ["convert", str(path), "--out", str(tmp_path / "run")])
    command.main()
    shown = capsys.readouterr()
    assert not shown.out
    lines = [" ".join(line.replace("│", " ").split()) for line in shown.err.splitlines()]
    assert "Scale.layer5 8 dropped: no place here" in lines
    assert "segmenter.segnet.layer6 8 newly drawn: not in the file" in lines

    monkeypatch.setattr(sys, "argv", ["convert", str(path), "--out", str(tmp_path / "json"), "--json"])
    command.main()
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {field.name for field in fields(Conversion)}
    assert printed["mapped"]["Scale.conv1.weight"] == "segmenter.segnet.conv1.weight"
    assert len(printed["missing"]) == 16


def test_the_command_says_how_pixmatch_differs(
    official: Official, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", str(save(pixmatch(official))), "--out", str(tmp_path / "run")])
    command.main()
    assert any("ceil_mode" in message for message in caplog.messages)


def test_the_command_says_what_a_random_flow_network_means(
    official: Official, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    convert(Options(save(official("flow_net")), tmp_path / "flow"))
    path = save(official("shared_accel"))
    for out, *options in (("drawn",), ("given", "--flow-net", f"{tmp_path / 'flow'}:flow_net")):
        caplog.clear()
        monkeypatch.setattr(sys, "argv", ["convert", str(path), "--out", str(tmp_path / out), *options])
        command.main()
        assert any("FlowNet2" in message for message in caplog.messages)
        assert any("--flow-net runs/" in message for message in caplog.messages) == (not options)


def test_the_command_ends_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", str(tmp_path / "none.pth"), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith("(No such file or directory): give the path of a checkpoint file\n")
