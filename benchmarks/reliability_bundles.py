"""Fuzzing of what a server reads from its disk: manifests, graphs, and what lies beside plans."""

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.reliability_inputs import mutate_bytes, mutate_json
from benchmarks.reliability_target import Subject, Target
from serving.bundle import MANIFEST_FILE, Bundle, BundleError, Manifest, read_bundle
from serving.graphs import ModelGraphs, pick_variant
from serving.options import READY_BUNDLE
from serving.plans import Comparison, Sidecar, TorchKey, TorchMachine, find_plan, write_plan
from serving.runtimes.onnx_runtime import OnnxRuntime

STATE_CHANNELS, SIDE = 4, 16  # of the small graphs
MACHINE = TorchMachine(torch="2.13.0", device="cpu")


def _manifests() -> list[bytes]:
    return [(READY_BUNDLE / MANIFEST_FILE).read_bytes()]


def _open_manifest(folder: Path) -> Subject:
    bundle = folder / "bundle"
    shutil.copytree(READY_BUNDLE, bundle)

    def feed(content: bytes) -> None:
        """As a server does before it loads graphs."""
        (bundle / MANIFEST_FILE).write_bytes(content)
        pick_variant(read_bundle(bundle), "onnxruntime-cpu", "auto", None)

    return Subject(feed)


def _graphs() -> list[bytes]:
    """The step graph of a small network, in ONNX's bytes."""
    return [_small_step().SerializeToString()]


