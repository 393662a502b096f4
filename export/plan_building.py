"""Makes plans of a bundle's graphs, and keeps those that answer like the graphs: for TensorRT and torch alike."""

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from export.verify import TOLERANCES, Tolerance
from serving.bundle import NEXT, PRECISIONS, Bundle, BundleError, GraphFile, Precision, Variant
from serving.engine import log_run
from serving.graphs import Answer, ModelGraphs
from serving.plans import Comparison, Machine, Plan, Sidecar, TensorRTKey, TorchKey, check_owner, read_plan, write_plan
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.runtime import Array, Graph, Runtime, Value
from training.data.world.render import render_clip
from training.progress import with_progress

logger = logging.getLogger(__name__)

NUM_FRAMES = 4  # of each of two clips
# Of the ONNX graphs. 8-bit integers are the same here and there, and are rounded differently.
PLAN_TOLERANCES: dict[Precision, Tolerance] = {**TOLERANCES, "int8": Tolerance(0.97, 0.2, None)}


class EngineError(RuntimeError):
    """Plans that could not be built, or do not answer like their graphs. The message is one sentence."""


class PlanRuntime(Runtime, Protocol):
    """A runtime whose graphs are plans."""

    @property
    def machine(self) -> Machine:
        """What its plans work on."""
        ...

    def load_plan(self, plan: bytes, onnx: Path) -> Graph:
        """Loads a plan of an ONNX file."""
        ...


class PlanBuilder(Protocol):
    """Makes plans for one runtime."""

    @property
    def runtime(self) -> PlanRuntime:
        """What runs the plans."""
        ...

    @property
    def batches(self) -> Sequence[int]:
        """Numbers of frames in a run that plans are to be compared with."""
        ...

    @property
    def remedy(self) -> str:
        """What a user may do about plans that do not answer like their graphs."""
        ...

    def key(self, graph: GraphFile, variant: Variant) -> TensorRTKey | TorchKey:
        """What the plan of a graph depends on."""
        ...

    def build(self, graph: GraphFile, variant: Variant) -> bytes:
        """The plan of a graph.

        Raises:
            EngineError: if there can be none.
        """
        ...


class Engine(NamedTuple):
    """A plan of a graph, and whether it was there before."""

    plan: Plan
    is_cached: bool


def build_plans(bundle: Bundle, precision: str, builder: PlanBuilder, folder: Path) -> list[Engine]:
    """Sees to a plan of every graph of one precision. Plans that are there, whole, are kept.

    Raises:
        BundleError: if the bundle has no such graphs, or `folder` is not the user's own.
        EngineError: if a plan cannot be built, or the plans do not answer like the graphs; these are not kept.
        ValueError: if there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    machine = builder.runtime.machine
    suited = [variant for variant in bundle.manifest.variants if variant.suits(builder.runtime.name)]
    variants = [variant for variant in suited if variant.precision == precision]
    if not variants:
        there = f", only {', '.join(sorted({variant.precision for variant in suited}))}" if suited else ""
        raise BundleError(
            f"{bundle.folder} has no {precision} graphs for {machine.library}{there}: export some with"
            f" 'python export/to_onnx.py RUN --out BUNDLE --precision {precision}'"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(f"{folder} cannot be written ({error.strerror}): choose another --engines") from error
    if not os.access(folder, os.W_OK):  # said now rather than after minutes
        raise EngineError(f"{folder} cannot be written: choose another --engines")
    check_owner(folder)
    return [engine for variant in variants for engine in _build_variant(bundle, variant, builder, folder)]


def _build_variant(bundle: Bundle, variant: Variant, builder: PlanBuilder, folder: Path) -> list[Engine]:
    graphs = [variant.key, variant.step] if variant.state else [variant.step]
    keys = {graph.file: builder.key(graph, variant) for graph in graphs}
    cached = {file: read_plan(folder, key) for file, key in keys.items()}
    if all(cached.values()):
        logger.info("the plans of %s are there", " and ".join(keys))
        return [Engine(plan, True) for plan in cached.values() if plan]
    contents: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    for graph in with_progress(graphs, f"{builder.runtime.machine.noun}s"):
        plan = cached[graph.file]
        if plan is not None:
            contents[graph.file] = plan.path.read_bytes()
            continue
        begin = time.monotonic()
        contents[graph.file] = builder.build(graph, variant)
        seconds[graph.file] = time.monotonic() - begin
        logger.info("built %s in %.0f s", graph.file, seconds[graph.file])
    comparison = compare(bundle, variant, _PlansAtHand(builder.runtime, contents), builder.batches)
    _check(comparison, variant, builder)
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


def describe(engine: Engine) -> dict[str, object]:
    """What a user may want to know of an engine."""
    sidecar = engine.plan.sidecar
    return {
        "graph": sidecar.graph,
        "plan": str(engine.plan.path),
        "cached": engine.is_cached,
        "megabytes": engine.plan.path.stat().st_size / 1e6,
        **sidecar.key.model_dump(exclude={"onnx_sha256"}),
        "build_seconds": sidecar.build_seconds,
        "comparison": sidecar.comparison.model_dump(),
    }


class _PlansAtHand:
    """A runtime for plans that are not on disk."""

    def __init__(self, runtime: PlanRuntime, contents: Mapping[str, bytes]) -> None:
        """`contents` are plans by the name of their ONNX file."""
        self._runtime = runtime
        self._contents = contents
        self.name = runtime.name
        self.description = runtime.description

    def load(self, path: Path) -> Graph:
        """Loads the plan of an ONNX file."""
        return self._runtime.load_plan(self._contents[path.name], path)

    def to_device(self, array: Array) -> Value:
        """A copy on the device."""
        return self._runtime.to_device(array)

    def to_host(self, value: Value) -> Array:
        """A copy of what lies on the device."""
        return self._runtime.to_host(value)


class _Answers(NamedTuple):
    """What a stream was answered."""

    labels: NDArray[np.uint8]  # (T, H, W)
    states: list[dict[str, Array]]  # after the key frame, and after the last frame


def compare(bundle: Bundle, variant: Variant, runtime: Runtime, batches: Sequence[int]) -> Comparison:
    """Streams clips of the embedded world through a runtime, in batches of each size, and through the ONNX graphs.

    Raises:
        BundleError: if the graphs cannot be loaded.
        EngineError: if they cannot be run.
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
    return Comparison(
        label_agreement=float(np.min(agreements)),  # NumPy's minimum hands a NaN on, Python's does not
        max_state_difference=float(np.max(differences)),
        frames=NUM_FRAMES * sum(batches),
    )


def _check(comparison: Comparison, variant: Variant, builder: PlanBuilder) -> None:
    """Refuses plans whose answers differ by more than the precision accounts for."""
    agreement, difference = comparison.label_agreement, comparison.max_state_difference
    tolerance = PLAN_TOLERANCES[variant.precision]
    if not agreement >= tolerance.min_label_agreement or not difference <= tolerance.max_state_difference:  # or NaN
        raise EngineError(
            f"the {builder.runtime.machine.noun}s of {variant.step.file} do not answer like the graphs on ONNX Runtime:"
            f" {100 * agreement:.3f} % of labels agree (at least {100 * tolerance.min_label_agreement:g} % should for"
            f" {variant.precision}), the state differs by {difference:.1e} (at most"
            f" {tolerance.max_state_difference:.0e} may); they were not kept, {builder.remedy}"
        )


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
