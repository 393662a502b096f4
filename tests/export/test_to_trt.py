"""From bundle to engine to stream on a fake GPU; what is real is everything but TensorRT and the GPU."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from export.plan_building import Engine
from export.plan_comparison import EngineError, compare
from export.tensorrt_engines import BuildOptions, build_engines
from export.to_trt import main, parse_batches, parse_memory
from serving.bundle import Bundle, BundleError, Variant, file_sha256, read_bundle, write_manifest
from serving.engine import Engine as StreamEngine
from serving.engine import open_engine
from serving.plans import Sidecar, TensorRTKey
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.tensorrt_runtime import TensorRTRuntime
from tests.export.conftest import call, sentence_of
from tests.fake_gpu import install
from tests.fake_tensorrt import Arrays, Behaviour
from training.data.world.render import render_clip
from training.run_directory import Run

OPTIONS = BuildOptions((1, 2), 1 << 30)


class Exported(NamedTuple):
    run: Run
    bundle: Bundle


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def runtime(gpu: Behaviour, engines: Path) -> TensorRTRuntime:
    return TensorRTRuntime("cuda", engines)


@pytest.fixture
def bundle(per_frame_bundle: Bundle) -> Bundle:
    return per_frame_bundle


@pytest.fixture(scope="session")
def per_frame_bundle(per_frame_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of one size, without a state: one engine."""
    from export.to_onnx import export_bundle

    folder = tmp_path_factory.mktemp("per_frame") / "bundle"
    export_bundle(per_frame_run, folder, ((64, 64),), "street", "1")
    return read_bundle(folder)


def with_variants(bundle: Bundle, variants: Sequence[Variant]) -> Bundle:
    return bundle.model_copy(update={"manifest": bundle.manifest.model_copy(update={"variants": tuple(variants)})})


def only_first_size(exported: Exported) -> Bundle:
    return with_variants(exported.bundle, [first_variant(exported.bundle)])


def first_variant(bundle: Bundle) -> Variant:
    """Of those that are for TensorRT."""
    return next(variant for variant in bundle.manifest.variants if "tensorrt" in variant.runtimes)


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()} if folder.exists() else set()


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engines: Path, *arguments: object
) -> str:
    """The sentence with which the command stops; no engine is there then, nor a part of one."""
    sentence = sentence_of(main, monkeypatch, capsys, *arguments, "--engines", engines)
    assert not files(engines) - {".cache"}
    return sentence


# From bundle to stream


def test_streams_on_engines_have_the_answers_of_onnx_runtime(
    exported: Exported, runtime: TensorRTRuntime, engines: Path
) -> None:
    bundle = only_first_size(exported)
    built = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    variant = first_variant(bundle)
    assert [engine.plan.sidecar.graph for engine in built] == [
        graph.file for graph in (variant.key, variant.step) if graph.outputs
    ]
    frames = render_clip(3, "target", (64, 64), 6).frames
    with StreamEngine(bundle, variant, runtime) as engine:
        engine.warm_up()
        streams = [engine.open_stream(key_frame_interval=3) for _ in range(3)]
        futures = [[stream.submit(frame) for frame in frames] for stream in streams]
        answers = [[future.result().labels for future in own] for own in futures]
        state = streams[0].state()
    with (
        open_engine(bundle.folder, size=(64, 64), threads=1) as engine,
        engine.open_stream(key_frame_interval=3) as stream,
    ):
        expected = [stream.submit(frame).result().labels for frame in frames]
        wanted = stream.state()
    for own in answers:
        assert np.mean([answer == labels for answer, labels in zip(own, expected, strict=True)]) > 0.9999
    assert state.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(state[name], array, atol=1e-5 * np.abs(array).max())


def test_the_sidecar_tells_what_an_engine_is(bundle: Bundle, runtime: TensorRTRuntime, engines: Path) -> None:
    (engine,) = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    path = engine.plan.path
    sidecar = Sidecar.model_validate_json(path.with_suffix(".json").read_bytes())
    assert sidecar == engine.plan.sidecar
    step = first_variant(bundle).step
    assert (sidecar.graph, sidecar.key.onnx_sha256) == (step.file, step.sha256)
    assert sidecar.plan_sha256 == file_sha256(path)
    assert isinstance(sidecar.key, TensorRTKey)
    assert (sidecar.key.batches, sidecar.key.workspace_bytes) == ((1, 2), 1 << 30)
    assert sidecar.key.machine == runtime.machine
    assert sidecar.build_seconds > 0
    assert sidecar.comparison.label_agreement > 0.9999
    assert sidecar.comparison.max_state_difference <= 1e-3
    assert path.stem == sidecar.key.digest()


