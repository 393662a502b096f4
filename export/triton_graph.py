"""`key` and `step` as one graph of a frame and what its stream remembers, which is what Triton's sequences can run.

Triton calls one graph per frame and hands what it calls `next_NAME` back as NAME on the sequence's next frame. So the
semantics of `serving/engine.py` move into the graph. For each frame of a batch, which are of different streams:

    start or refresh: key state = key(frame)
    start:            state = key state, previous frame = frame      what the memory holds is ignored
    always:           labels, ..., next state = step(frame, previous frame, state)
    start or refresh: next state = key state                         what the step leaves is discarded

`start` is set by Triton on the first frame of a sequence, `refresh` by the client on key frames. `key` runs on just
those frames of a batch that need it, and not at all if none does. Its weights lie in the branch that runs it: of
weights outside ONNX Runtime makes slower kernels (a third slower in fp32, twice in int8).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.bundle import NEXT, RESULTS, SIGNALS, StateTensor

START = "start"  # (B, 1) bool
REFRESH = "refresh"  # (B, 1) bool
BATCH = "batch"
LOOKS_BACK = "warp_residual"  # the one result of a network without state that takes the frame before


def per_frame_graph(step: onnx.ModelProto) -> onnx.ModelProto:
    """The step of a network without state, as a graph of the frame alone, less the signal that compares two frames.

    Raises:
        ValueError: if other results look at other frames.
    """
    results = [name for name in RESULTS if name != LOOKS_BACK]
    alone = onnx.GraphProto()
    alone.CopyFrom(step.graph)
    used = set(results)
    del alone.node[:]
    for node in reversed(step.graph.node):  # they are in the order of their work
        if used.intersection(node.output):
            alone.node.insert(0, node)
            used.update(_used_by(node))
    if others := [value.name for value in step.graph.input if value.name != "frame" and value.name in used]:
        raise ValueError(f"the step graph looks at {', '.join(others)} and has no state: Triton can run no such model")
    parts = _Parts()
    parts.add_step(alone, {"frame": "frame"}, results)
    return _model([step], parts, [_frame(step, "frame")], _results(step, results))


def stream_graph(key: onnx.ModelProto, step: onnx.ModelProto, state: Sequence[StateTensor]) -> onnx.ModelProto:
    """Key and step of a network with state, as a graph of the frame, `start`, `refresh` and the memory.

    The memory is the state and the frames that the step looks back at, by their names in the bundle.
    """
    frames = [value.name for value in step.graph.input if value.name in ("previous_frame", "key_frame")]
    advanced = {value.name for value in step.graph.output}
    parts = _Parts()
    parts.constant("every", [-1])
    parts.add("Reshape", [START, "every"], "starts")
    parts.add("Reshape", [REFRESH, "every"], "refreshes")
    parts.add("Or", ["starts", "refreshes"], "is_key_frame")
    parts.encode("is_key_frame", key.graph, [tensor.name for tensor in state])

    ranks = {tensor.name: len(tensor.shape) for tensor in state} | dict.fromkeys(frames, 3)
    for rank in sorted(set(ranks.values())):  # flags that spread over all dimensions but the batch
        parts.constant(f"spread/{rank}", [-1, *[1] * rank])
        for flag in ("starts", "is_key_frame"):
            parts.add("Reshape", [flag, f"spread/{rank}"], f"{flag}/{rank}")
    for name, rank in ranks.items():
        at_start = "frame" if name in frames else f"key_state/{name}"
        parts.add("Where", [f"starts/{rank}", at_start, name], f"given/{name}")
    parts.add_step(step.graph, {"frame": "frame", **{name: f"given/{name}" for name in ranks}}, RESULTS)
    for name, rank in ranks.items():
        if name == "previous_frame":
            parts.add("Identity", ["frame"], NEXT + name)
        else:
            at_key_frame = "frame" if name == "key_frame" else f"key_state/{name}"
            left = f"step/{NEXT}{name}" if NEXT + name in advanced else name
            parts.add("Where", [f"is_key_frame/{rank}", at_key_frame, left], NEXT + name)

    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, [BATCH, 1]) for name in (START, REFRESH)]
    memory, next_memory = (
        [
            *(helper.make_tensor_value_info(to + own.name, TensorProto.FLOAT, [BATCH, *own.shape]) for own in state),
            *(_frame(step, name, to) for name in frames),
        ]
        for to in ("", NEXT)
    )
    inputs = [_frame(step, "frame"), *flags, *memory]
    return _model([key, step], parts, inputs, [*_results(step, RESULTS), *next_memory])


class _Parts:
    """What a graph is made of, as it grows."""

    def __init__(self) -> None:
        self.constants: list[TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.ValueInfoProto] = []

    def constant(self, name: str, numbers: Sequence[int]) -> None:
        self.constants.append(numpy_helper.from_array(np.array(numbers, np.int64), name))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: int) -> None:
        node = helper.make_node(operator, inputs, [output], output)
        node.attribute.extend(helper.make_attribute(name, number) for name, number in attributes.items())
        self.nodes.append(node)

    def add_step(self, step: onnx.GraphProto, given: dict[str, str], results: Sequence[str]) -> None:
        """The step with inputs of other names; its results get their own names."""
        step = _renamed(step, lambda name: given.get(name, f"step/{name}"))
        self.constants.extend(step.initializer)
        self.nodes.extend(step.node)
        self.values.extend(step.value_info)
        self.constant("behind_batch", [1])
        for name in results:
            if name in SIGNALS:  # (B,) in a bundle, (B, 1) here: Triton's tensors have a dimension
                self.add("Unsqueeze", [f"step/{name}", "behind_batch"], name)
            else:
                self.add("Identity", [f"step/{name}"], name)

    def encode(self, flag: str, key: onnx.GraphProto, state: Sequence[str]) -> None:
        """`key_state/NAME`: what `key` gives for the frames of a batch with the flag (B,), NAME for the others."""
        key = _renamed(key, lambda name: f"key/{name}")
        encode, keep = _Parts(), _Parts()
        encode.constant("key/behind_all", [-1])
        encode.add("NonZero", [flag], "key/indices")
        encode.add("Reshape", ["key/indices", "every"], "key/rows")
        encode.add("Unsqueeze", ["key/rows", "key/behind_all"], "key/places")
        encode.add("Gather", ["frame", "key/rows"], "key/frame")
        encode.constants.extend(key.initializer)
        encode.nodes.extend(key.node)  # without their shapes: those name the batch, and here are but some rows of it
        for name in state:
            encode.add("ScatterND", [name, "key/places", f"key/{name}"], f"encoded/{name}")
            keep.add("Identity", [name], f"kept/{name}")
        self.add("Cast", [flag], f"{flag}/number", to=TensorProto.INT32)
        self.add("ReduceMax", [f"{flag}/number"], f"{flag}/largest", keepdims=0)
        self.add("Cast", [f"{flag}/largest"], f"{flag}/any", to=TensorProto.BOOL)
        node = helper.make_node("If", [f"{flag}/any"], [f"key_state/{name}" for name in state], "key")
        for branch, parts, prefix in (("then_branch", encode, "encoded"), ("else_branch", keep, "kept")):
            graph = parts.branch(branch, [f"{prefix}/{name}" for name in state])
            node.attribute.append(helper.make_attribute(branch, graph))
        self.nodes.append(node)

    def branch(self, name: str, outputs: Sequence[str]) -> onnx.GraphProto:
        values = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs]
        return helper.make_graph(self.nodes, name, [], values, self.constants)


def _used_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the values that a node reads, in its branches too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _used_by(inner)


def _renamed(graph: onnx.GraphProto, rename: Callable[[str], str]) -> onnx.GraphProto:
    """A copy with other names of nodes and values, in branches too. (onnx.compose misses weights used in branches.)"""
    graph = onnx.GraphProto.FromString(graph.SerializeToString())
    _rename(graph, lambda name: rename(name) if name else name)  # an empty name is an input left out
    return graph


def _rename(graph: onnx.GraphProto, rename: Callable[[str], str]) -> None:
    for tensor in graph.initializer:
        tensor.name = rename(tensor.name)
    for value in (*graph.value_info, *graph.input, *graph.output):
        value.name = rename(value.name)
    for node in graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, rename)


def _frame(step: onnx.ModelProto, name: str, prefix: str = "") -> onnx.ValueInfoProto:
    """A frame as the step takes it."""
    shape = next(value.type.tensor_type.shape for value in step.graph.input if value.name == name)
    sides = [dimension.dim_value for dimension in shape.dim[1:]]
    return helper.make_tensor_value_info(prefix + name, TensorProto.UINT8, [BATCH, *sides])


def _results(step: onnx.ModelProto, names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    values = []
    for name in names:
        tensor = next(value.type.tensor_type for value in step.graph.output if value.name == name)
        shape = [1] if name in SIGNALS else [dimension.dim_value for dimension in tensor.shape.dim[1:]]
        values.append(helper.make_tensor_value_info(name, tensor.elem_type, [BATCH, *shape]))
    return values


def _model(
    sources: Sequence[onnx.ModelProto],
    parts: _Parts,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    assert not any(source.functions for source in sources)  # torch inlines its own
    versions = {(opset.domain, opset.version) for source in sources for opset in source.opset_import}
    assert len({domain for domain, _ in versions}) == len(versions)  # one opset writes both graphs
    graph = helper.make_graph(parts.nodes, "segmenter", inputs, outputs, parts.constants, value_info=parts.values)
    model = helper.make_model(
        graph,
        producer_name="flowseg",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(versions)],
        ir_version=max(source.ir_version for source in sources),
    )
    onnx.checker.check_model(model)
    return model