def _small_step() -> onnx.ModelProto:
    """Labels that are the red channel, and the other results of a step, which are constants or nearly."""
    helper, tensor = onnx.helper, onnx.TensorProto
    frame = helper.make_tensor_value_info("frame", tensor.UINT8, ["batch", SIDE, SIDE, 3])
    outputs = [
        helper.make_tensor_value_info("labels", tensor.UINT8, ["batch", SIDE, SIDE]),
        helper.make_tensor_value_info("confidence", tensor.UINT8, ["batch", SIDE // 4, SIDE // 4]),
    ]
    signals = ("mean_confidence", "disagreement", "mean_entropy", "warp_residual")
    outputs += [helper.make_tensor_value_info(name, tensor.FLOAT, ["batch"]) for name in signals]
    weight = onnx.numpy_helper.from_array(_weights(), "weight")
    constants = [
        weight,
        helper.make_tensor("red", tensor.INT64, [], [0]),
        helper.make_tensor("axes", tensor.INT64, [2], [2, 3]),
        helper.make_tensor("flat", tensor.INT64, [1], [-1]),
    ]
    nodes = [
        helper.make_node("Gather", ["frame", "red"], ["labels"], axis=3),
        helper.make_node("Cast", ["frame"], ["floats"], to=tensor.FLOAT),
        helper.make_node("Transpose", ["floats"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "weight"], ["features"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("ReduceMax", ["positive"], ["largest"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["largest"], ["confidence"], to=tensor.UINT8),
        helper.make_node("ReduceMean", ["largest"], ["mean"], axes=[1, 2], keepdims=0),
        *(helper.make_node("Identity", ["mean"], [name]) for name in signals),
    ]
    graph = helper.make_graph(nodes, "step", [frame], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _weights() -> NDArray[np.float32]:

    return np.random.default_rng(0).normal(size=(STATE_CHANNELS, 3, 4, 4)).astype(np.float32)


def _mutate_graph(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages the bytes, or takes a node, a tensor or a name apart and leaves the file readable."""
    if chance.randrange(2):
        return mutate_bytes(chance, seeds)
    model = onnx.ModelProto.FromString(chance.choice(seeds))
    node = chance.choice(model.graph.node)
    match chance.randrange(7):
        case 0:
            node.op_type = chance.choice([*(each.op_type for each in model.graph.node), "Loop", "If", "Tile", "Resize"])
        case 1:
            node.input[chance.randrange(len(node.input))] = chance.choice(["", "frame", "weight", "labels", "nothing"])
        case 2:
            dimension = chance.choice(model.graph.input[0].type.tensor_type.shape.dim)
            dimension.dim_value = chance.choice((0, -1, 1, 1 << 31, 1 << 62))
        case 3:
            tensor = chance.choice(model.graph.initializer)
            tensor.dims[:] = [chance.choice((0, -1, 3, 1 << 20, 1 << 40)) for _ in range(chance.randrange(4))]
        case 4 if node.attribute:
            attribute = chance.choice(node.attribute)
            attribute.ints[:] = [chance.choice((0, -1, 2, 1 << 31)) for _ in range(chance.randrange(5))]
            attribute.i = chance.choice((0, -1, 1, 7, 99, 1 << 40))
        case 5:
            del model.graph.node[chance.randrange(len(model.graph.node))]
        case _:
            tensor = chance.choice(model.graph.initializer)
            tensor.raw_data = mutate_bytes(chance, [tensor.raw_data or b"\0" * 8])[:4096]
            tensor.data_type = chance.choice((tensor.data_type, 1, 2, 7, 8, 11, 99))
    return model.SerializeToString()


def _open_graph(folder: Path) -> Subject:
    runtime, path = OnnxRuntime("cpu", threads=1), folder / "step.onnx"
    document = json.loads(_manifests()[0])
    variant = document["variants"][0]
    outputs = [output.name for output in _small_step().graph.output]
    key = {"file": "key.onnx", "sha256": "0" * 64, "inputs": ["frame"], "outputs": []}
    step = {"file": path.name, "sha256": "0" * 64, "inputs": ["frame"], "outputs": outputs}
    variant |= {"height": SIDE, "width": SIDE, "state": [], "key": key, "step": step, "precision": "fp32"}
    document["variants"] = [variant | {"runtimes": ["onnxruntime-cpu"]}]
    bundle = Bundle(folder=folder, manifest=Manifest.model_validate(document))

    def feed(content: bytes) -> None:
        """Loads and runs it as a server does whose manifest has the right checksum: an attacker's would."""
        path.write_bytes(content)
        ModelGraphs(bundle, bundle.manifest.variants[0], runtime, lambda _: None).warm_up()

    return Subject(feed)


def _open_damaged_graph(folder: Path) -> Subject:
    bundle = folder / "bundle"
    shutil.copytree(READY_BUNDLE, bundle)
    victim = bundle / read_bundle(bundle).manifest.variants[0].key.file
    whole = hashlib.sha256(victim.read_bytes()).digest()

    def feed(content: bytes) -> None:
        """Any change must be noticed."""
        victim.write_bytes(content)
        read_bundle(bundle)
        assert hashlib.sha256(content).digest() == whole, "a changed graph was taken"

    return Subject(feed)


def _sidecar(content: bytes) -> Sidecar:
    key = TorchKey(onnx_sha256=hashlib.sha256(b"onnx").hexdigest(), precision="fp32", machine=MACHINE)
    comparison = Comparison(label_agreement=1.0, max_state_difference=0.0, frames=1)
    digest = hashlib.sha256(content).hexdigest()
    return Sidecar(graph="step.onnx", key=key, plan_sha256=digest, build_seconds=1.0, comparison=comparison)


def _open_sidecar(folder: Path) -> Subject:
    (folder / "step.onnx").write_bytes(b"onnx")
    plan = write_plan(folder / "plans", b"plan", _sidecar(b"plan"))

    def feed(content: bytes) -> None:
        plan.path.with_suffix(".json").write_bytes(content)
        find_plan(folder / "plans", folder / "step.onnx", MACHINE)

    return Subject(feed)


def _key_graphs() -> list[bytes]:
    return [(READY_BUNDLE / read_bundle(READY_BUNDLE).manifest.variants[0].key.file).read_bytes()[: 1 << 20]]


def _sidecars() -> list[bytes]:
    return [_sidecar(b"plan").model_dump_json().encode()]


BUNDLES = (
    Target("manifest", "manifests of bundles", 40, _manifests, _open_manifest, (BundleError,), mutate_json),
    Target("damaged_graph", "graphs changed behind the manifest's back", 10, _key_graphs,
           _open_damaged_graph, (BundleError,)),
    Target("graph", "graphs with a manifest to match, in ONNX Runtime", 10, _graphs, _open_graph, (BundleError,),
           _mutate_graph),
    Target("sidecar", "sidecars of plans", 60, _sidecars, _open_sidecar,
           (BundleError,), mutate_json),
)  # fmt: skip
