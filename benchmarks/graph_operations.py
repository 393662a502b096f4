"""How much arithmetic an ONNX graph is: the additions and multiplications of its convolutions and matrix products.

Counted from the file by shape inference, nothing is run. One multiplication with its addition are two operations, and
products with a border of zeros count like others. Operations whose two inputs come out of DequantizeLinear are run in
8-bit integers and are counted as such. Branches of an If are left out: in our graphs they hold no such operation.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import onnx
from onnx import helper
from onnx.inliner import inline_local_functions

from serving.bundle import Precision

Shapes = Mapping[str, tuple[int, ...]]


class Operations(NamedTuple):
    """What a node is counted by."""

    node: onnx.NodeProto
    shapes: Shapes  # of all values

    def input(self, index: int) -> tuple[int, ...]:
        """Shape of an input."""
        return self.shapes[self.node.input[index]]

    def output(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.shapes[self.node.output[0]]


def _convolution(operations: Operations) -> int:
    # each output value: one product with every weight of its channel, (C / groups, kernel...)
    return math.prod(operations.output()) * math.prod(operations.input(1)[1:])


def _transposed_convolution(operations: Operations) -> int:
    # each input value: one product with every weight that it is spread by, (C_out / groups, kernel...)
    return math.prod(operations.input(0)) * math.prod(operations.input(1)[1:])


def _matrix_product(operations: Operations) -> int:
    return math.prod(operations.output()) * operations.input(0)[-1]


def _gemm(operations: Operations) -> int:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in operations.node.attribute}
    return math.prod(operations.output()) * operations.input(0)[0 if attributes.get("transA", 0) else 1]


MULTIPLICATIONS: dict[str, Callable[[Operations], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "MatMul": _matrix_product,
    "Gemm": _gemm,
}
PRECISIONS: dict[int, Precision] = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}


def giga_operations(model: onnx.ModelProto, batch: int = 1) -> dict[Precision, float]:
    """Billions of operations of one run, by the precision they are done in; a precision without any is left out.

    Args:
        model: its inputs have fixed shapes but for the batch dimension, the first.
        batch: frames in the run.
    """
    graph = _with_batch(model, batch).graph
    producers = {output: node for node in graph.node for output in node.output}
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in values
        if all(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
    }
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    counts: dict[Precision, float] = {}
    for node in graph.node:
        if node.op_type not in MULTIPLICATIONS:
            continue
        sources = [producers.get(name) for name in node.input[:2]]
        is_quantized = all(source is not None and source.op_type == "DequantizeLinear" for source in sources)
        precision = "int8" if is_quantized else PRECISIONS[types[node.input[0]]]
        count = 2 * MULTIPLICATIONS[node.op_type](Operations(node, shapes))
        counts[precision] = counts.get(precision, 0.0) + count / 1e9
    return counts


def _with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy with the shapes of all values, for one batch size."""
    model = inline_local_functions(model)
    for value in model.graph.input:
        dim = value.type.tensor_type.shape.dim[0]
        if not dim.HasField("dim_value"):
            dim.dim_value = batch
    del model.graph.value_info[:]  # their batch is a name
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
