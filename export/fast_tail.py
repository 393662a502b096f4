"""Labels at the frame's size without computing the scores there: the exact tail of graphs for CPUs.

A graph's tail enlarges the class scores s times by bilinear interpolation and takes the best class of each pixel.
Between four neighbours interpolation is a weighted mean, so where all four prefer one class every pixel between them
does. The fast tail fills such cells with their class and interpolates only in the others, in a street a tenth to a
sixth. If there are many of those it falls back to the plain tail, which is faster then.

Its operators have results of a size that the scores decide: fit for CPUs, not for graphs on a GPU. Where corners are
aligned, s is no whole number and cells are not of one size: such graphs keep the plain tail.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

MAX_SHARE_OF_MIXED_CELLS = 0.4  # above it the plain tail is faster
PREFIX = "fast_tail/"  # of the names of its nodes and values


def with_fast_tail(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a step graph whose `labels` come from the fast tail; an unchanged copy where corners are aligned.

    Raises:
        ValueError: if `labels` are not the best class of bilinearly enlarged scores.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    tail = _plain_tail(model.graph)
    resize = tail[0]
    if helper.get_node_attr_value(resize, "coordinate_transformation_mode") == b"align_corners":
        return model
    scores, factor = resize.input[0], int(_scales(model.graph, resize)[-1])
    for node in tail:
        model.graph.node.remove(node)
    tail[-1].output[0] = PREFIX + "plain_labels"
    plain = helper.make_graph(tail, "plain_tail", [], [_labels_of_a_branch(PREFIX + "plain_labels")])
    fast = _FastTail(scores, *_height_and_width(model.graph, scores), factor)
    model.graph.initializer.extend(fast.constants)
    model.graph.node.extend(fast.cells)
    model.graph.node.append(
        helper.make_node("If", [fast.is_plain], ["labels"], PREFIX + "If", then_branch=plain, else_branch=fast.branch)
    )
    onnx.checker.check_model(model)
    return model


def _plain_tail(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Resize, ArgMax and casts, in the order of their work."""
    producers = {output: node for node in graph.node for output in node.output}
    nodes = [producers["labels"]]
    while nodes[0].op_type == "Cast":
        nodes.insert(0, producers[nodes[0].input[0]])
    nodes.insert(0, producers[nodes[0].input[0]])
    if [node.op_type for node in nodes if node.op_type != "Cast"] != ["Resize", "ArgMax"]:
        raise ValueError(f"labels are made by {', '.join(node.op_type for node in nodes)}, not by a plain tail")
    return nodes


def _scales(graph: onnx.GraphProto, resize: onnx.NodeProto) -> NDArray[Any]:
    """How much each dimension is enlarged, (4,)."""
    return next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == resize.input[2])


def _height_and_width(graph: onnx.GraphProto, scores: str) -> tuple[int, int]:
    """Of scores (B, C, h, w)."""
    shape = next(value.type.tensor_type.shape for value in graph.value_info if value.name == scores)
    return shape.dim[2].dim_value, shape.dim[3].dim_value


def _labels_of_a_branch(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None)


