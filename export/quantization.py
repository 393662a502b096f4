"""Graphs in 8-bit integers, calibrated on frames of the domain that they will see.

Convolutions alone are quantised, per output channel; those whose few values decide much stay as they are: each network
names its own (`sensitive_layers`). The scales come from the range of every convolution's input on calibration frames,
on which the state passes from key graph to step graph as in service. Two ways of writing the same integers: `unsigned`
for ONNX Runtime and OpenVINO on CPUs, `symmetric` for TensorRT, which takes no zero points.
"""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from torch import nn

Style = Literal["unsigned", "symmetric"]
Feed = dict[str, NDArray[Any]]  # inputs of a graph by name
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # two frames in a row, (H, W, 3) RGB each


class QuantizedGraphs(NamedTuple):
    """The graphs of a segmenter in 8-bit integers."""

    key: onnx.ModelProto
    step: onnx.ModelProto


def quantize(
    key: onnx.ModelProto, step: onnx.ModelProto, sensitive: frozenset[str], pairs: Sequence[Pair]
) -> dict[Style, QuantizedGraphs]:
    """Graphs in single precision as graphs in 8-bit integers, in both styles.

    Args:
        key: see `export.graphs.KeyGraph`.
        step: see `export.graphs.StepGraph`.
        sensitive: names of weights that stay as they are, see `sensitive_weights`.
        pairs: frames to calibrate on.

    Raises:
        ValueError: if there are none.
    """
    if not pairs:
        raise ValueError("int8 graphs are calibrated on frames, and there are none: give --calibration DIR")
    with tempfile.TemporaryDirectory(prefix="flowseg-calibration-") as folder:
        return {
            style: QuantizedGraphs(
                _quantize(key, sensitive, style, _key_feeds(pairs), Path(folder) / "key"),
                _quantize(step, sensitive, style, _step_feeds(key, step, pairs), Path(folder) / "step"),
            )
            for style in get_args(Style)
        }


def _key_feeds(pairs: Sequence[Pair]) -> Iterator[Feed]:
    for frames in pairs:
        for frame in frames:
            yield {"frame": frame[None]}


def _step_feeds(key_graph: onnx.ModelProto, step_graph: onnx.ModelProto, pairs: Sequence[Pair]) -> Iterator[Feed]:
    key = onnxruntime.InferenceSession(key_graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in key.get_outputs()]
    taken = {value.name for value in step_graph.graph.input}
    for previous, frame in pairs:
        state = dict(zip(names, key.run(names, {"frame": previous[None]}), strict=True)) if names else {}
        feed = {"frame": frame[None], "previous_frame": previous[None], **state}
        yield {name: array for name, array in feed.items() if name in taken}


def _quantize(
    model: onnx.ModelProto, sensitive: frozenset[str], style: Style, feeds: Iterator[Feed], stem: Path
) -> onnx.ModelProto:
    """One graph. The ranges are kept beside `stem`, so the second style needs no calibration of its own."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    chosen = [node.name for node in convolutions if node.input[1] not in sensitive]
    if not chosen:  # the key graph of a per-frame network
        return model
    prepared = copy.deepcopy(model)
    add_pre_process_metadata(prepared)  # BatchNorm is folded and shapes are known
    symmetric = style == "symmetric"
    quantized = stem.with_suffix(f".{style}.onnx")
    quantize_static(
        prepared,
        quantized,
        _Reader(feeds),
        op_types_to_quantize=["Conv"],
        nodes_to_quantize=chosen,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric},
        calibration_cache_path=stem.with_suffix(".json"),
    )
    result = onnx.load(quantized)
    del result.metadata_props[:]
    return result


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """What ONNX Runtime calls an iterator."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> Feed | None:
        """The next inputs of a graph, None at the end."""
        return next(self._feeds, None)


def sensitive_weights(graph: nn.Module) -> frozenset[str]:
    """Names, as in the exported file, of the weights that networks below `graph` want to keep in floating point.

    Key and step hold the same segmenter under the same name, so either graph names those of both.
    """
    layers = [
        (f"{path}.{layer}." if path else f"{layer}.")
        for path, module in graph.named_modules()
        for layer in getattr(module, "sensitive_layers", ())
    ]
    return frozenset(name for name, _ in graph.named_parameters() if name.startswith(tuple(layers)))
