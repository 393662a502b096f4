"""Makes plans of a bundle's graphs, and keeps those that answer like the graphs: for TensorRT and torch alike."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from export.plan_comparison import EngineError, compare
from export.verify import TOLERANCES, Tolerance
from serving.bundle import PRECISIONS, Bundle, BundleError, GraphFile, Precision, Variant
from serving.plans import Comparison, Machine, Plan, Sidecar, TensorRTKey, TorchKey, check_owner, read_plan, write_plan
from serving.runtimes.runtime import Array, Graph, Runtime, Value
from training.progress import with_progress

logger = logging.getLogger(__name__)

# Of the ONNX graphs. 8-bit integers are the same here and there, and are rounded differently.
PLAN_TOLERANCES: dict[Precision, Tolerance] = {**TOLERANCES, "int8": Tolerance(0.97, 0.2, None)}


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


def report(engines: Sequence[Engine], *, as_json: bool) -> str:
    """What a user may want to know of engines, as JSON or in a line each."""
    if as_json:
        return json.dumps([_describe(engine) for engine in engines]) + "\n"
    return "".join(
        f"{engine.plan.sidecar.graph}: {engine.plan.path} {engine.plan.sidecar.comparison.model_dump_json()}\n"
        for engine in engines
    )


def _describe(engine: Engine) -> dict[str, object]:
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
