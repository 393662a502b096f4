import contextlib

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.bundle import Bundle
from serving.engine import Engine, share_device_time
from serving.observability import Metrics
from serving.stream_metrics import GAUGES, StreamFigures
from tests.serving.conftest import GatedRuntime, LocalServer, open_stub, serve_here, served_model
from tests.serving.conversations import Call, configuration, heard, in_asyncio, request, send, until

FIRST = StreamFigures(
    results=5, errors=1, dropped=2, device_s=0.5, queue_age_s=0.25, key_frame_age=3, batch_frames=4, drift=1.5, level=2
)
SECOND = StreamFigures(
    results=10, errors=0, dropped=1, device_s=0.25, queue_age_s=0.5, key_frame_age=1, batch_frames=2, drift=0.5, level=0
)
TOGETHER = StreamFigures(  # counters are sums, gauges the worse of the two
    results=15, errors=1, dropped=3, device_s=0.75, queue_age_s=0.5, key_frame_age=3, batch_frames=4, drift=1.5, level=2
)


def shown(metrics: Metrics) -> dict[tuple[str, str], StreamFigures]:
    """What is shown of streams, by model and stream."""
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    streams = {(key[1], key[2]) for key in samples if key[0] == "flowseg_stream_level"}

    def figures(model: str, stream: str) -> StreamFigures:
        frames = [
            samples["flowseg_stream_frames_total", model, outcome, stream] for outcome in ("result", "error", "dropped")
        ]
        device_s = samples["flowseg_stream_device_seconds_total", model, stream]
        return StreamFigures._make([*frames, device_s, *(samples[name, model, stream] for name, _ in GAUGES.values())])

    return {key: figures(*key) for key in streams}


def value(metrics: Metrics, name: str, model: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"model": model})


def test_a_stream_has_series_while_it_is_open() -> None:
    metrics = Metrics()
    with metrics.streams.watch("toy@1", "stream-1", lambda: FIRST):
        assert shown(metrics) == {("toy@1", "stream-1"): FIRST}
        assert value(metrics, "flowseg_queue_age_seconds", "toy@1") == 0.25
    assert shown(metrics) == {}
    assert value(metrics, "flowseg_queue_age_seconds", "toy@1") is None


def test_streams_without_a_place_are_counted_together_also_when_they_have_ended() -> None:
    metrics = Metrics(max_streams=1)
    with metrics.streams.watch("toy@1", "stream-1", lambda: SECOND):
        with metrics.streams.watch("toy@1", "stream-2", lambda: FIRST):
            with metrics.streams.watch("toy@1", "stream-3", lambda: SECOND):
                assert shown(metrics) == {("toy@1", "stream-1"): SECOND, ("toy@1", "others"): TOGETHER}
                assert value(metrics, "flowseg_unlisted_streams", "toy@1") == 2
            assert shown(metrics)["toy@1", "others"] == FIRST._replace(results=15, dropped=3, device_s=0.75)
        left = shown(metrics)["toy@1", "others"]
        assert left == StreamFigures(15, 1, 3, 0.75, 0, 0, 0, 0, 0)  # counters never fall
        assert value(metrics, "flowseg_unlisted_streams", "toy@1") == 0
    metrics.streams.forget("toy@1")
    assert shown(metrics) == {}


def test_a_place_is_free_again_when_its_stream_ends() -> None:
    metrics = Metrics(max_streams=1)
    for number in range(3):
        with metrics.streams.watch("toy@1", f"stream-{number}", lambda: FIRST):
            assert shown(metrics) == {("toy@1", f"stream-{number}"): FIRST}


def test_however_many_streams_come_the_series_stay_as_many() -> None:
    metrics = Metrics(max_streams=4)
    with contextlib.ExitStack() as stack:
        for number in range(100):
            stack.enter_context(metrics.streams.watch("toy@1", f"stream-{number}", lambda: FIRST))
        assert len(shown(metrics)) == 5
    assert set(shown(metrics)) == {("toy@1", "others")}


@in_asyncio
async def test_a_real_stream_shows_how_it_does(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server, grpc.aio.insecure_channel(server.address) as channel:
        warm_up_s = graph_seconds(server)
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), *(request(sequence, 10) for sequence in range(3)))
        for kind in ("started", "result", "result", "result"):
            await heard(call, kind)
        await until(lambda: next(iter(shown(server.metrics).values())).queue_age_s == 0)
        (figures,) = shown(server.metrics).values()
        assert (figures.results, figures.errors, figures.dropped) == (3, 0, 0)
        assert (figures.key_frame_age, figures.batch_frames) == (2, 1)
        assert 0 < graph_seconds(server) - warm_up_s <= figures.device_s  # it was alone: all runs are its own
        ages = {"model": "toy@1", "le": "2.0"}
        assert server.metrics.registry.get_sample_value("flowseg_key_frame_age_frames_bucket", ages) == 3
        await call.done_writing()
        await heard(call, "summary")
        await until(lambda: not shown(server.metrics))


@in_asyncio
async def test_a_frame_that_waits_has_an_age_and_a_dropped_one_a_reason(toy_bundle: Bundle) -> None:
    runtime = GatedRuntime()
    async with (
        serve_here(served_model(toy_bundle, runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        latest_only = configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"})
        await send(call, latest_only, *(request(sequence, 10) for sequence in range(3)))
        reasons = {"model": "toy@1", "reason": "superseded"}
        sample = server.metrics.registry.get_sample_value
        await until(lambda: (sample("flowseg_dropped_frames_total", reasons) or 0) > 0)
        assert sample("flowseg_queue_age_seconds", {"model": "toy@1"}) > 0  # type: ignore[operator]  # it is there
        runtime.gate.set()


def test_a_run_is_put_to_the_account_of_its_streams_in_equal_parts(engine: Engine) -> None:
    with engine.open_stream() as first, engine.open_stream() as second:
        share_device_time([first, second], 100.0, 2)
        share_device_time([first], 25.0, 1)
        assert (first.device_s, second.device_s) == pytest.approx((0.075, 0.05))


def graph_seconds(server: LocalServer) -> float:
    sample = server.metrics.registry.get_sample_value
    return sum(
        sample("flowseg_graph_seconds_sum", {"model": "toy@1", "graph": graph}) or 0.0 for graph in ("key", "step")
    )
