"""The two graphs of a model, loaded and held to what the manifest says."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from serving.bundle import (
    NEXT,
    PRECISIONS,
    SIGNALS,
    Bundle,
    BundleError,
    GraphFile,
    Precision,
    RuntimeName,
    Variant,
)
from serving.runtimes.runtime import Graph, Runtime, Value

Answer = dict[str, Value] | Exception  # the outputs for one request, or why there are none


class GraphRun(NamedTuple):
    """A run of a graph, for those who count."""

    graph: Literal["key", "step"]
    num_frames: int  # in the batch
    num_failed: int  # of them
    seconds: float


class ModelGraphs:
    """`key` and `step` of one variant on one runtime."""

    def __init__(self, bundle: Bundle, variant: Variant, runtime: Runtime, observe: Callable[[GraphRun], None]) -> None:
        """Loads both graphs, or the step graph alone if there is no state.

        Raises:
            BundleError: if the runtime cannot load a graph, or its inputs and outputs are not the manifest's.
        """
        self._bundle = bundle
        self._variant = variant
        self._runtime = runtime
        self._observe = observe
        self._step = _load(bundle, variant.step, runtime)
        # The key graph of a per-frame network gives nothing: there is no such thing for TensorRT.
        self._key = _load(bundle, variant.key, runtime) if variant.state else None
        self.max_key_batch = self._step.max_batch if self._key is None else self._key.max_batch
        self.max_step_batch = self._step.max_batch

    def encode_keys(self, frames: Sequence[Value]) -> Sequence[Answer]:
        """The state that each frame leaves."""
        if not frames:
            return []
        if self._key is None:  # a per-frame network: there is nothing to encode
            return [{} for _ in frames]
        return self._run("key", self._key, [_pick(self._key.inputs, {"frame": frame}) for frame in frames])

    def step(self, requests: Sequence[Mapping[str, Value]]) -> Sequence[Answer]:
        """Labels, quality and next state for each request: `frame`, `previous_frame`, `key_frame` and the state."""
        if not requests:
            return []
        return self._run("step", self._step, [_pick(self._step.inputs, request) for request in requests])

    def warm_up(self) -> None:
        """Runs both graphs once, and checks the shapes of what they give.

        Raises:
            BundleError: if they fail, or the shapes are not the manifest's.
        """
        height, width = self._variant.height, self._variant.width
        shapes: dict[str, tuple[int, ...]] = {
            "labels": (1, height, width),
            "confidence": (1, height // 4, width // 4),
        } | dict.fromkeys(SIGNALS, (1,))
        shapes |= {prefix + tensor.name: (1, *tensor.shape) for tensor in self._variant.state for prefix in ("", NEXT)}
        frame = self._runtime.to_device(np.zeros((1, height, width, 3), np.uint8))
        state = self._only(self.encode_keys([frame]))
        outputs = self._only(self.step([state | dict.fromkeys(("frame", "previous_frame", "key_frame"), frame)]))
        for name, value in (state | outputs).items():
            if (shape := self._runtime.to_host(value).shape) != shapes[name]:
                raise BundleError(
                    f"{self._bundle.folder} gives {name} of shape {shape}, its manifest says {shapes[name]}:"
                    " export the bundle again"
                )

    def _only(self, answers: Sequence[Answer]) -> dict[str, Value]:
        (answer,) = answers
        if isinstance(answer, Exception):
            reason = " ".join(str(answer).split())  # in one line, however many the runtime wrote
            raise BundleError(
                f"{self._bundle.folder} cannot be run by {self._runtime.description}: {reason}"
            ) from answer
        return answer

    def _run(
        self, name: Literal["key", "step"], graph: Graph, requests: Sequence[Mapping[str, Value]]
    ) -> Sequence[Answer]:
        """Runs a batch; if it fails, one by one, so that only the guilty request has an exception for an answer."""
        started_at = time.perf_counter()
        answers: Sequence[Answer]
        try:
            answers = graph.run(requests)
        except Exception as error:  # whatever the runtime raises
            answers = [error] if len(requests) == 1 else [_run_one(graph, request) for request in requests]
        num_failed = sum(isinstance(answer, Exception) for answer in answers)
        self._observe(GraphRun(name, len(requests), num_failed, time.perf_counter() - started_at))
        return answers


def pick_variant(
    bundle: Bundle, runtime: RuntimeName, precision: Precision | Literal["auto"], size: tuple[int, int] | None
) -> Variant:
    """The variant that a runtime takes, of a precision and, if there are several, of a size (height, width).

    With "auto" the precision is the highest there is for the runtime.

    Raises:
        BundleError: if there is none, or there are several sizes to choose from.
    """
    suited = [variant for variant in bundle.manifest.variants if variant.suits(runtime)]
    if precision == "auto":
        there = {variant.precision for variant in suited}
        precision = next((each for each in PRECISIONS if each in there), PRECISIONS[0])
    variants = [
        variant
        for variant in suited
        if variant.precision == precision and size in (None, (variant.height, variant.width))
    ]
    if len(variants) == 1:
        return variants[0]
    for_runtime = ", ".join(f"{variant.precision} {variant.height}x{variant.width}" for variant in suited) or "none"
    wanted = precision if size is None else f"{precision} {size[0]}x{size[1]}"
    raise BundleError(
        f"{bundle.folder} has these graphs for {runtime}: {for_runtime}; '{wanted}' picks {len(variants)} of them,"
        " choose one by --precision and --size"
    )


def _run_one(graph: Graph, request: Mapping[str, Value]) -> Answer:
    try:
        return graph.run([request])[0]
    except Exception as error:  # whatever the runtime raises
        return error


def _pick(names: Iterable[str], values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: values[name] for name in names}


def _load(bundle: Bundle, graph_file: GraphFile, runtime: Runtime) -> Graph:
    graph = runtime.load(bundle.path(graph_file))
    for kind, found, said in (
        ("inputs", graph.inputs, frozenset(graph_file.inputs)),
        ("outputs", graph.outputs, frozenset(graph_file.outputs)),
    ):
        if found != said:
            raise BundleError(
                f"{graph_file.file} in {bundle.folder} has the {kind} {sorted(found)}, its manifest says"
                f" {sorted(said)}: export the bundle again"
            )
    return graph
