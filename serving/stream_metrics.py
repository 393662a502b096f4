"""Prometheus series of single streams: of a bounded number of them, and only while they are open.

A stream takes one of `max_streams` places when it opens and its series end with it; what it did stays in the counters
of its model. Streams that find no place are counted together, as the stream OTHERS of their model: counters are sums,
those of streams that have ended included, and gauges are those of the stream that is worst off.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

OTHERS = "others"  # the label of the streams without a place


class StreamFigures(NamedTuple):
    """How a stream does at one moment."""

    results: int  # frames, so far
    errors: int  # the same
    dropped: int  # the same
    device_s: float  # its share of all runs so far, in seconds
    queue_age_s: float  # since the oldest frame without an answer was read, in seconds; 0 if there is none
    key_frame_age: int  # of the newest answer, in frames
    batch_frames: int  # in the run behind the newest answer
    drift: float  # from the baseline of its model, in standard deviations
    level: int  # of what is given up for its latency objective, 0 to 5


OUTCOMES = {"results": "result", "errors": "error", "dropped": "dropped"}  # field -> label
GAUGES = {  # field -> name and help
    "queue_age_s": ("flowseg_stream_queue_age_seconds", "Time since the oldest frame without an answer was read."),
    "key_frame_age": ("flowseg_stream_key_frame_age_frames", "Frames since the key frame behind the newest answer."),
    "batch_frames": ("flowseg_stream_batch_frames", "Frames in the run behind the newest answer."),
    "drift": ("flowseg_stream_drift", "Distance from the model's baseline, in standard deviations."),
    "level": ("flowseg_stream_level", "Level of what is given up for the latency objective, 0 to 5."),
}
NOTHING = StreamFigures(0, 0, 0, 0.0, 0.0, 0, 0, 0.0, 0)


class _Watched(NamedTuple):
    model: str
    stream: str  # OTHERS if it has no place
    read: Callable[[], StreamFigures]


class StreamMetrics(Collector):
    """Asks the open streams whenever somebody looks. Safe to use from any thread."""

    def __init__(self, max_streams: int) -> None:
        """Gives places to `max_streams` streams at a time."""
        self._max_streams = max_streams
        self._lock = Lock()
        self._watched: dict[str, _Watched] = {}
        self._ended: dict[str, StreamFigures] = {}  # by model: of streams that had no place

    @contextlib.contextmanager
    def watch(self, model: str, stream: str, read: Callable[[], StreamFigures]) -> Iterator[None]:
        """Shows a stream; `read` must bear to be called from any thread."""
        with self._lock:
            num_placed = sum(watched.stream != OTHERS for watched in self._watched.values())
            shown = stream if num_placed < self._max_streams else OTHERS
            self._watched[stream] = _Watched(model, shown, read)
        try:
            yield
        finally:
            with self._lock:
                del self._watched[stream]
                if shown == OTHERS:
                    counted = read()._replace(**dict.fromkeys(GAUGES, 0))
                    self._ended[model] = _together(self._ended.get(model, NOTHING), counted)

    def forget(self, model: str) -> None:
        """Shows what the ended streams of a model did no more."""
        with self._lock:
            self._ended.pop(model, None)

    def collect(self) -> Iterable[Metric]:
        """The series, for Prometheus."""
        with self._lock:
            watched, figures = list(self._watched.values()), {(model, OTHERS): e for model, e in self._ended.items()}
        for model, stream, read in watched:
            figures[model, stream] = _together(figures.get((model, stream), NOTHING), read())
        yield from self._of_streams(figures)
        yield from self._of_models(watched, figures)

    def _of_streams(self, figures: dict[tuple[str, str], StreamFigures]) -> Iterable[Metric]:
        labels = ["model", "stream"]
        frames = CounterMetricFamily(
            "flowseg_stream_frames", "Frames of an open stream by outcome: result, error, dropped.",
            labels=[*labels, "outcome"],
        )  # fmt: skip
        device = CounterMetricFamily("flowseg_stream_device_seconds", "Share of the runs of graphs.", labels=labels)
        gauges = {field: GaugeMetricFamily(name, about, labels=labels) for field, (name, about) in GAUGES.items()}
        for key, each in figures.items():
            for field, outcome in OUTCOMES.items():
                frames.add_metric([*key, outcome], getattr(each, field))
            device.add_metric(key, each.device_s)
            for field, gauge in gauges.items():
                gauge.add_metric(key, getattr(each, field))
        return frames, device, *gauges.values()

    def _of_models(self, watched: list[_Watched], figures: dict[tuple[str, str], StreamFigures]) -> Iterable[Metric]:
        age = GaugeMetricFamily(
            "flowseg_queue_age_seconds", "That of the open stream where it is longest.", labels=["model"]
        )
        unplaced = GaugeMetricFamily(
            "flowseg_unlisted_streams", "Open streams without series of their own.", labels=["model"]
        )
        for model in sorted({model for model, _ in figures}):
            age.add_metric([model], max(each.queue_age_s for key, each in figures.items() if key[0] == model))
            unplaced.add_metric([model], sum((each.model, each.stream) == (model, OTHERS) for each in watched))
        return age, unplaced


def _together(one: StreamFigures, other: StreamFigures) -> StreamFigures:
    """Sums of what is counted, the worse of what is measured."""
    pairs = zip(StreamFigures._fields, one, other, strict=True)
    return StreamFigures(*((max if field in GAUGES else sum)((a, b)) for field, a, b in pairs))  # type: ignore[arg-type]
