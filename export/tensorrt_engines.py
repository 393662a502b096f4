"""Builds TensorRT plans of a bundle's graphs, and keeps those that answer like the graphs.

One way for TensorRT 10 and 11: networks are strongly typed, so precision is what the ONNX file says, and the builder is
told nothing of it. TF32 is off, or "fp32" would mean ten bits of mantissa.

Each batch size has an optimisation profile of its own in which every shape is fixed: its kernels are chosen for just
that size, and its run can be captured as a CUDA graph.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from export.plan_building import Engine, build_plans
from export.plan_comparison import EngineError
from serving.bundle import Bundle, GraphFile, Variant
from serving.plans import TensorRTKey, write_whole
from serving.runtimes.tensorrt_runtime import TensorRTRuntime

logger = logging.getLogger(__name__)

FLAGS = ("strongly_typed", "no_tf32")  # what the builder is told beside the fields of a plan's key


class BuildOptions(NamedTuple):
    """What a user chooses of a plan beside its precision."""

    batches: tuple[int, ...]  # ascending, from 1
    workspace_bytes: int


@dataclass(frozen=True)
class TensorRTBuilder:
    """Builds plans of a bundle's graphs for the GPU of a runtime."""

    bundle: Bundle
    options: BuildOptions
    runtime: TensorRTRuntime
    folder: Path  # where what was measured of kernels is kept
    remedy: str = "try another --precision or TensorRT version"

    @property
    def batches(self) -> tuple[int, ...]:
        """Each has a profile of its own."""
        return self.options.batches

    def key(self, graph: GraphFile, variant: Variant) -> TensorRTKey:
        """What the plan of a graph depends on."""
        return TensorRTKey(
            onnx_sha256=graph.sha256,
            machine=self.runtime.machine,
            precision=variant.precision,
            batches=self.options.batches,
            workspace_bytes=self.options.workspace_bytes,
            flags=FLAGS,
        )

    def build(self, graph: GraphFile, variant: Variant) -> bytes:
        """The plan of a graph.

        Raises:
            EngineError: if TensorRT cannot build it.
        """
        logger.info("building %s for batches of %s: takes minutes", graph.file, self.options.batches)
        return _build(self.bundle.path(graph), self.key(graph, variant), self.runtime, self.folder)


def build_engines(
    bundle: Bundle, precision: str, options: BuildOptions, runtime: TensorRTRuntime, folder: Path
) -> list[Engine]:
    """Sees to a plan of every graph of one precision, see `build_plans`."""
    return build_plans(bundle, precision, TensorRTBuilder(bundle, options, runtime, folder), folder)


def _build(path: Path, key: TensorRTKey, runtime: TensorRTRuntime, folder: Path) -> bytes:
    """The plan of an ONNX file. What TensorRT measured of kernels is kept in `folder` for the next one."""
    trt, messages = runtime.tensorrt, runtime.messages
    messages.forget_errors()
    try:
        builder = trt.Builder(messages.logger)
    except TypeError as error:  # what the bindings make of a builder that is null
        raise EngineError(f"TensorRT does not start{messages.reason()}: check the NVIDIA driver") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        told = "; ".join(f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors)
        raise EngineError(f"TensorRT {runtime.machine.tensorrt} cannot read {path} ({told}): please report this")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, key.workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    for batch in key.batches:
        _add_profile(builder, network, config, batch)
    timing_file = folder / f"timing.{hashlib.sha256(key.machine.model_dump_json().encode()).hexdigest()[:16]}.cache"
    timings = config.create_timing_cache(timing_file.read_bytes() if timing_file.is_file() else b"")
    if not config.set_timing_cache(timings, False):  # damaged, or of another GPU after all
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT {runtime.machine.tensorrt} cannot build {path.name}{messages.reason()}: if memory ran out, free"
            " the GPU of other programs, give it more --workspace, or ask for smaller --batch"
        )
    write_whole(timing_file, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _add_profile(builder: Any, network: Any, config: Any, batch: int) -> None:  # Any: TensorRT has no types
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = (batch, *tuple(tensor.shape)[1:])
        profile.set_shape(tensor.name, shape, shape, shape)
    config.add_optimization_profile(profile)
