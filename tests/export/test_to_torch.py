"""From run and bundle to program to stream, on the CPU; what only a GPU can show is marked so."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from export.batch_norm_folding import fold_batch_norm
from export.half_precision import in_half_precision
from export.plan_comparison import compare
from export.to_onnx import export_bundle, trained_segmenter
from export.to_torch import main
from export.torch_programs import build_programs
from serving.bundle import Bundle, BundleError, Variant, read_bundle
from serving.engine import Engine as StreamEngine
from serving.engine import open_engine
from serving.plans import TorchKey
from serving.runtimes.torch_runtime import TorchRuntime, lay_out_for_tensor_cores
from tests.export.conftest import SMALL, Exported, call, sentence_of
from training.data.world.render import render_clip
from training.models.video_segmenter import VideoSegmenter
from training.run_directory import Run, load_checkpoint, read_run, save_checkpoint


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def runtime(engines: Path) -> TorchRuntime:
    return TorchRuntime("cpu", engines)


def for_torch(bundle: Bundle, precision: str = "fp32", size: tuple[int, int] = (64, 64)) -> Variant:
    (variant,) = (
        variant
        for variant in bundle.manifest.variants
        if variant.suits("torch") and variant.precision == precision and (variant.height, variant.width) == size
    )
    return variant


def of_one_size(exported: Exported) -> Bundle:
    """With fewer graphs to make programs of."""
    variants = (for_torch(exported.bundle),)
    return exported.bundle.model_copy(
        update={"manifest": exported.bundle.manifest.model_copy(update={"variants": variants})}
    )


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engines: Path, *arguments: object
) -> str:
    """The sentence with which the command stops; no program is there then, nor a part of one."""
    sentence = sentence_of(main, monkeypatch, capsys, *arguments, "--engines", engines)
    assert not engines.exists() or not list(engines.iterdir())
    return sentence


# Tests of what is the same for every form of bundle, and takes long.
ON_ACCEL = pytest.mark.parametrize("exported", ["accel"], indirect=True)


# From run to stream


def test_streams_on_programs_have_the_answers_of_onnx_runtime(
    exported: Exported, runtime: TorchRuntime, engines: Path
) -> None:
    bundle = of_one_size(exported)
    variant = for_torch(bundle)
    built = build_programs(bundle, "fp32", trained_segmenter(exported.run), runtime, engines)
    assert [program.plan.sidecar.graph for program in built] == [
        graph.file for graph in (variant.key, variant.step) if graph.outputs
    ]
    clips = [render_clip(seed, "target", (64, 64), 6).frames for seed in (3, 4, 5)]
    with StreamEngine(bundle, variant, runtime) as engine:
        engine.warm_up()
        streams = [engine.open_stream(key_frame_interval=3) for _ in clips]
        futures = [[stream.submit(frame) for frame in clip] for stream, clip in zip(streams, clips, strict=True)]
        answers = [[future.result().labels for future in own] for own in futures]
        states = [stream.state() for stream in streams]
    with open_engine(bundle.folder, size=(64, 64), runtime="onnxruntime", threads=1) as engine:
        for clip, own, state in zip(clips, answers, states, strict=True):  # each alone: a stream knows of no other
            with engine.open_stream(key_frame_interval=3) as stream:
                expected = [stream.submit(frame).result().labels for frame in clip]
                wanted = stream.state()
            assert np.mean([answer == labels for answer, labels in zip(own, expected, strict=True)]) > 0.9999
            assert state.keys() == wanted.keys()
            for name, array in wanted.items():
                np.testing.assert_allclose(state[name], array, atol=1e-5 * np.abs(array).max())


@ON_ACCEL
def test_the_command_makes_programs_and_keeps_those_that_are_there(
    exported: Exported,
    engines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    precision = "fp16"
    folder = tmp_path / "bundle"
    export_bundle(exported.run, folder, ((64, 64),), "street", "1", ("fp16",))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = (exported.run.folder, folder, "--precision", precision, "--device", "cpu", "--engines", engines)
    for is_cached in (False, True):
        call(main, monkeypatch, *arguments, "--json")
        for told in json.loads(capsys.readouterr().out):
            assert told["cached"] is is_cached
            assert (told["precision"], told["machine"]) == (precision, {"torch": torch.__version__, "device": "cpu"})
            assert Path(told["plan"]).parent == engines
            assert told["comparison"]["label_agreement"] > 0.999
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    bundle = read_bundle(folder)
    comparison = compare(bundle, for_torch(bundle, precision), TorchRuntime("cpu", engines), (1, 2))
    assert comparison.label_agreement > 0.999  # as a server loads them


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_answers_like_onnx_runtime_on_the_cpu(
    exported: Exported, engines: Path, precision: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "bundle"
    export_bundle(exported.run, folder, ((64, 64),), "street", "1", ("fp32", "fp16"))
    bundle = read_bundle(folder)
    runtime = TorchRuntime("cuda", engines)
    build_programs(bundle, precision, trained_segmenter(exported.run), runtime, engines)
    comparison = compare(bundle, for_torch(bundle, precision), runtime, (1, 2, 4, 1))
    assert comparison.label_agreement > {"fp32": 0.9999, "fp16": 0.999}[precision]
    assert "without a CUDA graph" not in caplog.text


# The cache


@ON_ACCEL
def test_another_torch_or_device_makes_it_another(exported: Exported, runtime: TorchRuntime, engines: Path) -> None:
    bundle, segmenter = of_one_size(exported), trained_segmenter(exported.run)
    variant = for_torch(bundle)
    here = runtime.machine
    for machine in (here, here.model_copy(update={"torch": "2.0.0", "device": "cuda"})):
        runtime.machine = machine
        built = build_programs(bundle, "fp32", segmenter, runtime, engines)
        for program, graph in zip(reversed(built), (variant.step, variant.key), strict=False):
            assert not program.is_cached
            key = TorchKey(onnx_sha256=graph.sha256, machine=machine, precision="fp32")
            assert program.plan.sidecar.key == key
            assert program.plan.path.name == f"{key.digest()}.pt2"
    assert len(list(engines.iterdir())) == 2 * 2 * len(built)


@ON_ACCEL
def test_a_damaged_program_is_made_again(exported: Exported, runtime: TorchRuntime, engines: Path) -> None:
    bundle, segmenter = of_one_size(exported), trained_segmenter(exported.run)
    *_, step = build_programs(bundle, "fp32", segmenter, runtime, engines)
    step.plan.path.write_bytes(b"damaged")
    *others, again = build_programs(bundle, "fp32", segmenter, runtime, engines)
    assert not again.is_cached
    assert all(program.is_cached for program in others)
    runtime.load(bundle.path(for_torch(bundle).step))


@ON_ACCEL
def test_a_folder_that_others_can_write_to_is_refused(exported: Exported, runtime: TorchRuntime, engines: Path) -> None:
    engines.mkdir()
    engines.chmod(0o777)
    with pytest.raises(BundleError, match="other users can put plans into"):
        build_programs(exported.bundle, "fp32", trained_segmenter(exported.run), runtime, engines)
    assert not list(engines.iterdir())


# What a user can get wrong


@ON_ACCEL
def test_a_run_that_is_not_the_bundles_is_refused(
    exported: Exported,
    per_frame_run: Run,
    engines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once with other weights, once with another network."""
    folder = shutil.copytree(exported.run.folder, tmp_path / "changed")
    checkpoint = load_checkpoint(folder / "last.pt")
    generator = torch.Generator().manual_seed(0)
    for weight in checkpoint["networks"]["segmenter"].values():
        if weight.dim() == 4:
            weight += weight.std() * torch.randn(weight.shape, generator=generator)
    save_checkpoint(folder / "last.pt", checkpoint)
    assert read_run(folder).is_finished()
    sentence = refusal(monkeypatch, capsys, engines, folder, exported.bundle.folder, "--device", "cpu")
    assert sentence.startswith("the torch programs of step.fp32.gpu.64x64.onnx do not answer like the graphs on ONNX")
    assert sentence.endswith("; they were not kept, name the run that the bundle was exported from")
    if for_torch(exported.bundle).state:
        sentence = refusal(
            monkeypatch, capsys, engines, per_frame_run.folder, exported.bundle.folder, "--device", "cpu"
        )
        assert sentence.startswith("the run's network does not have the inputs, outputs and state of ")
        assert sentence.endswith(".onnx: name the run that the bundle was exported from")


