"""Makes torch programs of a bundle's graphs, from the network that the bundle was exported from."""

import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.export import Dim, ExportedProgram

from export.batch_norm_folding import fold_batch_norm
from export.graphs import Traceable, traceable_key, traceable_step
from export.half_precision import in_half_precision
from export.plan_building import Engine, build_plans
from export.plan_comparison import EngineError
from serving.bundle import FRAME_INPUTS, Bundle, GraphFile, Variant
from serving.plans import TorchKey
from serving.runtimes.torch_runtime import WIRING, TorchRuntime
from training.models.video_segmenter import VideoSegmenter

logger = logging.getLogger(__name__)

BATCHES = (1, 3)  # that programs are compared with; they take any


@dataclass(frozen=True)
class TorchBuilder:
    """Makes programs of a segmenter for the torch of a runtime."""

    bundle: Bundle
    segmenter: VideoSegmenter  # in evaluation mode
    runtime: TorchRuntime
    batches: tuple[int, ...] = BATCHES
    remedy: str = "name the run that the bundle was exported from"

    def key(self, graph: GraphFile, variant: Variant) -> TorchKey:
        """What the program of a graph depends on."""
        return TorchKey(onnx_sha256=graph.sha256, machine=self.runtime.machine, precision=variant.precision)

    def build(self, graph: GraphFile, variant: Variant) -> bytes:
        """The program of a graph.

        Raises:
            EngineError: if the segmenter has no such graph.
        """
        segmenter = self.segmenter.folded()
        if variant.precision == "fp16":
            segmenter = in_half_precision(segmenter)
        trace = traceable_key if graph == variant.key else traceable_step
        traceable = trace(segmenter, variant.height, variant.width)
        inputs = dict(zip(traceable.input_names, traceable.inputs, strict=True))
        state = [tuple(tensor.shape[1:]) for name, tensor in inputs.items() if name not in FRAME_INPUTS]
        if (set(traceable.input_names), set(traceable.output_names)) != (set(graph.inputs), set(graph.outputs)) or (
            state and state != [tensor.shape for tensor in variant.state]
        ):
            raise EngineError(
                f"the run's network does not have the inputs, outputs and state of {self.bundle.path(graph)}:"
                f" {self.remedy}"
            )
        return serialized(traceable)


def build_programs(
    bundle: Bundle, precision: str, segmenter: VideoSegmenter, runtime: TorchRuntime, folder: Path
) -> list[Engine]:
    """Sees to a program of every graph of one precision, see `build_plans`."""
    return build_plans(bundle, precision, TorchBuilder(bundle, segmenter, runtime), folder)


def serialized(traceable: Traceable) -> bytes:
    """A program's file, for any batch size, with the names of its inputs and outputs."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        module = torch.export.export(
            traceable.module,
            traceable.inputs,
            dynamic_shapes=cast("Any", traceable.dynamic_shapes),  # Any: as torch's
        ).module(check_guards=False)
        fold_batch_norm(module)
        batch = Dim("batch", min=1)
        shapes = tuple({0: batch} for _ in traceable.inputs)
        program: ExportedProgram = torch.export.export(module, traceable.inputs, dynamic_shapes=shapes)
        names = {"inputs": traceable.input_names, "outputs": traceable.output_names}
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={WIRING: json.dumps(names)})
    return content.getvalue()