class _FastTail:
    """Nodes that find the cells, a truth value that asks for the plain tail, and the branch that does without it.

    A cell lies between four scores. The image is padded by copies of its edge, as interpolation does there, so with
    scores of (h, w) there are (h + 1, w + 1) cells of s x s pixels each, and the outermost half of their pixels is cut.
    """

    def __init__(self, scores: str, height: int, width: int, factor: int) -> None:
        """Writes the nodes for scores (B, C, h, w) that are to be enlarged `factor` times."""
        self.constants: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._write_cells(scores, height, width)
        self.cells, self._nodes = self._nodes, []
        self._write_branch(scores, height, width, factor)
        labels = PREFIX + "fast_labels"
        self._nodes[-1].output[0] = labels
        self.branch = helper.make_graph(self._nodes, "fast_tail", [], [_labels_of_a_branch(labels)])

    def _node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:  # one name or several
        name = f"{PREFIX}{op_type}_{len(self.constants)}_{len(self._nodes)}"
        names = [f"{name}:{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, name, **attributes))
        return names[0] if outputs == 1 else names

    def _constant(self, values: object, dtype: type) -> str:
        name = f"{PREFIX}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def _write_cells(self, scores: str, height: int, width: int) -> None:
        best = self._node("ArgMax", scores, axis=1, keepdims=0)
        best = self._node("Cast", best, to=onnx.TensorProto.INT32)
        best = self._node("Pad", best, self._constant([0, 1, 1, 0, 1, 1], np.int64), mode="edge")
        corners = [self._corner(best, y, x, height, width) for y in (0, 1) for x in (0, 1)]
        highest, lowest = self._node("Max", *corners), self._node("Min", *corners)
        mixed = self._node("Not", self._node("Equal", highest, lowest))
        self._cell_labels = self._node("Cast", highest, to=onnx.TensorProto.UINT8)
        # (N, 3) of image, row and column
        self._mixed_cells = self._node("Transpose", self._node("NonZero", mixed), perm=[1, 0])
        share = self._node("ReduceMean", self._node("Cast", mixed, to=onnx.TensorProto.FLOAT), keepdims=0)
        self.is_plain = self._node("Greater", share, self._constant(MAX_SHARE_OF_MIXED_CELLS, np.float32))

    def _corner(self, best: str, y: int, x: int, height: int, width: int) -> str:
        """The best class at one corner of every cell, (B, h + 1, w + 1)."""
        begin, end = self._constant([y, x], np.int64), self._constant([y + height + 1, x + width + 1], np.int64)
        corner: str = self._node("Slice", best, begin, end, self._constant([1, 2], np.int64))
        return corner

    def _write_branch(self, scores: str, height: int, width: int, factor: int) -> None:
        pixels = factor * factor
        pixel_labels = self._interpolated(scores, height, width, factor)
        cells = self._node("Unsqueeze", self._cell_labels, self._constant([3], np.int64))
        shape = self._node("Concat", self._node("Shape", self._cell_labels), self._constant([pixels], np.int64), axis=0)
        blocks = self._node("Expand", cells, shape)  # (B, h + 1, w + 1, s * s)
        blocks = self._node("ScatterND", blocks, self._mixed_cells, pixel_labels)
        split = self._constant([0, 0, 0, factor, factor], np.int64)
        rows = self._node("Transpose", self._node("Reshape", blocks, split), perm=[0, 1, 3, 2, 4])
        image = [0, (height + 1) * factor, (width + 1) * factor]  # 0: the batch as it is
        padded = self._node("Reshape", rows, self._constant(image, np.int64))
        begin = self._constant([factor // 2] * 2, np.int64)
        end = self._constant([factor // 2 + height * factor, factor // 2 + width * factor], np.int64)
        self._node("Slice", padded, begin, end, self._constant([1, 2], np.int64))

    def _interpolated(self, scores: str, height: int, width: int, factor: int) -> str:
        """Labels of the pixels of mixed cells, (N, s * s)."""
        corners = [[0, y - 1, x - 1] for y in (0, 1) for x in (0, 1)]  # of a cell, in pixels of the scores
        places = self._node("Unsqueeze", self._mixed_cells, self._constant([1], np.int64))
        places = self._node("Add", places, self._constant([corners], np.int64))  # (N, 4, 3)
        largest = np.iinfo(np.int64).max
        places = self._node("Max", places, self._constant([0, 0, 0], np.int64))
        places = self._node("Min", places, self._constant([largest, height - 1, width - 1], np.int64))
        by_pixel = self._node("Transpose", scores, perm=[0, 2, 3, 1])
        of_corners = self._node("GatherND", by_pixel, places)  # (N, 4, C)
        fractions = (np.arange(factor) + 0.5) / factor
        along = np.stack([1 - fractions, fractions], axis=1)  # (s, 2)
        weights = np.einsum("ya,xb->yxab", along, along).reshape(factor * factor, 4)
        pixels = self._node("MatMul", self._constant(weights, np.float32), of_corners)  # (N, s * s, C)
        best = self._node("ArgMax", pixels, axis=2, keepdims=0)
        labels: str = self._node("Cast", best, to=onnx.TensorProto.UINT8)
        return labels
