"""Measures the graphs of several networks on several runtimes, in turns."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.arithmetic_floor import MatrixProduct, matrix_products
from benchmarks.graph_operations import giga_operations
from benchmarks.interleaving import Clock, Times, amortized, interleaved, median_ratio
from serving.bundle import Bundle, Precision, Variant
from serving.graphs import pick_variant
from serving.runtimes.runtime import Graph, Runtime, Value
from training.data.world.render import render_clip

logger = logging.getLogger(__name__)
GraphName = Literal["key", "step"]
Series = NDArray[np.float64]  # a figure of each round, (rounds,)
SEED = 3  # of the frames that graphs run on


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How to measure."""

    runtimes: Mapping[str, Runtime]  # by the name they are reported by
    intervals: Sequence[int]  # key-frame intervals
    batch: int  # frames in a run
    device: str  # "cpu", "cuda" or "cuda:N"
    threads: int  # of one run on a CPU
    seconds: float  # to run each graph for
    rounds: int  # of turns
    clock: Clock  # what ratios are of


class Network(NamedTuple):
    """A bundle at one of its precisions."""

    name: str
    precision: Precision
    bundle: Bundle


class Contestant(NamedTuple):
    """A network on a runtime."""

    network: Network
    runtime: str
    variant: Variant
    runs: dict[GraphName, Callable[[], object]]  # one run of each graph; a per-frame network has no key


Identity = tuple[str, str, Precision]  # network, runtime, precision


def measure(
    measurement: Measurement, size: tuple[int, int], networks: Sequence[Network], opponent: str
) -> dict[str, Any]:
    """All figures of one frame size.

    Args:
        measurement: how.
        size: height and width of the frames in pixels.
        networks: all that have graphs of this size, `opponent` among them at each precision of the others.
        opponent: name of the per-frame network to compare with.

    Raises:
        BundleError: if a bundle has no graphs for a runtime, or they do not load.
        ValueError: if the batch is too large.
    """
    frames = [frame[None] for frame in render_clip(SEED, "target", size, 2).frames]
    contestants: dict[Identity, Contestant] = {
        (network.name, runtime, network.precision): _contestant(network, runtime, measurement, size, frames)
        for runtime in measurement.runtimes
        for network in networks
    }
    products = matrix_products(measurement.device, measurement.threads)
    runs: dict[tuple[Identity, GraphName] | str, Callable[[], object]] = {
        (identity, graph): run for identity, contestant in contestants.items() for graph, run in contestant.runs.items()
    }
    logger.info("%dx%d: %d graphs in turns with %d matrix products", *size, len(runs), len(products))
    runs |= {product.name: product.run for product in products}
    times = interleaved(runs, measurement.rounds, measurement.seconds)
    speeds = {
        product.name: product.giga_operations() / times[product.name].by_round_ms(measurement.clock)
        for product in products
    }
    figures = _Figures(
        measurement,
        {identity: {graph: times[identity, graph] for graph in each.runs} for identity, each in contestants.items()},
        fastest(products, speeds),
        opponent,
    )
    return {
        "size": f"{size[0]}x{size[1]}",
        "opponent": opponent,
        "matrix_products": {
            product.name: {
                "precision": product.precision, "gop_per_s": round(1e3 * float(np.median(speeds[product.name]))),
            }
            for product in products
        },
        "networks": [figures.of(identity, contestant) for identity, contestant in contestants.items()],
    }  # fmt: skip


def fastest(products: Sequence[MatrixProduct], speeds: Mapping[str, Series]) -> dict[Precision, Series]:
    """The speeds of the product that is the fastest of its precision, for each precision."""
    best: dict[Precision, Series] = {}
    for product in products:
        speed = speeds[product.name]
        if product.precision not in best or np.median(speed) > np.median(best[product.precision]):
            best[product.precision] = speed
    return best


