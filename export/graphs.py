"""The two graphs of a segmenter, with pre- and post-processing inside, as ONNX.

Derived from the two functions of a `VideoSegmenter`, never from its class: a new model exports without a change here.
Frames go in as uint8 RGB, labels come out as uint8: no constant of the model exists outside its graphs.
"""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from serving.bundle import NEXT, RESULTS
from training.models.video_segmenter import KeyState, Motion, VideoSegmenter
from training.models.warping import warp

# From opset 20 on torch writes GridSample mode "linear", which TensorRT's parser takes for NEAREST without a word
# (NVIDIA/TensorRT#4646).
OPSET = 19


@dataclass(frozen=True)
class StateShape:
    """A tensor of the state as a graph sees it."""

    name: str
    shape: tuple[int, ...]  # without the batch dimension


class KeyGraph(nn.Module):
    """frame -> state."""

    def __init__(self, segmenter: VideoSegmenter) -> None:
        """`segmenter` is in evaluation mode."""
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frame: Tensor) -> KeyState:
        """The state a key frame (B, H, W, 3) uint8 leaves."""
        return self.segmenter.encode_key(_network_frame(frame))


class StepGraph(nn.Module):
    """frame, previous frame, state -> labels, confidence, signals, next state.

    Without the previous frame if the segmenter does not look at it, and without what it leaves of the state as it was.
    """

    def __init__(self, segmenter: VideoSegmenter) -> None:
        """`segmenter` is in evaluation mode."""
        super().__init__()
        self.segmenter = segmenter

    def forward(self, frame: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """In the order of `serving.bundle.RESULTS`, then the next state; `past` is the previous frame and the state."""
        current = previous = _network_frame(frame)
        state = past
        if self.segmenter.reads_previous:
            previous, state = _network_frame(past[0]), past[1:]
        step = self.segmenter.propagate(state, previous, current)
        labels = self.segmenter.upsample(step.logits).argmax(1)
        # A bundle's confidence is of quarter resolution, whatever the network's stride.
        probabilities = self.segmenter.upsample(step.logits, stride=4).softmax(1)
        confidence = probabilities.amax(1)
        disagreement = step.propagated_logits.argmax(1) != step.logits.argmax(1)
        return (
            labels.float().to(torch.uint8),  # by way of float: TensorRT makes bytes of nothing else
            (confidence * 255).round().to(torch.uint8),
            confidence.mean((1, 2)),
            disagreement.float().mean((1, 2)),
            mean_entropy(probabilities),
            still_residual(current, previous) if step.motion is None else warp_residual(current, step.motion),
            *compress(step.state, advances(state, step.state)),
        )


def advances(state: KeyState, next_state: KeyState) -> tuple[bool, ...]:
    """For each tensor whether a step leaves another in its place. The very same one lasts until the next key frame."""
    return tuple(after is not before for before, after in zip(state, next_state, strict=True))


def mean_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of class probabilities (B, C, h, w) in units of the largest there can be, mean over pixels, (B,)."""
    entropy = -(probabilities * probabilities.clamp(min=1e-30).log()).sum(1)
    return entropy.mean((1, 2)) / math.log(max(probabilities.shape[1], 2))


def warp_residual(frame: Tensor, motion: Motion) -> Tensor:
    """Mean absolute difference of a frame (B, 3, H, W) and the earlier one moved along the flow, at its size, (B,)."""
    size = motion.flow.shape[2:]
    return (_resized(frame, size) - warp(_resized(motion.earlier, size), motion.flow)).abs().mean((1, 2, 3))


def still_residual(frame: Tensor, previous: Tensor) -> Tensor:
    """`warp_residual` of a network that carries nothing along: no flow, at quarter resolution."""
    size = (frame.shape[2] // 4, frame.shape[3] // 4)
    return (_resized(frame, size) - _resized(previous, size)).abs().mean((1, 2, 3))


def _resized(frame: Tensor, size: Sequence[int]) -> Tensor:
    """A smaller frame: of 4x4 pixels the mean of the inner four. Pooling over all of them takes many times as long."""
    return F.interpolate(frame, size=tuple(size), mode="bilinear", align_corners=False)


def state_shapes(segmenter: VideoSegmenter, height: int, width: int) -> tuple[StateShape, ...]:
    """The state's tensors for frames of one size."""
    with torch.no_grad():
        state = segmenter.encode_key(torch.zeros(1, 3, height, width))
    return tuple(
        StateShape(name, tuple(tensor.shape[1:])) for name, tensor in zip(segmenter.state_names, state, strict=True)
    )


class Traceable(NamedTuple):
    """A graph as a module, and what an exporter must know to trace it for one frame size and any batch size."""

    module: nn.Module
    inputs: tuple[Tensor, ...]  # of a batch of 2: an exporter would take 1 for a constant
    dynamic_shapes: tuple[object, ...]
    input_names: list[str]
    output_names: list[str]


def traceable_key(segmenter: VideoSegmenter, height: int, width: int) -> Traceable:
    """`KeyGraph`."""
    frame = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    module = KeyGraph(segmenter).eval()
    return Traceable(module, (frame,), ({0: _batch()},), ["frame"], list(segmenter.state_names))


def traceable_step(segmenter: VideoSegmenter, height: int, width: int) -> Traceable:
    """`StepGraph`."""
    frame = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with torch.no_grad():
        state = segmenter.encode_key(_network_frame(frame))
        tiny = torch.zeros(1, 3, 64, 64)
        tiny_state = segmenter.encode_key(tiny)
        is_advanced = advances(tiny_state, segmenter.propagate(tiny_state, tiny, tiny).state)
    frames = {"frame": frame} | ({"previous_frame": frame.clone()} if segmenter.reads_previous else {})
    inputs = frames | dict(zip(segmenter.state_names, state, strict=True))
    batch = _batch()
    return Traceable(
        StepGraph(segmenter).eval(),
        tuple(inputs.values()),
        ({0: batch}, tuple({0: batch} for _ in range(len(inputs) - 1))),
        list(inputs),
        [*RESULTS, *(NEXT + name for name in compress(segmenter.state_names, is_advanced))],
    )


def key_graph(segmenter: VideoSegmenter, height: int, width: int) -> onnx.ModelProto:
    """`KeyGraph` for one frame size and any batch size."""
    return _export(traceable_key(segmenter, height, width))


def step_graph(segmenter: VideoSegmenter, height: int, width: int) -> onnx.ModelProto:
    """`StepGraph` for one frame size and any batch size."""
    return _export(traceable_step(segmenter, height, width))


def _batch() -> Dim:
    return Dim("batch", min=1)


def _network_frame(frame: Tensor) -> Tensor:
    """What segmenters take, (B, 3, H, W) float32 in 0..1, from what cameras give."""
    return frame.float().permute(0, 3, 1, 2) / 255  # in this order: of bytes, TensorRT can but make floats


def _export(graph: Traceable) -> onnx.ModelProto:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        for chatty in ("torch.onnx", "onnx_ir", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.module,
            graph.inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=graph.input_names,
            output_names=graph.output_names,
            dynamic_shapes=graph.dynamic_shapes,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns one
    model = program.model_proto
    if not model.graph.node:  # the key graph of a per-frame network: ONNX Runtime loads none that does nothing at all
        model.graph.node.append(onnx.helper.make_node("Identity", graph.input_names[:1], ["unused"]))
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        del node.metadata_props[:]  # stack traces with the paths of this machine
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    _check_grid_sample(model)
    onnx.checker.check_model(model)
    return model


def _check_grid_sample(model: onnx.ModelProto) -> None:
    """A warp that TensorRT would read as nearest-neighbour must not leave this house."""
    for node in model.graph.node:
        if node.op_type == "GridSample":
            modes = [attribute.s.decode() for attribute in node.attribute if attribute.name == "mode"]
            assert modes == ["bilinear"], f"GridSample has mode {modes} at opset {OPSET}"