def test_building_writes_nothing_into_the_bundle(bundle: Bundle, runtime: TensorRTRuntime, engines: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.folder.rglob("*")}
    build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert {path: path.read_bytes() for path in bundle.folder.rglob("*")} == before


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [(1,), (1, 4)])
def test_tensorrt_itself_builds_engines_that_answer_like_the_graphs(
    exported: Exported, engines: Path, batch: tuple[int, ...]
) -> None:
    pytest.importorskip("tensorrt")
    bundle = only_first_size(exported)
    runtime = TensorRTRuntime("cuda", engines)
    build_engines(bundle, "fp32", BuildOptions(batch, 1 << 30), runtime, engines)
    variant = first_variant(bundle)
    comparison = compare(bundle, variant, runtime, (1, 2, 3, 4)[: batch[-1]])  # as a server loads them
    assert comparison.label_agreement > 0.9999
    assert comparison.max_state_difference < 1e-3


# The cache


def test_an_engine_that_is_there_is_kept(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour
) -> None:
    (first,) = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    (second,) = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert (first.is_cached, second.is_cached) == (False, True)
    assert first.plan == second.plan
    assert gpu.num_builds == 1


@pytest.mark.parametrize("damage", ["plan changed", "plan missing", "sidecar cut"])
def test_a_damaged_engine_is_built_again(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour, damage: str
) -> None:
    (first,) = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    if damage == "plan changed":
        first.plan.path.write_bytes(b"damaged")
    elif damage == "plan missing":
        first.plan.path.unlink()
    else:
        first.plan.path.with_suffix(".json").write_text("{")
    (second,) = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert not second.is_cached
    assert gpu.num_builds == 2
    runtime.load(bundle.path(first_variant(bundle).step))


@pytest.mark.parametrize(
    "change",
    [
        {"options": BuildOptions((1, 4), 1 << 30)},
        {"options": BuildOptions((1, 2), 1 << 31)},
        {"machine": {"tensorrt": "10.0.1"}},
        {"machine": {"gpu": "NVIDIA Other"}},
        {"machine": {"compute_capability": "8.0"}},
        {"machine": {"driver": "12.4"}},
        {"flags": ("strongly_typed",)},
    ],
)
def test_everything_that_matters_to_an_engine_makes_it_another(
    bundle: Bundle,
    runtime: TensorRTRuntime,
    engines: Path,
    gpu: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],  # Any: of what the parameters above are
) -> None:
    build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    options = change.get("options", OPTIONS)
    runtime.machine = runtime.machine.model_copy(update=change.get("machine", {}))
    if "flags" in change:
        monkeypatch.setattr("export.tensorrt_engines.FLAGS", change["flags"])
    (engine,) = build_engines(bundle, "fp32", options, runtime, engines)
    assert not engine.is_cached
    assert gpu.num_builds == 2
    assert len(list(engines.glob("*.plan"))) == 2


def test_another_graph_or_precision_makes_it_another(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour, tmp_path: Path
) -> None:
    build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    build_engines(as_precision(bundle, "fp16"), "fp16", OPTIONS, runtime, engines)
    changed = changed_bundle(bundle, tmp_path / "changed", lambda model: model.metadata_props.add(key="a", value="b"))
    build_engines(changed, "fp32", OPTIONS, runtime, engines)
    assert gpu.num_builds == 3


def test_of_two_graphs_only_the_one_without_an_engine_is_built(
    exported: Exported, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour
) -> None:
    if not first_variant(exported.bundle).state:
        pytest.skip("it has one graph")
    bundle = only_first_size(exported)
    key, step = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    step.plan.path.unlink()
    again = build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert [engine.is_cached for engine in again] == [True, False]
    assert gpu.num_builds == 3
    assert again[0] == Engine(key.plan, True)


def test_what_was_timed_is_used_for_the_next_engine(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour
) -> None:
    for batches in ((1,), (1, 2)):
        build_engines(bundle, "fp32", BuildOptions(batches, 1 << 30), runtime, engines)
    assert gpu.timing_caches == [b"", b"timings"]
    (cache,) = engines.glob("timing.*.cache")
    cache.write_bytes(b"damaged")
    build_engines(bundle, "fp32", BuildOptions((1, 3), 1 << 30), runtime, engines)
    assert gpu.timing_caches[-1] == b""
    assert cache.read_bytes() == b"timings"


# Comparison


def as_precision(bundle: Bundle, precision: str) -> Bundle:
    variants = tuple(variant.model_copy(update={"precision": precision}) for variant in bundle.manifest.variants)
    return with_variants(bundle, variants)


def wrong_labels(share: float) -> Callable[[Arrays], Arrays]:
    def spoil(outputs: Arrays) -> Arrays:
        if "labels" in outputs:
            for labels in outputs["labels"]:
                labels.reshape(-1)[: round(share * labels.size)] ^= 1
        return outputs

    return spoil