class _Figures:
    """What is reported of contestants, from the times of all."""

    def __init__(
        self,
        measurement: Measurement,
        times: Mapping[Identity, Mapping[GraphName, Times]],
        speeds: Mapping[Precision, Series],  # 1e9 operations per ms
        opponent: str,
    ) -> None:
        self._measurement, self._times, self._speeds, self._opponent = measurement, times, speeds, opponent

    def of(self, identity: Identity, contestant: Contestant) -> dict[str, Any]:
        """All figures of one."""
        name, runtime, precision = identity
        batch = self._measurement.batch
        by_round = self._by_round(identity)
        opponent = self._by_round((self._opponent, runtime, precision))["step"] / batch
        key = by_round.get("key", np.zeros(self._measurement.rounds))
        per_frame = {str(k): amortized(key, by_round["step"], k) / batch for k in self._measurement.intervals}
        manifest = contestant.network.bundle.manifest
        # what the export found; nothing for networks with random weights
        verified = manifest.verification["variants"][manifest.variants.index(contestant.variant)]
        exported = manifest.provenance.get("exported")
        return {
            "network": name,
            "runtime": runtime,
            "precision": precision,
            "exported_at": str(exported.get("commit", "")) if isinstance(exported, dict) else "",  # a commit
            "graphs": {graph: self._of_graph(identity, contestant, graph) for graph in contestant.runs},
            "ms_per_frame": {k: round(float(np.median(each)), 3) for k, each in per_frame.items()},
            "times_as_fast_as_opponent": {k: median_ratio(opponent, each) for k, each in per_frame.items()},
            "accuracy": {
                name: verified[name] for name in ("label_agreement", "miou", "miou_of_network") if name in verified
            },
        }

    def _of_graph(self, identity: Identity, contestant: Contestant, graph: GraphName) -> dict[str, Any]:
        file = contestant.variant.key if graph == "key" else contestant.variant.step
        model = onnx.load(contestant.network.bundle.path(file))
        operations = giga_operations(model, self._measurement.batch)
        floor = cast("Series", sum(count / self._speeds[precision] for precision, count in operations.items()))
        times, by_round = self._times[identity][graph], self._by_round(identity)[graph]
        figures: dict[str, Any] = {
            "runs": times.num_runs(),
            "wall_ms": times.percentiles_ms("wall"),
            "cpu_ms": times.percentiles_ms("cpu"),
            "gflop": {precision: round(count, 3) for precision, count in operations.items()},
            "floor_ms": round(float(np.median(floor)), 3),
            "times_floor": median_ratio(by_round, floor),
        }
        in_fp32: Identity = (identity[0], "onnxruntime", "fp32")
        if in_fp32 in self._times:
            figures["times_as_fast_as_onnxruntime_fp32"] = median_ratio(self._by_round(in_fp32)[graph], by_round)
        return figures

    def _by_round(self, identity: Identity) -> dict[GraphName, Series]:
        return {graph: times.by_round_ms(self._measurement.clock) for graph, times in self._times[identity].items()}


def _contestant(
    network: Network,
    runtime_name: str,
    measurement: Measurement,
    size: tuple[int, int],
    frames: Sequence[NDArray[np.uint8]],
) -> Contestant:
    """Loads the graphs; the step runs on the state that the first of two `frames` (1, H, W, 3) leaves."""
    runtime = measurement.runtimes[runtime_name]
    variant = pick_variant(network.bundle, runtime.name, network.precision, size)
    step = runtime.load(network.bundle.path(variant.step))
    previous, frame = (runtime.to_device(each) for each in frames)
    values: dict[str, Value] = {"frame": frame, "previous_frame": previous, "key_frame": previous}
    runs: dict[GraphName, Callable[[], object]] = {}
    if variant.state:
        key = runtime.load(network.bundle.path(variant.key))
        runs["key"] = _run(key, {"frame": previous}, measurement.batch)
        values |= key.run([{"frame": previous}])[0]
    runs["step"] = _run(step, {name: values[name] for name in step.inputs}, measurement.batch)
    return Contestant(network, runtime_name, variant, runs)


def _run(graph: Graph, request: Mapping[str, Value], batch: int) -> Callable[[], object]:
    if batch > graph.max_batch:
        raise ValueError(f"--batch is {batch}, one run takes at most {graph.max_batch} frames: choose fewer")
    requests = [request] * batch
    return lambda: graph.run(requests)
