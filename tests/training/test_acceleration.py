"""Faster features: on the networks as the trainer changes them, with the methods as they are."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.conftest import TINY, no_prerequisites
from training.acceleration import accelerate, require_compiler
from training.command_line import Machine
from training.data.clip import Clip, LabelledClip
from training.data.world.dataset import World
from training.methods import losses
from training.methods.method import Method
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.models.accel import AccelConfig
from training.models.deeplab import DeepLab, trunk
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.recipe import Recipe
from training.run_directory import load_checkpoint, read_run
from training.trainer import train
from training.validation import SfmValidation

FLOW_NET = FlowNetSConfig(width=0.25)
STAGE_ONE = Sfc(StageOne(PerFrameConfig(backbone="resnet10_slim")), teacher_flow=FLOW_NET)
STAGE_TWO = Sfc(
    StageTwo(AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FLOW_NET)),
    teacher_flow=FLOW_NET,
    flow_weight=0.001,
)
ROOT = Path(__file__).parents[2]
Accelerate = Callable[[nn.Module], object]


@pytest.fixture(scope="module")
def clips() -> tuple[LabelledClip, Clip]:
    source = World(look="source", size=(64, 64), num_clips=1, num_frames=2).open()[0]
    target = World(look="mid", size=(64, 64), num_clips=1, num_frames=3).open()[0]
    return LabelledClip(*(tensor[None] for tensor in source)), Clip(target.frames[None])


def gradients(
    method: Method[Any], clips: tuple[LabelledClip, Clip], change: Accelerate
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Losses of one step and the gradients of the segmenter, on weights that are always the same."""
    torch.manual_seed(0)
    networks = method.networks(15)
    method.optimizers(networks)
    for name in ("teacher_flow", "sfm"):
        networks[name].requires_grad_(False).eval()
    change(networks["segmenter"])
    (update,) = method.updates(networks, *clips)
    torch.autograd.backward(torch.stack(list(update.losses.values())).sum())
    of_parameters = networks["segmenter"].named_parameters()
    found = {name: parameter.grad for name, parameter in of_parameters if parameter.grad is not None}
    return {name: loss.item() for name, loss in update.losses.items()}, found


def to_bfloat16(network: nn.Module) -> None:
    assert accelerate(network, "bf16", is_compiled=False) > 0


@pytest.mark.parametrize("method", [STAGE_ONE, STAGE_TWO], ids=["one", "two"])
def test_bfloat16_changes_losses_and_gradients_by_rounding(method: Sfc, clips: tuple[LabelledClip, Clip]) -> None:
    gentle = replace(method, softmax_scale=1.0)  # the paper's 100 magnifies rounding of any kind
    exact_losses, exact = gradients(gentle, clips, lambda network: None)
    rough_losses, rough = gradients(gentle, clips, to_bfloat16)
    assert rough_losses == pytest.approx(exact_losses, rel=0.01)
    assert rough_losses != exact_losses
    assert rough.keys() == exact.keys()
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    difference = sum(float((rough[name] - gradient).square().sum()) for name, gradient in exact.items())
    # Of random weights, a fifth of the gradient is rounding: no reason to trust a sign, and yet the same direction.
    assert difference < 0.25**2 * sum(float(gradient.square().sum()) for gradient in exact.values())


