import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.bundle import (
    RESULTS,
    Bundle,
    BundleError,
    GraphFile,
    Precision,
    RuntimeName,
    StateTensor,
    Variant,
    file_sha256,
)
from serving.graphs import Answer, GraphRun, ModelGraphs, pick_variant
from serving.runtimes.onnx_runtime import OnnxRuntime
from tests.serving.conftest import KEY_POISON, SIZE, STEP_POISON, toy_frame

Runs = list[GraphRun]


@pytest.fixture
def runtime() -> OnnxRuntime:
    return OnnxRuntime("cpu", threads=1)


@pytest.fixture
def runs() -> Runs:
    return []


@pytest.fixture
def variant(toy_bundle: Bundle) -> Variant:
    return toy_bundle.manifest.variants[0]


@pytest.fixture
def graphs(toy_bundle: Bundle, variant: Variant, runtime: OnnxRuntime, runs: Runs) -> ModelGraphs:
    return ModelGraphs(toy_bundle, variant, runtime, runs.append)


def request(value: int, total: int) -> dict[str, object]:
    frame = toy_frame(value)[None]
    state = {name: np.full((1, 1), total, np.float32) for name in ("total", "anchor")}
    return state | {"frame": frame, "previous_frame": frame, "key_frame": frame}


def outputs(answer: Answer) -> dict[str, object]:
    assert isinstance(answer, dict)
    return answer


def first_label(answer: Answer) -> int:
    labels = outputs(answer)["labels"]
    assert isinstance(labels, np.ndarray)
    return int(labels[0, 0, 0])


# Running


def test_the_key_graph_gives_the_state_of_each_frame(graphs: ModelGraphs, runs: Runs) -> None:
    answers = graphs.encode_keys([toy_frame(value)[None] for value in (1, 2, 3)])
    assert [outputs(answer) for answer in answers] == [{"total": [[value]], "anchor": [[value]]} for value in (1, 2, 3)]
    assert [run[:3] for run in runs] == [("key", 3, 0)]


def test_the_step_graph_answers_each_request(graphs: ModelGraphs, runs: Runs) -> None:
    answers = graphs.step([request(1, total=10), request(2, total=20)])
    assert [first_label(answer) for answer in answers] == [11, 22]
    assert [outputs(answer)["next_total"] for answer in answers] == [[[11]], [[22]]]
    assert [run[:3] for run in runs] == [("step", 2, 0)]


def test_only_the_guilty_request_of_a_batch_has_an_exception_for_an_answer(graphs: ModelGraphs, runs: Runs) -> None:
    good, guilty, also_good = graphs.step([request(1, 10), request(STEP_POISON, 10), request(3, 10)])
    assert [first_label(good), first_label(also_good)] == [11, 13]
    assert isinstance(guilty, Exception)
    states = graphs.encode_keys([toy_frame(KEY_POISON)[None], toy_frame(5)[None]])
    assert isinstance(states[0], Exception)
    assert outputs(states[1]) == {"total": [[5]], "anchor": [[5]]}
    assert [run[:3] for run in runs] == [("step", 3, 1), ("key", 2, 1)]


def test_a_single_request_that_fails_is_not_tried_again(graphs: ModelGraphs, runs: Runs) -> None:
    (answer,) = graphs.step([request(STEP_POISON, 10)])
    assert isinstance(answer, Exception)
    assert [run[:3] for run in runs] == [("step", 1, 1)]


# A network without a state


