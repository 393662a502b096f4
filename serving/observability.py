"""Prometheus metrics. Labels are models, parts and outcomes, whose number is bounded: never clients.

Streams have series too, a bounded number of them: `stream_metrics.py`.
"""

import functools
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from serving.bundle import SIGNALS
from serving.drift import DriftMeter
from serving.errors import DropReason
from serving.graphs import GraphRun
from serving.results import StepResult
from serving.stream_metrics import StreamMetrics

UNKNOWN_MODEL = "none"  # the label of streams that never had a model: no client may add labels
WATCHED_STATUSES = ("OK", "CANCELLED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE")  # that people look for
MAX_STREAMS = 32  # with series of their own
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
AGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # frames
DEVIATIONS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


class Metrics:
    """All metrics of a server, in a registry of their own."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        """Declares them. `max_streams` streams at a time have series of their own."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, file descriptors, CPU time
        self.streams = StreamMetrics(max_streams)
        self.registry.register(self.streams)
        self._frames = Counter(
            "flowseg_frames", "Frames by outcome: result, error, dropped.", ["model", "outcome"], registry=self.registry
        )
        self._frame_seconds = Histogram(
            "flowseg_frame_seconds",
            "Time of a frame by part: decode, queue, key, step, encode, total.",
            ["model", "part"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._dropped = Counter(
            "flowseg_dropped_frames",
            "Frames that were dropped, by reason: superseded, deadline, overload.",
            ["model", "reason"],
            registry=self.registry,
        )
        self._key_frame_age = Histogram(
            "flowseg_key_frame_age_frames",
            "Frames since the key frame behind an answer.",
            ["model"],
            buckets=AGES,
            registry=self.registry,
        )
        self._streams = Counter(
            "flowseg_streams", "Streams that ended, by gRPC status.", ["model", "status"], registry=self.registry
        )
        for status in WATCHED_STATUSES:
            self._streams.labels(UNKNOWN_MODEL, status)
        self._open_streams = Gauge("flowseg_open_streams", "Streams now open.", ["model"], registry=self.registry)
        self._graph_seconds = Histogram(
            "flowseg_graph_seconds", "Time of one run.", ["model", "graph"], buckets=SECONDS, registry=self.registry
        )
        self._graph_frames = Histogram(
            "flowseg_graph_batch_frames",
            "Frames in one run.",
            ["model", "graph"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self._graph_failures = Counter(
            "flowseg_graph_failures", "Frames a graph failed on.", ["model", "graph"], registry=self.registry
        )
        self._quality = Histogram(
            "flowseg_quality",
            "Signals of drift by kind: mean_confidence, disagreement, mean_entropy, warp_residual.",
            ["model", "signal"],
            buckets=SHARES,
            registry=self.registry,
        )
        self._drift = Histogram(
            "flowseg_drift",
            "How far a frame's stream is from the model's baseline, in standard deviations, where that is known.",
            ["model"],
            buckets=DEVIATIONS,
            registry=self.registry,
        )
        self._model_alive = Gauge(
            "flowseg_model_alive",
            "1 while the engines of a model run, 0 once one broke.",
            ["model"],
            registry=self.registry,
        )
        self._draining = Gauge(
            "flowseg_draining", "1 once the server sends new streams elsewhere.", registry=self.registry
        )
        self._model_drift = Gauge(
            "flowseg_model_drift",
            "How far the recent frames of all streams together are from the model's baseline, in standard deviations.",
            ["model"],
            registry=self.registry,
        )

    def frame(self, model: str, outcome: str, count: int = 1) -> None:
        """Counts frames."""
        self._frames.labels(model, outcome).inc(count)

    def dropped(self, model: str, reason: str) -> None:
        """Counts a frame that was dropped."""
        self.frame(model, "dropped")
        self._dropped.labels(model, reason).inc()

    def key_frame_age(self, model: str, frames: int) -> None:
        """Records how far an answer is from its key frame."""
        self._key_frame_age.labels(model).observe(frames)

    def drain(self) -> None:
        """Says that the server drains."""
        self._draining.set(1)

    def times(self, model: str, parts_ms: dict[str, float]) -> None:
        """Records where a frame spent its time."""
        for part, milliseconds in parts_ms.items():
            self._frame_seconds.labels(model, part).observe(milliseconds / 1e3)

    def quality(self, model: str, result: StepResult, drift: float) -> None:
        """Records the signals of a frame, and how far its stream is from the baseline, in standard deviations."""
        for signal in SIGNALS:
            self._quality.labels(model, signal).observe(getattr(result, signal))
        if drift:  # else the model has no baseline, or the stream has just begun
            self._drift.labels(model).observe(drift)

    def stream_ended(self, model: str, status: str) -> None:
        """Counts a stream."""
        self._streams.labels(model, status).inc()

    def watch_streams(self, model: str, count: Callable[[], int]) -> None:
        """Asks `count` for the open streams of a model whenever somebody looks."""
        self._open_streams.labels(model).set_function(count)
        self._start_counters(model)

    def _start_counters(self, model: str) -> None:
        """Shows counters at 0: an increase from nothing to 1 is none to Prometheus, and no alert."""
        for outcome in ("result", "error", "dropped"):
            self._frames.labels(model, outcome)
        for reason in DropReason:
            self._dropped.labels(model, reason.name.lower())
        for graph in ("key", "step"):
            self._graph_failures.labels(model, graph)
        for status in WATCHED_STATUSES:
            self._streams.labels(model, status)

    def watch_life(self, model: str, is_alive: Callable[[], bool]) -> None:
        """Asks `is_alive` whether the engines of a model run, whenever somebody looks."""
        self._model_alive.labels(model).set_function(is_alive)

    def watch_drift(self, model: str, meter: DriftMeter) -> None:
        """Asks `meter` for the drift of a model whenever somebody looks."""
        self._model_drift.labels(model).set_function(functools.partial(getattr, meter, "drift"))

    def forget(self, model: str) -> None:
        """Shows the life, the streams and the drift of a model no more; what was counted stays."""
        self._model_alive.remove(model)
        self._open_streams.remove(model)
        self._model_drift.remove(model)
        self.streams.forget(model)

    def watch_runs(self, model: str) -> Callable[[GraphRun], None]:
        """What an engine is to tell its runs to."""

        def observe(run: GraphRun) -> None:
            self._graph_seconds.labels(model, run.graph).observe(run.seconds)
            self._graph_frames.labels(model, run.graph).observe(run.num_frames)
            self._graph_failures.labels(model, run.graph).inc(run.num_failed)

        return observe

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
