from prometheus_client.parser import text_string_to_metric_families

from serving.drift import MIN_FRAMES, DriftMeter
from serving.graphs import GraphRun
from serving.observability import Metrics
from tests.serving.conftest import step_result, toy_baseline


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Of a sample in Prometheus' text format, None if there is none."""
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return sample.value
    return None


def test_frames_are_counted_by_model_and_outcome() -> None:
    metrics = Metrics()
    metrics.frame("toy@1", "result")
    metrics.frame("toy@1", "result")
    metrics.frame("toy@1", "dropped", count=5)
    metrics.frame("toy@2", "error")
    assert value(metrics, "flowseg_frames_total", model="toy@1", outcome="result") == 2
    assert value(metrics, "flowseg_frames_total", model="toy@1", outcome="dropped") == 5
    assert value(metrics, "flowseg_frames_total", model="toy@2", outcome="error") == 1


def test_times_are_in_seconds() -> None:
    metrics = Metrics()
    metrics.times("toy@1", {"decode": 30.0, "total": 250.0})
    assert value(metrics, "flowseg_frame_seconds_sum", model="toy@1", part="decode") == 0.03
    assert value(metrics, "flowseg_frame_seconds_bucket", model="toy@1", part="total", le="0.2") == 0
    assert value(metrics, "flowseg_frame_seconds_bucket", model="toy@1", part="total", le="0.5") == 1


def test_signals_of_drift_are_recorded() -> None:
    metrics = Metrics()
    result = step_result(mean_confidence=0.75, disagreement=0.125, mean_entropy=0.5, warp_residual=0.25)
    metrics.quality("toy@1", result, drift=3.5)
    for signal, expected in (
        ("mean_confidence", 0.75), ("disagreement", 0.125), ("mean_entropy", 0.5), ("warp_residual", 0.25),
    ):  # fmt: skip
        assert value(metrics, "flowseg_quality_sum", model="toy@1", signal=signal) == expected
    assert value(metrics, "flowseg_drift_bucket", model="toy@1", le="3.0") == 0
    assert value(metrics, "flowseg_drift_bucket", model="toy@1", le="4.0") == 1


def test_a_drift_that_is_not_known_is_not_recorded() -> None:
    metrics = Metrics()
    metrics.quality("toy@1", step_result(), drift=0.0)
    assert value(metrics, "flowseg_drift_count", model="toy@1") is None


def test_the_drift_of_a_model_is_told_when_somebody_looks_until_it_is_forgotten() -> None:
    metrics, meter = Metrics(), DriftMeter(toy_baseline(64))
    metrics.watch_drift("toy@1", meter)
    assert value(metrics, "flowseg_model_drift", model="toy@1") == 0
    still = {"mean_confidence": 0.25, "mean_entropy": 0.25, "disagreement": 0.5}
    for _ in range(MIN_FRAMES):
        meter.observe(step_result(key_frame_age=1, **still))
    assert value(metrics, "flowseg_model_drift", model="toy@1") == 4
    metrics.forget("toy@1")
    assert value(metrics, "flowseg_model_drift", model="toy@1") is None


def test_ended_streams_are_counted_by_status() -> None:
    metrics = Metrics()
    metrics.stream_ended("toy@1", "OK")
    assert value(metrics, "flowseg_streams_total", model="toy@1", status="OK") == 1


def test_open_streams_are_counted_when_somebody_looks() -> None:
    metrics = Metrics()
    streams: list[str] = []
    metrics.watch_streams("toy@1", lambda: len(streams))
    assert value(metrics, "flowseg_open_streams", model="toy@1") == 0
    streams.append("one")
    assert value(metrics, "flowseg_open_streams", model="toy@1") == 1


def test_runs_are_recorded_with_their_batches_and_failures() -> None:
    metrics = Metrics()
    observe = metrics.watch_runs("toy@1")
    observe(GraphRun("step", num_frames=4, num_failed=1, seconds=0.25))
    observe(GraphRun("step", num_frames=2, num_failed=0, seconds=0.5))
    assert value(metrics, "flowseg_graph_seconds_sum", model="toy@1", graph="step") == 0.75
    assert value(metrics, "flowseg_graph_batch_frames_sum", model="toy@1", graph="step") == 6
    assert value(metrics, "flowseg_graph_batch_frames_count", model="toy@1", graph="step") == 2
    assert value(metrics, "flowseg_graph_failures_total", model="toy@1", graph="step") == 1


def test_two_servers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.frame("toy@1", "result")
    assert value(second, "flowseg_frames_total", model="toy@1", outcome="result") is None