@pytest.fixture
def stateless(toy_folder: Path, toy_bundle: Bundle, variant: Variant, tmp_path: Path) -> tuple[Bundle, Variant]:
    """The toy with a state that is 7 for good, and so is none."""
    folder = Path(shutil.copytree(toy_folder, tmp_path / "stateless"))
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    unused = helper.make_node("Identity", ["frame"], ["unused"])
    key = helper.make_graph([unused], "key", [frame], [])
    onnx.save(helper.make_model(key, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "key.onnx")
    step = onnx.load(folder / "step.onnx")
    for value in [value for value in step.graph.input if value.name in ("total", "anchor")]:
        step.graph.input.remove(value)
        step.graph.initializer.append(onnx.numpy_helper.from_array(np.full((1, 1), 7, np.float32), value.name))
    del step.graph.output[-1]  # next_total
    onnx.save(step, folder / "step.onnx")
    wired = Variant(
        precision="fp32",
        runtimes=("onnxruntime-cpu",),
        height=SIZE,
        width=SIZE,
        state=(),
        key=GraphFile(file="key.onnx", sha256=file_sha256(folder / "key.onnx"), inputs=("frame",), outputs=()),
        step=GraphFile(
            file="step.onnx",
            sha256=file_sha256(folder / "step.onnx"),
            inputs=("frame", "previous_frame", "key_frame"),
            outputs=RESULTS,
        ),
    )
    return Bundle(folder=folder, manifest=toy_bundle.manifest.model_copy(update={"variants": (wired,)})), wired


def test_a_network_without_a_state_has_nothing_to_encode(
    stateless: tuple[Bundle, Variant], runtime: OnnxRuntime, runs: Runs
) -> None:
    graphs = ModelGraphs(*stateless, runtime, runs.append)
    graphs.warm_up()
    assert graphs.encode_keys([toy_frame(1)[None], toy_frame(2)[None]]) == [{}, {}]
    frames = dict.fromkeys(("frame", "previous_frame", "key_frame"), toy_frame(5)[None])
    assert [first_label(answer) for answer in graphs.step([frames])] == [5 + 7]
    assert [run.graph for run in runs] == ["step", "step"]


# Held to the manifest


def broken(variant: Variant, graph: str, **fields: tuple[str, ...]) -> Variant:
    return variant.model_copy(update={graph: getattr(variant, graph).model_copy(update=fields)})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda variant: broken(variant, "key", inputs=()),
            r"key.onnx in .* has the inputs \['frame'\], its manifest says \[\]: export the bundle again",
        ),
        (
            lambda variant: broken(variant, "key", outputs=("total",)),
            r"key.onnx in .* has the outputs \['anchor', 'total'\], its manifest says \['total'\]",
        ),
        (
            lambda variant: broken(variant, "step", inputs=("frame",)),
            r"step.onnx in .* has the inputs \['anchor', .*'total'\], its manifest says \['frame'\]",
        ),
        (
            lambda variant: broken(variant, "step", outputs=(*variant.step.outputs, "next_anchor")),
            r"step.onnx in .* has the outputs \[.*\], its manifest says \[.*'next_anchor'.*\]",
        ),
    ],
)
def test_a_graph_whose_inputs_or_outputs_are_not_the_manifests_is_refused(
    toy_bundle: Bundle,
    variant: Variant,
    runtime: OnnxRuntime,
    runs: Runs,
    edit: Callable[[Variant], Variant],
    message: str,
) -> None:
    with pytest.raises(BundleError, match=message):
        ModelGraphs(toy_bundle, edit(variant), runtime, runs.append)


def test_warming_up_runs_both_graphs(graphs: ModelGraphs, runs: Runs) -> None:
    graphs.warm_up()
    assert [run[:3] for run in runs] == [("key", 1, 0), ("step", 1, 0)]


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            {"state": (StateTensor(name="total", shape=(2,)), StateTensor(name="anchor", shape=(1,)))},
            r"gives total of shape \(1, 1\), its manifest says \(1, 2\): export the bundle again$",
        ),
        (
            {"state": (StateTensor(name="total", shape=(1,)), StateTensor(name="anchor", shape=(1, 4, 4)))},
            r"gives anchor of shape \(1, 1\), its manifest says \(1, 1, 4, 4\): export the bundle again$",
        ),
    ],
)
def test_warming_up_finds_a_state_of_another_shape(
    toy_bundle: Bundle, variant: Variant, runtime: OnnxRuntime, runs: Runs, update: dict[str, object], message: str
) -> None:
    graphs = ModelGraphs(toy_bundle, variant.model_copy(update=update), runtime, runs.append)
    with pytest.raises(BundleError, match=message):
        graphs.warm_up()


