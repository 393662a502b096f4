import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.graph_operations import giga_operations
from export.fast_tail import with_fast_tail
from export.graphs import KeyGraph, StepGraph, key_graph, step_graph
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.models.video_segmenter import SegmenterConfig

SIZE = (64, 128)
SMALL = {
    "per_frame": PerFrameConfig(backbone="resnet10_slim"),
    "accel": AccelConfig(
        reference="resnet10_slim", update="resnet10_slim", flow_net=FlowNetSConfig(width=0.25)
    ),
}  # fmt: skip


def model_of(
    nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], weights: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(dims, np.float32), name) for name, dims in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize(
    ("node", "shape", "weight", "multiplications"),
    [
        # 8 channels of 4x8 pixels, each of 3 channels under 3x3
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]), ("batch", 3, 8, 16),
         (8, 3, 3, 3), 8 * 4 * 8 * 27),
        # in two groups: each channel sees 2 of 4
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2), ("batch", 4, 5, 5), (6, 2, 3, 3), 6 * 3 * 3 * 18),
        # with holes, as many products as without
        (helper.make_node("Conv", ["x", "w"], ["y"], dilations=[2, 2]), ("batch", 1, 9, 9), (1, 1, 3, 3), 25 * 9),
        # 2 channels of 4x4 pixels, each spread over 3 channels by 4x4
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), ("batch", 2, 4, 4), (2, 3, 4, 4),
         2 * 16 * 48),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), ("batch", 4, 5), (5, 7), 4 * 7 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), ("batch", 5), (5, 7), 7 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), ("batch", 5), (7, 5), 7 * 5),
    ],
)  # fmt: skip
def test_operations_are_those_counted_by_hand(
    node: onnx.NodeProto, shape: tuple[int | str, ...], weight: tuple[int, ...], multiplications: int
) -> None:
    model = model_of([node], shape, {"w": weight})
    assert giga_operations(model) == {"fp32": pytest.approx(2 * multiplications / 1e9)}
    assert giga_operations(model, batch=3) == {"fp32": pytest.approx(3 * 2 * multiplications / 1e9)}


def test_a_transposed_gemm_sums_over_the_first_dimension() -> None:
    model = model_of([helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)], (5, 3), {"w": (5, 7)})
    assert giga_operations(model) == {"fp32": pytest.approx(2 * 3 * 7 * 5 / 1e9)}


def test_operations_between_dequantized_values_are_those_of_integers() -> None:
    def dequantized(name: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale"], [f"{name}_d"]),
        ]

    nodes = [
        *dequantized("x"),
        *dequantized("w"),
        helper.make_node("Conv", ["x_d", "w_d"], ["middle"]),
        helper.make_node("Conv", ["middle", "w"], ["y"]),
    ]
    model = model_of(nodes, ("batch", 2, 4, 5), {"w": (2, 2, 1, 1), "scale": ()})
    assert giga_operations(model) == {"int8": pytest.approx(160e-9), "fp32": pytest.approx(160e-9)}


@pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)
def test_graphs_have_as_many_operations_as_torch_counts_in_their_networks(config: SegmenterConfig) -> None:
    segmenter = config.build(num_classes=15).eval().folded()
    frame = torch.zeros(1, *SIZE, 3, dtype=torch.uint8)

    def counted(graph: nn.Module, *inputs: object) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            graph(*inputs)
        return float(counter.get_total_flops()) / 1e9

    key = KeyGraph(segmenter)
    assert sum(giga_operations(key_graph(segmenter, *SIZE)).values()) == pytest.approx(counted(key, frame))
    with torch.no_grad():
        state = key(frame)
    model, expected = step_graph(segmenter, *SIZE), counted(StepGraph(segmenter), frame, frame, *state)
    assert giga_operations(model) == {"fp32": pytest.approx(expected)}
    assert giga_operations(with_fast_tail(model)) == {"fp32": pytest.approx(expected)}