@ON_ACCEL
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--precision", "fp8"), "there is no precision 'fp8': choose one of fp32, fp16, int8"),
        (
            ("--precision", "int8"),
            "has no int8 graphs for torch, only fp32: export some with 'python export/to_onnx.py",
        ),
        (("--device", "abacus"), "'abacus' is no device for torch: choose cpu, cuda or cuda:N"),
        (("--device", "cuda"), f"no GPU answers torch {torch.__version__}: check the NVIDIA driver, or choose cpu"),
    ],
)
def test_what_a_user_got_wrong_is_told_in_one_sentence(
    exported: Exported,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    if "--device" not in arguments:
        arguments = (*arguments, "--device", "cpu")
    assert sentence in refusal(monkeypatch, capsys, engines, exported.run.folder, exported.bundle.folder, *arguments)


@ON_ACCEL
def test_a_run_or_bundle_that_is_not_there_is_told(
    exported: Exported,
    engines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = tmp_path / "absent"
    on_cpu = ("--device", "cpu")
    assert "there is no run at" in refusal(monkeypatch, capsys, engines, absent, exported.bundle.folder, *on_cpu)
    assert "there is no bundle at" in refusal(monkeypatch, capsys, engines, exported.run.folder, absent, *on_cpu)


@ON_ACCEL
def test_a_network_that_cannot_be_run_leaves_nothing(
    exported: Exported, runtime: TorchRuntime, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.torch_programs.serialized", lambda traceable: b"no program")
    with pytest.raises(
        BundleError, match=r"cannot load the program of .*: build it again with 'python export/to_torch"
    ):
        build_programs(of_one_size(exported), "fp32", trained_segmenter(exported.run), runtime, engines)
    assert not list(engines.iterdir())


# Programs


class Layers(nn.Module):
    """Convolutions of which BatchNorm can be folded into the first two alone."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 4, 3, bias=False)
        self.strided = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.shared = nn.Conv2d(4, 4, 1)
        self.seen = nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[1](self.strided(self.norms[0](self.plain(x)).relu()))
        x = self.norms[3](self.shared(self.norms[2](self.shared(x))))
        seen = self.seen(x)
        return torch.cat([seen, self.norms[4](seen)], 1)


def test_batch_norm_is_folded_where_nobody_else_sees_the_convolution_or_its_weights() -> None:
    torch.manual_seed(0)
    layers = Layers()
    with torch.no_grad():
        for norm in layers.norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert isinstance(tensor, torch.Tensor)
                tensor.copy_(torch.rand(4) + 0.5)
    layers.eval()
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    x = torch.rand(2, 3, 8, 8)
    batch = Dim("batch", min=1)
    program = torch.export.export(layers, (x,), dynamic_shapes=({0: batch},)).module(check_guards=False)
    fold_batch_norm(program)
    left = [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    assert len(left) == 3
    torch.testing.assert_close(program(x), layers(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layers.state_dict().items())


@ON_ACCEL
def test_a_program_holds_no_weights_that_only_the_other_graph_needs(
    exported: Exported, runtime: TorchRuntime, engines: Path
) -> None:
    variant = for_torch(exported.bundle)
    if not variant.state:
        pytest.skip("it has one graph")
    segmenter = trained_segmenter(exported.run)
    built = build_programs(of_one_size(exported), "fp32", segmenter, runtime, engines)
    num_bytes = sum(exported.bundle.path(graph).stat().st_size for graph in (variant.key, variant.step))
    assert sum(program.plan.path.stat().st_size for program in built) < 1.5 * num_bytes


@pytest.mark.parametrize("name", SMALL)
def test_channels_last_gives_the_same_answers(name: str) -> None:
    torch.manual_seed(0)
    segmenter: VideoSegmenter = in_half_precision(SMALL[name].build(5).eval())
    frames = torch.rand(2, 2, 3, 64, 64)
    with torch.no_grad():
        expected = segmenter(frames)
        lay_out_for_tensor_cores(segmenter)
        torch.testing.assert_close(segmenter(frames), expected, rtol=0, atol=2e-2 * float(expected.abs().max()))
