"""Builds TensorRT plans of a bundle's graphs, and keeps those that answer like the graphs.

One way for TensorRT 10 and 11: networks are strongly typed, so precision is what the ONNX file says, and the builder is
told nothing of it. TF32 is off, or "fp32" would mean ten bits of mantissa.

Each batch size has an optimisation profile of its own in which every shape is fixed: its kernels are chosen for just
that size, and its run can be captured as a CUDA graph.
"""

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.bundle import NEXT, Bundle, BundleError, GraphFile, Variant
from serving.engine import log_run
from serving.graphs import Answer, ModelGraphs
from serving.plans import Comparison, Machine, Plan, PlanKey, Sidecar, check_owner, read_plan, write_plan, write_whole
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.runtime import Array, Graph, Runtime, Value
from serving.runtimes.tensorrt_runtime import TensorRTRuntime
from training.data.world.render import render_clip
from training.progress import with_progress

logger = logging.getLogger(__name__)

FLAGS = ("strongly_typed", "no_tf32")  # what the builder is told beside the fields of a plan's key
NUM_FRAMES = 4  # of each of two clips
MIN_LABEL_AGREEMENT = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.97}  # share of pixels
MAX_STATE_DIFFERENCE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2}  # relative to the state's largest absolute value


class EngineError(RuntimeError):
    """Plans that could not be built, or do not answer like their graphs. The message is one sentence."""


class BuildOptions(NamedTuple):
    """What a user chooses of a plan beside its precision."""

    batches: tuple[int, ...]  # ascending, from 1
    workspace_bytes: int


class Engine(NamedTuple):
    """A plan of a graph, and whether it was there before."""

    plan: Plan
    is_cached: bool