@pytest.mark.parametrize(
    ("precision", "good", "bad"), [("fp32", 0.0, 0.0005), ("fp16", 0.0005, 0.005), ("int8", 0.02, 0.04)]
)
def test_engines_are_kept_if_they_answer_as_their_precision_should(
    bundle: Bundle,
    runtime: TensorRTRuntime,
    engines: Path,
    gpu: Behaviour,
    precision: str,
    good: float,
    bad: float,
) -> None:
    bundle = as_precision(bundle, precision)
    gpu.spoil = wrong_labels(bad)
    with pytest.raises(EngineError, match=rf"9\d\.\d+ % of labels agree \(at least .* should for {precision}"):
        build_engines(bundle, precision, OPTIONS, runtime, engines)
    assert files(engines) == {".cache"}
    gpu.spoil = wrong_labels(good)
    (engine,) = build_engines(bundle, precision, OPTIONS, runtime, engines)
    assert engine.plan.sidecar.comparison.label_agreement == pytest.approx(1 - good, abs=3e-4)


@pytest.mark.parametrize("name", ["key", "step"])
@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_engines_whose_state_differs_are_not_kept(
    exported: Exported, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour, name: str, factor: float
) -> None:
    variant = first_variant(exported.bundle)
    prefix = "next_" if name == "step" else ""
    spoilt = {prefix + tensor.name for tensor in variant.state}
    if not spoilt & {*variant.key.outputs, *variant.step.outputs}:
        pytest.skip(f"its {name} graph leaves no state")

    def spoil(outputs: Arrays) -> Arrays:
        return {key: array * np.float32(factor) if key in spoilt else array for key, array in outputs.items()}

    gpu.spoil = spoil
    with pytest.raises(EngineError, match=r"the state differs by .* \(at most 1e-03 may\); they were not kept"):
        build_engines(only_first_size(exported), "fp32", OPTIONS, runtime, engines)
    assert files(engines) == {".cache"}


def test_every_batch_size_is_compared(bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour) -> None:
    def spoil_batches_of_two(outputs: Arrays) -> Arrays:
        if len(outputs["labels"]) == 2:
            outputs["labels"][1] ^= 1
        return outputs

    gpu.spoil = spoil_batches_of_two
    with pytest.raises(EngineError, match=r"0\.000 % of labels agree"):
        build_engines(bundle, "fp32", OPTIONS, runtime, engines)


def test_onnx_runtime_compares_equal_to_itself(exported: Exported) -> None:
    variant = first_variant(exported.bundle)
    comparison = compare(exported.bundle, variant, OnnxRuntime("cpu", threads=1), (1, 3))
    assert comparison.label_agreement > 0.9999
    assert comparison.max_state_difference < 1e-4


# What TensorRT cannot do


