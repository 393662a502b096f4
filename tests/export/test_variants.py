"""Every precision of every segmenter, written and run."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.graphs import KeyGraph, StepGraph
from export.half_precision import in_half_precision
from export.quantization import Pair, sensitive_weights
from export.variants import VariantWriter
from export.verify import Verifier, runtimes_on_cpu
from serving.bundle import Bundle, ClassInfo, Manifest, Precision, Variant
from tests.export.conftest import SIZE, Graphs
from training.data.world.dataset import World
from training.data.world.render import render_clip
from training.models.deeplab import DeepLab


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    frames = [render_clip(seed, "target", SIZE, 2).frames for seed in range(3)]
    return [(pair[0], pair[1]) for pair in frames]


def write(graphs: Graphs, precision: Precision, folder: Path, pairs: list[Pair]) -> list[Variant]:
    return list(VariantWriter(graphs.segmenter.folded(), *SIZE, folder, {"about": "test"}, pairs).write(precision))


def of_type(folder: Path, variant: Variant, op_type: str) -> list[onnx.NodeProto]:
    models = [onnx.load(folder / graph.file) for graph in (variant.key, variant.step)]
    return [node for model in models for node in model.graph.node if node.op_type == op_type]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_runtime_has_one_form_of_a_precision(
    form_graphs: Graphs, precision: Precision, tmp_path: Path, pairs: list[Pair]
) -> None:
    variants = write(form_graphs, precision, tmp_path, pairs)
    runtimes = [runtime for variant in variants for runtime in variant.runtimes]
    assert len(set(runtimes)) == len(runtimes)
    assert "tensorrt" in runtimes
    for variant in variants:
        assert variant.precision == precision
        for runtime in ("onnxruntime-cuda", "tensorrt"):  # their tail has no results of unknown size
            assert runtime not in variant.runtimes or not of_type(tmp_path, variant, "If")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_answers_nearly_like_the_network(
    form_graphs: Graphs, precision: Precision, tmp_path: Path, pairs: list[Pair]
) -> None:
    classes = tuple(ClassInfo(name=str(label), color=(0, 0, label)) for label in range(15))
    verifier = Verifier(form_graphs.segmenter, SIZE, World().label_space, ())
    for variant in write(form_graphs, precision, tmp_path, pairs):
        manifest = Manifest(
            format="flowseg-bundle", format_version=3, name="n", version="1", classes=classes, variants=(variant,),
            provenance={}, verification={},
        )  # fmt: skip
        bundle = Bundle(folder=tmp_path, manifest=manifest)
        agreements = [
            verifier._compare(bundle, variant, runtime, interval)[0]
            for runtime in runtimes_on_cpu(variant)
            for interval in (1, 3)
        ]
        # random networks have many pixels that are nearly undecided
        assert min(agreements) > {"fp16": 0.99, "int8": 0.8}[precision]


def test_half_precision_is_in_the_large_networks_alone(form_graphs: Graphs, tmp_path: Path, pairs: list[Pair]) -> None:
    (variant,) = write(form_graphs, "fp16", tmp_path, pairs)
    for graph in (variant.key, variant.step):
        model = onnx.load(tmp_path / graph.file)
        halves = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
        assert bool(halves) == bool(of_type(tmp_path, variant, "Conv") and graph.outputs)
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
    frame = torch.rand(1, 3, *SIZE)
    halved = in_half_precision(form_graphs.segmenter)
    with torch.no_grad():
        logits = next(halved.propagations(torch.stack([frame, frame], 1))).logits  # what graphs are made of
    assert logits.dtype == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in form_graphs.segmenter.parameters())


def test_integers_are_in_all_convolutions_but_the_sensitive_ones(
    form_graphs: Graphs, tmp_path: Path, pairs: list[Pair]
) -> None:
    segmenter = form_graphs.segmenter.folded()
    sensitive = sensitive_weights(StepGraph(segmenter))
    assert sensitive
    assert sensitive == sensitive_weights(KeyGraph(segmenter))
    for variant in write(form_graphs, "int8", tmp_path, pairs):
        for graph in (variant.key, variant.step):
            model = onnx.load(tmp_path / graph.file)
            initializers = {tensor.name for tensor in model.graph.initializer}
            for node in model.graph.node:
                if node.op_type == "Conv":  # quantised weights come out of a node that makes them numbers again
                    assert (node.input[1] in initializers) == (node.input[1] in sensitive), node.input[1]


def test_unsigned_activations_are_for_cpus_and_symmetric_ones_for_gpus(
    form_graphs: Graphs, tmp_path: Path, pairs: list[Pair]
) -> None:
    unsigned, symmetric = write(form_graphs, "int8", tmp_path, pairs)
    assert (unsigned.runtimes, symmetric.runtimes) == (("onnxruntime-cpu", "openvino"), ("tensorrt",))
    for variant, types in ((unsigned, {np.dtype(np.uint8)}), (symmetric, {np.dtype(np.int8)})):
        found = set()
        for graph in (variant.key, variant.step):
            model = onnx.load(tmp_path / graph.file)
            constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
            for node in model.graph.node:
                if node.op_type == "QuantizeLinear":
                    zero_point = constants[node.input[2]]
                    found.add(zero_point.dtype)
                    assert variant is unsigned or not zero_point.any()
        assert found == types


def test_without_frames_there_is_no_int8(form_graphs: Graphs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8 graphs are calibrated on frames, and there are none"):
        write(form_graphs, "int8", tmp_path, [])


def test_sensitive_layers_are_named_where_they_are() -> None:
    names = sensitive_weights(DeepLab("resnet10_slim", 4, auxiliary=True))
    assert {name.split(".")[0] for name in names} == {"conv1", "layer5", "layer6"}
    assert "layer1.0.conv1.weight" not in names