def build_engines(
    bundle: Bundle, precision: str, options: BuildOptions, runtime: TensorRTRuntime, folder: Path
) -> list[Engine]:
    """Sees to a plan of every graph of one precision. Plans that are there, whole, are kept.

    Raises:
        BundleError: if the bundle has no such graphs, or `folder` is not the user's own.
        EngineError: if TensorRT cannot build a plan, or the plans do not answer like the graphs; these are not kept.
    """
    suited = [variant for variant in bundle.manifest.variants if runtime.name in variant.runtimes]
    variants = [variant for variant in suited if variant.precision == precision]
    if not variants:
        there = f", only {', '.join(sorted({variant.precision for variant in suited}))}" if suited else ""
        raise BundleError(
            f"{bundle.folder} has no {precision} graphs for TensorRT{there}: export some with"
            f" 'python export/to_onnx.py RUN --out BUNDLE --precision {precision}'"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{folder} cannot be written ({error.strerror}): choose another --engines") from error
    if not os.access(folder, os.W_OK):  # said now rather than after minutes
        raise EngineError(f"{folder} cannot be written: choose another --engines")
    check_owner(folder)
    return [engine for variant in variants for engine in _build_variant(bundle, variant, options, runtime, folder)]


def _build_variant(
    bundle: Bundle, variant: Variant, options: BuildOptions, runtime: TensorRTRuntime, folder: Path
) -> list[Engine]:
    graphs = [variant.key, variant.step] if variant.state else [variant.step]
    keys = {graph.file: _plan_key(graph, variant, options, runtime.machine) for graph in graphs}
    cached = {file: read_plan(folder, key) for file, key in keys.items()}
    if all(cached.values()):
        logger.info("the plans of %s are there", " and ".join(keys))
        return [Engine(plan, True) for plan in cached.values() if plan]
    contents: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    for graph in with_progress(graphs, "TensorRT plans"):
        plan = cached[graph.file]
        if plan is not None:
            contents[graph.file] = plan.path.read_bytes()
            continue
        logger.info("building %s for batches of %s: takes minutes", graph.file, options.batches)
        begin = time.monotonic()
        contents[graph.file] = _build(bundle.path(graph), keys[graph.file], runtime, folder)
        seconds[graph.file] = time.monotonic() - begin
        logger.info("built %s in %.0f s", graph.file, seconds[graph.file])
    comparison = compare(bundle, variant, _PlansAtHand(runtime, contents), options.batches)
    engines = []
    for file, key in keys.items():
        plan = cached[file]
        if plan is None:
            sidecar = Sidecar(
                graph=file,
                key=key,
                plan_sha256=hashlib.sha256(contents[file]).hexdigest(),
                build_seconds=seconds[file],
                comparison=comparison,
            )
            engines.append(Engine(write_plan(folder, contents[file], sidecar), False))
        else:
            engines.append(Engine(plan, True))
    return engines


def _plan_key(graph: GraphFile, variant: Variant, options: BuildOptions, machine: Machine) -> PlanKey:
    return PlanKey(
        onnx_sha256=graph.sha256,
        machine=machine,
        precision=variant.precision,
        batches=options.batches,
        workspace_bytes=options.workspace_bytes,
        flags=FLAGS,
    )


def _build(path: Path, key: PlanKey, runtime: TensorRTRuntime, folder: Path) -> bytes:
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


class _PlansAtHand:
    """A runtime for plans that are not on disk."""

    def __init__(self, runtime: TensorRTRuntime, contents: dict[str, bytes]) -> None:
        """`contents` are plans by the name of their ONNX file."""
        self._runtime = runtime
        self._contents = contents
        self.name = runtime.name
        self.description = runtime.description

    def load(self, path: Path) -> Graph:
        """Loads the plan of an ONNX file."""
        return self._runtime.load_plan(self._contents[path.name], path)

    def to_device(self, array: Array) -> Value:
        """A copy on the GPU."""
        return self._runtime.to_device(array)

    def to_host(self, value: Value) -> Array:
        """A copy of what lies on the GPU."""
        return self._runtime.to_host(value)


class _Answers(NamedTuple):
    """What a stream was answered."""

    labels: NDArray[np.uint8]  # (T, H, W)
    states: list[dict[str, Array]]  # after the key frame, and after the last frame


def compare(bundle: Bundle, variant: Variant, runtime: Runtime, batches: Sequence[int]) -> Comparison:
    """Streams clips of the embedded world through a runtime, in batches of each size, and through the ONNX graphs.

    Raises:
        BundleError: if the graphs cannot be run.
        EngineError: if the answers differ by more than the precision accounts for.
    """
    size = (variant.height, variant.width)
    clips = [render_clip(seed, "target", size, NUM_FRAMES).frames for seed in (1, 2)]
    reference = OnnxRuntime("cpu")
    expected = _stream(ModelGraphs(bundle, variant, reference, log_run), reference, clips)
    graphs = ModelGraphs(bundle, variant, runtime, log_run)
    agreements, differences = [], [0.0]
    for batch in batches:
        choice = [index % len(clips) for index in range(batch)]
        for answer, index in zip(_stream(graphs, runtime, [clips[index] for index in choice]), choice, strict=True):
            agreements.append(float(np.mean(answer.labels == expected[index].labels)))
            for state, wanted in zip(answer.states, expected[index].states, strict=True):
                differences += [_difference(state[name], wanted[name]) for name in wanted]
    agreement, difference = float(np.min(agreements)), float(np.max(differences))  # NumPy's hand a NaN on
    min_agreement, max_difference = MIN_LABEL_AGREEMENT[variant.precision], MAX_STATE_DIFFERENCE[variant.precision]
    if not agreement >= min_agreement or not difference <= max_difference:  # a NaN fails too
        raise EngineError(
            f"the TensorRT plans of {variant.step.file} do not answer like the graphs on ONNX Runtime:"
            f" {100 * agreement:.3f} % of labels agree (at least {100 * min_agreement:g} % should for"
            f" {variant.precision}), the state differs by {difference:.1e} (at most {max_difference:.0e} may); they"
            " were not kept, try another --precision or TensorRT version"
        )
    return Comparison(label_agreement=agreement, max_state_difference=difference, frames=NUM_FRAMES * sum(batches))


def _stream(graphs: ModelGraphs, runtime: Runtime, clips: Sequence[NDArray[np.uint8]]) -> list[_Answers]:
    """Answers several streams at once, which have their key frame at their first frame."""
    key_frames = [runtime.to_device(clip[:1]) for clip in clips]
    states = _all(graphs.encode_keys(key_frames))
    first = _to_host(states, runtime)
    labels, previous = [], key_frames
    for t in range(len(clips[0])):
        frames = key_frames if t == 0 else [runtime.to_device(clip[t : t + 1]) for clip in clips]
        requests = [
            state | {"frame": frame, "previous_frame": before, "key_frame": key_frame}
            for state, frame, before, key_frame in zip(states, frames, previous, key_frames, strict=True)
        ]
        outputs = _all(graphs.step(requests))
        labels.append([runtime.to_host(output["labels"])[0] for output in outputs])
        if t > 0:  # as in the engine: after a key frame, the state is what the key graph gave
            states = [
                {name: output.get(NEXT + name, value) for name, value in state.items()}
                for state, output in zip(states, outputs, strict=True)
            ]
        previous = frames
    last = _to_host(states, runtime)
    return [
        _Answers(np.stack(own_labels), [own_first, own_last])
        for own_labels, own_first, own_last in zip(zip(*labels, strict=True), first, last, strict=True)
    ]


def _to_host(states: Sequence[dict[str, Value]], runtime: Runtime) -> list[dict[str, Array]]:
    return [{name: runtime.to_host(value) for name, value in state.items()} for state in states]


def _all(answers: Sequence[Answer]) -> list[dict[str, Value]]:
    """The answers, none of which may be an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise EngineError(f"a graph cannot be run: {' '.join(str(answer).split())}") from answer
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _difference(array: Array, wanted: Array) -> float:
    return float(np.abs(array - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
