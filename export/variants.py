"""Writes the variants of a segmenter: each precision in the form that each kind of runtime is fastest with.

| precision | for | graphs |
|---|---|---|
| fp32 | ONNX Runtime and OpenVINO on a CPU | the fast tail in the step |
| fp32 | ONNX Runtime's CUDA, TensorRT | the same key, the plain tail |
| fp16 | ONNX Runtime's CUDA, TensorRT | large networks in half precision |
| int8 | ONNX Runtime and OpenVINO on a CPU | unsigned activations, the fast tail in the step |
| int8 | TensorRT | symmetric activations, the plain tail |
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from export.fast_tail import with_fast_tail
from export.graphs import StepGraph, key_graph, state_shapes, step_graph
from export.half_precision import in_half_precision
from export.quantization import Pair, quantize, sensitive_weights
from serving.bundle import GraphFile, GraphRuntime, Precision, StateTensor, Variant, file_sha256
from training.models.video_segmenter import VideoSegmenter

CPU: tuple[GraphRuntime, ...] = ("onnxruntime-cpu", "openvino")
GPU: tuple[GraphRuntime, ...] = ("onnxruntime-cuda", "tensorrt")


@dataclass
class VariantWriter:
    """Writes the variants of one frame size into a folder."""

    segmenter: VideoSegmenter  # in evaluation mode, folded
    height: int  # of frames, in pixels
    width: int
    folder: Path
    metadata: Mapping[str, str] = field(default_factory=dict)  # for every file
    calibration: Sequence[Pair] = ()  # frames of this size; int8 needs some

    def write(self, precision: Precision) -> Iterator[Variant]:
        """The variants of a precision, written one after the other.

        Raises:
            ValueError: if int8 has nothing to be calibrated on.
        """
        match precision:
            case "fp32":
                key = self._save("key.fp32", self._single[0])
                step = self._single[1]
                yield self._variant(precision, CPU, key, self._save("step.fp32.cpu", with_fast_tail(step)))
                yield self._variant(precision, GPU, key, self._save("step.fp32.gpu", step))
            case "fp16":
                half = in_half_precision(self.segmenter)
                key = self._save("key.fp16", key_graph(half, self.height, self.width))
                step = step_graph(half, self.height, self.width)
                yield self._variant(precision, GPU, key, self._save("step.fp16", step))
            case "int8":
                quantized = quantize(*self._single, sensitive_weights(StepGraph(self.segmenter)), self.calibration)
                unsigned, symmetric = quantized["unsigned"], quantized["symmetric"]
                key = self._save("key.int8.unsigned", unsigned.key)
                step_file = self._save("step.int8.unsigned", with_fast_tail(unsigned.step))
                yield self._variant(precision, CPU, key, step_file)
                key = self._save("key.int8.symmetric", symmetric.key)
                step_file = self._save("step.int8.symmetric", symmetric.step)
                yield self._variant(precision, ("tensorrt",), key, step_file)

    @cached_property
    def _single(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        """Key and step in single precision, with the plain tail."""
        size = (self.height, self.width)
        return key_graph(self.segmenter, *size), step_graph(self.segmenter, *size)

    def _variant(
        self, precision: Precision, runtimes: tuple[GraphRuntime, ...], key: GraphFile, step: GraphFile
    ) -> Variant:
        state = state_shapes(self.segmenter, self.height, self.width)
        return Variant(
            precision=precision,
            runtimes=runtimes,
            height=self.height,
            width=self.width,
            state=tuple(StateTensor(name=tensor.name, shape=tensor.shape) for tensor in state),
            key=key,
            step=step,
        )

    def _save(self, name: str, model: onnx.ModelProto) -> GraphFile:
        path = self.folder / f"{name}.{self.height}x{self.width}.onnx"
        for key, text in {**self.metadata, "flowseg.graph": name.partition(".")[0]}.items():
            model.metadata_props.add(key=key, value=text)
        onnx.save_model(model, path)
        del model.metadata_props[:]  # the same model may become another file
        return GraphFile(
            file=path.name,
            sha256=file_sha256(path),
            inputs=tuple(value.name for value in model.graph.input),
            outputs=tuple(value.name for value in model.graph.output),
        )