def test_warming_up_finds_frames_of_another_size(
    toy_bundle: Bundle, variant: Variant, runtime: OnnxRuntime, runs: Runs
) -> None:
    graphs = ModelGraphs(toy_bundle, variant.model_copy(update={"height": 2 * SIZE}), runtime, runs.append)
    with pytest.raises(BundleError, match=r"toy cannot be run by ONNX Runtime .* on cpu: .* Got: 128 Expected: 64"):
        graphs.warm_up()  # in one line: ONNX Runtime writes several


# Picking


def bundle_of(toy_bundle: Bundle, *kinds: tuple[str, int, int, tuple[str, ...]]) -> Bundle:
    (variant,) = toy_bundle.manifest.variants
    variants = tuple(
        variant.model_copy(update={"precision": precision, "height": height, "width": width, "runtimes": runtimes})
        for precision, height, width, runtimes in kinds
    )
    return toy_bundle.model_copy(update={"manifest": toy_bundle.manifest.model_copy(update={"variants": variants})})


CPU, GPU = ("onnxruntime-cpu", "openvino"), ("onnxruntime-cuda", "tensorrt")
KINDS = (
    ("fp32", 64, 128, CPU),
    ("fp32", 128, 256, CPU),
    ("fp32", 128, 256, GPU),
    ("fp16", 64, 128, GPU),
    ("int8", 64, 128, ("onnxruntime-cpu",)),
    ("int8", 64, 128, ("openvino", "tensorrt")),
)


@pytest.mark.parametrize(
    ("runtime", "precision", "size", "picked"),
    [
        ("onnxruntime-cpu", "int8", None, 4),
        ("openvino", "int8", None, 5),
        ("onnxruntime-cpu", "fp32", (128, 256), 1),
        ("tensorrt", "fp32", None, 2),
        ("onnxruntime-cpu", "auto", (64, 128), 0),
        ("onnxruntime-cuda", "auto", None, 2),
    ],
)
def test_a_variant_is_picked_by_runtime_precision_and_size(
    toy_bundle: Bundle,
    runtime: RuntimeName,
    precision: Precision | Literal["auto"],
    size: tuple[int, int] | None,
    picked: int,
) -> None:
    bundle = bundle_of(toy_bundle, *KINDS)
    assert pick_variant(bundle, runtime, precision, size) is bundle.manifest.variants[picked]


def test_the_highest_precision_that_a_runtime_has_is_the_automatic_one(toy_bundle: Bundle) -> None:
    bundle = bundle_of(toy_bundle, *KINDS[3:])
    assert pick_variant(bundle, "onnxruntime-cpu", "auto", None).precision == "int8"
    assert pick_variant(bundle, "tensorrt", "auto", None).precision == "fp16"


@pytest.mark.parametrize(
    ("precision", "size", "message"),
    [
        ("fp32", None, "'fp32' picks 2 of them"),
        ("fp16", None, "'fp16' picks 0 of them"),
        ("int8", (128, 256), "'int8 128x256' picks 0 of them"),
    ],
)
def test_a_choice_that_leaves_no_variant_or_several_is_refused_with_those_there_are(
    toy_bundle: Bundle, precision: Precision, size: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(BundleError) as caught:
        pick_variant(bundle_of(toy_bundle, *KINDS), "onnxruntime-cpu", precision, size)
    assert str(caught.value) == (
        f"{toy_bundle.folder} has these graphs for onnxruntime-cpu: fp32 64x128, fp32 128x256, int8 64x128; {message},"
        " choose one by --precision and --size"
    )


def test_a_runtime_without_graphs_is_told(toy_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="these graphs for openvino: none; 'fp32' picks 0 of them"):
        pick_variant(toy_bundle, "openvino", "auto", None)
