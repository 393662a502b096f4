from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from torch.nn import functional as F

from export.fast_tail import MAX_SHARE_OF_MIXED_CELLS, with_fast_tail
from tests.export.conftest import Graphs

Scores = NDArray[np.float32]
CLASSES, HEIGHT, WIDTH = 5, 12, 20


def plain_tail(factor: int) -> onnx.ModelProto:
    """Scores in, labels out, as torch exports it."""
    scales = onnx.numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales")
    nodes = [
        helper.make_node("Identity", ["input"], ["scores"]),
        helper.make_node(
            "Resize",
            ["scores", "", "scales"],
            ["enlarged"],
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        ),
        helper.make_node("ArgMax", ["enlarged"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=onnx.TensorProto.UINT8),
    ]
    image: list[str | int | None] = ["batch", HEIGHT * factor, WIDTH * factor]
    size: list[str | int | None] = ["batch", CLASSES, HEIGHT, WIDTH]
    graph = helper.make_graph(
        nodes,
        "tail",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, image)],
        [scales],
        value_info=[helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, size)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def run(model: onnx.ModelProto, **feeds: NDArray[Any]) -> NDArray[np.uint8]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    labels: NDArray[np.uint8] = session.run(["labels"], feeds)[0]
    return labels


def smooth(batch: int) -> Scores:
    coarse = torch.randn(batch, CLASSES, 3, 4, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic").numpy()


def noise(batch: int) -> Scores:
    return np.random.default_rng(0).normal(size=(batch, CLASSES, HEIGHT, WIDTH)).astype(np.float32)


def share_of_mixed_cells(scores: Scores) -> float:
    """Cells between four scores that do not prefer one class, those at the edge by copies of it."""
    best = np.pad(scores.argmax(1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    corners = np.stack([best[:, :-1, :-1], best[:, :-1, 1:], best[:, 1:, :-1], best[:, 1:, 1:]])
    return float((corners.max(0) != corners.min(0)).mean())


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_fast_tail_gives_the_labels_of_the_plain_one(factor: int, batch: int) -> None:
    scores = smooth(batch)
    assert 0 < share_of_mixed_cells(scores) < MAX_SHARE_OF_MIXED_CELLS  # so this is the fast branch
    expected = F.interpolate(torch.from_numpy(scores), scale_factor=float(factor), mode="bilinear").argmax(1)
    model = with_fast_tail(plain_tail(factor))
    assert (run(model, input=scores) == expected.numpy()).all()


def test_a_tail_with_aligned_corners_stays_as_it_is() -> None:
    model = plain_tail(4)
    (resize,) = [node for node in model.graph.node if node.op_type == "Resize"]
    (mode,) = [each for each in resize.attribute if each.name == "coordinate_transformation_mode"]
    mode.s = b"align_corners"
    assert with_fast_tail(model) == model


def test_scores_that_change_everywhere_take_the_plain_tail_and_the_same_labels() -> None:
    scores = noise(2)
    assert share_of_mixed_cells(scores) > MAX_SHARE_OF_MIXED_CELLS
    expected = F.interpolate(torch.from_numpy(scores), scale_factor=4.0, mode="bilinear").argmax(1)
    assert (run(with_fast_tail(plain_tail(4)), input=scores) == expected.numpy()).all()


def test_one_class_everywhere_needs_no_interpolation() -> None:
    scores = np.zeros((1, CLASSES, HEIGHT, WIDTH), np.float32)
    scores[:, 3] = 1
    labels = run(with_fast_tail(plain_tail(4)), input=scores)
    assert labels.shape == (1, 4 * HEIGHT, 4 * WIDTH)
    assert (labels == 3).all()


def test_two_scores_divide_the_pixels_between_them_where_they_cross() -> None:
    """Class 1 has 1 on the left column and class 2 has 3 on the others: they cross at a quarter of the cell."""
    scores = np.zeros((1, CLASSES, HEIGHT, WIDTH), np.float32)
    scores[:, 1, :, 0] = 1
    scores[:, 2, :, 1:] = 3
    row = run(with_fast_tail(plain_tail(8)), input=scores)[0, 0]
    # Middles of the first two scores lie at 4 and 12 pixels; the crossing at 6; pixel 6 has its middle at 6.5.
    assert row.tolist() == [1] * 6 + [2] * (8 * WIDTH - 6)


def test_the_step_of_every_segmenter_has_a_tail_that_can_be_replaced(graphs: Graphs) -> None:
    step = onnx.load(graphs.step)
    before = step.SerializeToString()
    fast = with_fast_tail(step)
    assert step.SerializeToString() == before
    assert [output.name for output in fast.graph.output] == [output.name for output in step.graph.output]
    generator = np.random.default_rng(0)
    feeds = {
        value.name: generator.integers(0, 255, (2, 64, 128, 3), np.uint8)
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        else generator.normal(size=(2, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))).astype(np.float32)
        for value in step.graph.input
    }
    assert (run(fast, **feeds) == run(step, **feeds)).mean() > 0.9999


def test_another_tail_is_refused() -> None:
    model = plain_tail(4)
    model.graph.node[2].op_type = "ArgMin"
    with pytest.raises(ValueError, match="labels are made by Resize, ArgMin, Cast, not by a plain tail"):
        with_fast_tail(model)