@pytest.mark.parametrize("method", [STAGE_ONE, STAGE_TWO], ids=["one", "two"])
def test_what_lies_behind_the_features_never_sees_bfloat16(
    method: Sfc, clips: tuple[LabelledClip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_softmax: list[torch.dtype] = []
    of_features: list[torch.dtype] = []
    real_softmax = losses.scaled_softmax

    def watching_softmax(scores: Tensor, scale: float) -> Tensor:
        of_softmax.append(scores.dtype)
        assert not torch.is_autocast_enabled("cpu")
        return real_softmax(scores, scale)

    def watching_features(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        of_features.append(output.dtype)

    def change(network: nn.Module) -> None:
        to_bfloat16(network)
        for name, module in network.named_modules():
            if name.endswith("layer4"):
                module.register_forward_hook(watching_features)
            elif "layer5" in name or "layer6" in name or "flownet" in name or name == "merge":
                module.register_forward_hook(require_single)

    def require_single(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert {tensor.dtype for tensor in (*inputs, output)} == {torch.float32}

    monkeypatch.setattr(losses, "scaled_softmax", watching_softmax)
    gradients(method, clips, change)
    assert set(of_softmax) == {torch.float32}
    assert set(of_features) == {torch.bfloat16}


def test_in_evaluation_features_are_as_exact_as_ever() -> None:
    frame = torch.rand(1, 3, 64, 64)
    network = DeepLab("resnet10_slim", 4, auxiliary=True)
    network.eval()
    expected = network.features(frame)[1]
    accelerate(network, "bf16", is_compiled=False)
    assert torch.equal(network.features(frame)[1], expected)
    network.train()
    assert not torch.equal(network.features(frame)[1], trunk(network, frame)[1])


def test_compiled_features_give_the_same_losses_and_gradients(
    clips: tuple[LabelledClip, Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch's graphs run eagerly: the compiler proper is the next test's."""
    real_compile, num_graphs = torch.compile, 0

    def eager(graph: "torch.fx.GraphModule", inputs: list[Tensor]) -> Callable[..., object]:
        nonlocal num_graphs
        num_graphs += 1
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function, **options: real_compile(function, backend=eager, **options))
    exact_losses, exact = gradients(STAGE_ONE, clips, lambda network: None)
    names = set(STAGE_ONE.networks(15)["segmenter"].state_dict())

    def change(network: nn.Module) -> None:
        assert accelerate(network, "fp32", is_compiled=True) == 1
        assert set(network.state_dict()) == names

    same_losses, same = gradients(STAGE_ONE, clips, change)
    assert num_graphs >= 2  # with and without gradients
    assert same_losses == exact_losses
    assert all(torch.equal(same[name], gradient) for name, gradient in exact.items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="on a CPU torch compiles with g++, which is not there")
def test_a_compiled_training_ends_with_the_usual_weights(tmp_path: Path) -> None:
    """In processes of their own: importing the compiler warns of torch's own past."""
    command = (
        sys.executable, "-m", "training.train", "demo-source-only-one", "--device", "cpu", "--steps", "2",
        "--source-batch", "1", "--source.num-clips", "2", "--source.size", "32", "64", "--target.num-clips", "2",
        "--validation.data.num-clips", "1", "--validation.data.size", "32", "64",
    )  # fmt: skip
    for name, option in (("eager", "--no-compile"), ("compiled", "--compile")):
        subprocess.run([*command, option, "--out", tmp_path / name], cwd=ROOT, check=True, capture_output=True)
    eager, compiled = (
        load_checkpoint(tmp_path / name / "last.pt")["networks"]["segmenter"] for name in ("eager", "compiled")
    )
    assert eager.keys() == compiled.keys()
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-4)


def test_a_compiler_that_does_not_work_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("no C++ compiler\nmany lines")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        ValueError, match=r"^torch.compile does not work here \(no C\+\+ compiler\): leave out --compile$"
    ):
        require_compiler(torch.device("cpu"))


def test_a_run_in_bfloat16_has_the_usual_checkpoint_and_says_so(tiny_recipe: Recipe, tmp_path: Path) -> None:
    for machine in (Machine("cpu"), Machine("cpu", precision="bf16")):
        train("tiny", replace(tiny_recipe, steps=2), tmp_path / machine.precision, no_prerequisites, machine)
    single, mixed = (load_checkpoint(tmp_path / name / "last.pt")["networks"]["segmenter"] for name in ("fp32", "bf16"))
    assert {name: each.dtype for name, each in single.items()} == {name: each.dtype for name, each in mixed.items()}
    assert not torch.equal(single["segnet.conv1.weight"], mixed["segnet.conv1.weight"])
    assert read_run(tmp_path / "bf16").provenance["precision"] == "bf16"


def test_options_that_change_nothing_are_told(
    tiny_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(
        tiny_recipe,
        method=SfmPretraining(flow_net=FLOW_NET),
        validation=SfmValidation(data=replace(TINY, split="val", num_clips=2)),
        steps=1,
    )
    with caplog.at_level("INFO"):
        train("tiny", recipe, tmp_path / "run", no_prerequisites, Machine("cpu", precision="bf16"))
    assert "tiny trains no backbone: --precision and --compile change nothing" in caplog.text