def changed_bundle(bundle: Bundle, folder: Path, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    """A copy with another step graph, whose hash is right."""
    shutil.copytree(bundle.folder, folder)
    variant = first_variant(bundle)
    path = folder / variant.step.file
    model = onnx.load(path)
    change(model)
    onnx.save_model(model, path)
    step = variant.step.model_copy(update={"sha256": file_sha256(path)})
    variants: tuple[Variant, ...] = (variant.model_copy(update={"step": step}),)
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": variants}))
    return read_bundle(folder)


def make_bytes_of_integers(model: onnx.ModelProto) -> None:
    """As our graphs once did."""
    (cast,) = [node for node in model.graph.node if "labels" in node.output]
    (before,) = [node for node in model.graph.node if cast.input[0] in node.output]
    cast.input[0] = before.input[0]
    model.graph.node.remove(before)


def test_a_graph_that_tensorrt_cannot_read_is_refused_with_all_it_says(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, tmp_path: Path
) -> None:
    changed = changed_bundle(bundle, tmp_path / "changed", make_bytes_of_integers)
    with pytest.raises(EngineError, match=r"cannot read .*step.* \(Cast .*: uint8 conversions are only supported for"):
        build_engines(changed, "fp32", OPTIONS, runtime, engines)
    assert not files(engines)


def test_a_build_that_fails_leaves_nothing(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, gpu: Behaviour
) -> None:
    gpu.build_error = "Requested amount of GPU memory could not\nbe allocated"
    with pytest.raises(EngineError) as caught:
        build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert str(caught.value) == (
        f"TensorRT {runtime.machine.tensorrt} cannot build step.fp32.gpu.64x64.onnx (Requested amount of GPU memory"
        " could not be allocated): if memory ran out, free the GPU of other programs, give it more --workspace, or ask"
        " for smaller --batch"
    )
    assert not files(engines)


def test_an_interrupted_build_leaves_nothing(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle, "fp32", OPTIONS, runtime, engines)
    assert not files(engines)


def test_a_precision_that_the_bundle_lacks_is_refused_with_how_to_export_it(
    bundle: Bundle, runtime: TensorRTRuntime, engines: Path
) -> None:
    with pytest.raises(BundleError, match=r"no int8 graphs for TensorRT, only fp32: export some .* --precision int8'$"):
        build_engines(bundle, "int8", OPTIONS, runtime, engines)
    assert not engines.exists()


def test_a_folder_that_others_can_write_to_is_refused(bundle: Bundle, runtime: TensorRTRuntime, engines: Path) -> None:
    engines.mkdir()
    engines.chmod(0o777)
    with pytest.raises(BundleError, match="other users can put plans into"):
        build_engines(bundle, "fp32", OPTIONS, runtime, engines)


# The command


def test_the_command_tells_what_it_built(
    bundle: Bundle,
    gpu: Behaviour,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (bundle.folder, "--batch", "2,1", "--workspace", "512MiB", "--engines", engines)
    for is_cached in (False, True):
        call(main, monkeypatch, *arguments, "--json")
        (told,) = json.loads(capsys.readouterr().out)
        assert told["cached"] is is_cached
        assert (told["graph"], told["precision"], told["batches"]) == ("step.fp32.gpu.64x64.onnx", "fp32", [1, 2])
        assert Path(told["plan"]).is_file()
        assert told["comparison"]["label_agreement"] > 0.9999
    call(main, monkeypatch, *arguments)
    assert capsys.readouterr().out.startswith(f"step.fp32.gpu.64x64.onnx: {told['plan']} {{")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--precision", "fp8"), "there is no precision 'fp8': choose one of fp32, fp16, int8"),
        (
            ("--precision", "fp16"),
            "has no fp16 graphs for TensorRT, only fp32: export some with 'python",
        ),
        (("--batch", "2,4"), "--batch 2,4 lacks 1, which a frame that is alone needs: use --batch 1,2,4"),
        (("--batch", "many"), "--batch 'many' does not read as numbers of frames, like 1,4,16"),
        (("--workspace", "4GB"), "--workspace '4GB' does not read as an amount of memory, like 512MiB or 4GiB"),
        (("--device", "cpu"), "'cpu' is no device for TensorRT: choose cuda or cuda:N"),
        (("--device", "cuda:3"), "there is no cuda:3: the GPUs are cuda:0"),
    ],
)
def test_what_a_user_got_wrong_is_told_in_one_sentence(
    bundle: Bundle,
    gpu: Behaviour,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    assert sentence in refusal(monkeypatch, capsys, engines, bundle.folder, *arguments)
    assert gpu.num_builds == 0


def test_a_bundle_that_is_damaged_is_refused(
    bundle: Bundle,
    gpu: Behaviour,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(bundle.folder, tmp_path / "damaged")
    with (folder / first_variant(bundle).step.file).open("ab") as file:
        file.write(b"\0")
    assert "does not match the manifest's SHA-256" in refusal(monkeypatch, capsys, engines, folder)
    assert "there is no bundle at" in refusal(monkeypatch, capsys, engines, tmp_path / "absent")


@pytest.mark.parametrize(
    ("absent", "sentence"),
    [
        ("tensorrt", "TensorRT is not installed"),
        ("cuda.bindings", "TensorRT needs cuda-bindings"),
        ("driver", "no GPU"),
    ],
)
def test_a_machine_without_what_it_takes_is_told_what_is_missing(
    bundle: Bundle,
    engines: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absent: str,
    sentence: str,
) -> None:
    gpu = install(monkeypatch)
    if absent == "driver":
        gpu.cuda.without_driver = True
    else:
        monkeypatch.setitem(sys.modules, absent, None)
    assert refusal(monkeypatch, capsys, engines, bundle.folder).startswith(sentence)


@pytest.mark.parametrize(("text", "batches"), [("1", (1,)), ("16,1,4", (1, 4, 16)), ("1,1,2", (1, 2))])
def test_batches_are_read_in_any_order(text: str, batches: tuple[int, ...]) -> None:
    assert parse_batches(text) == batches


@pytest.mark.parametrize("text", ["", "0,1", "1,65", "-1", "1.5", "1,,2", "1 2", "99999"])
def test_what_are_no_batches_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^--batch .*: name numbers within 1\.\.64$|does not read as numbers"):
        parse_batches(text)


@pytest.mark.parametrize(("text", "num_bytes"), [("1MiB", 2**20), ("4GiB", 2**32)])
def test_memory_is_read_in_mebibytes_and_gibibytes(text: str, num_bytes: int) -> None:
    assert parse_memory(text) == num_bytes


@pytest.mark.parametrize("text", ["", "4", "0GiB", "-4GiB", "4 GiB", "4TiB", "4e9"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not read as an amount of memory"):
        parse_memory(text)
