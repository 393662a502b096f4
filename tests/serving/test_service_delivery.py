"""Frames that come faster than they are answered."""

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import ParseDict

from serving.bundle import Bundle
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png
from serving.run_lengths import decode_delta, decode_rle
from tests.serving.conftest import (
    SIZE,
    GatedRuntime,
    open_stub,
    serve_here,
    served_model,
)
from tests.serving.conversations import (
    Answered,
    Call,
    Document,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    request,
    requests,
    send,
    until,
)

P = ParamSpec("P")
T = TypeVar("T")


class CountingPool(ThreadPoolExecutor):
    """Counts the jobs it was given: one to decode each frame, and one to encode each result."""

    def __init__(self) -> None:
        super().__init__(2)
        self.num_jobs = 0

    def submit(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        self.num_jobs += 1
        return super().submit(job, *args, **kwargs)


@pytest.mark.parametrize("max_in_flight", [1, 2, 5])
@in_asyncio
async def test_block_holds_no_more_than_agreed_and_loses_nothing(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, max_in_flight: int
) -> None:
    """While the gate is shut no result is encoded, so jobs are frames that were read."""
    pool = CountingPool()
    num_frames = 20
    async with (
        serve_here(served_model(toy_bundle, gated_runtime), pool=pool) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        config = configuration(delivery={"policy": "DELIVERY_POLICY_BLOCK", "maxInFlight": max_in_flight})
        call: Call = open_stub(channel).SegmentStream(iter([config, *requests(*range(1, num_frames + 1))]))
        started = await heard(call, "started")
        assert started.started.max_in_flight == max_in_flight
        await until(lambda: pool.num_jobs >= max_in_flight)
        for _ in range(20):  # time for the server to read on, if it were to
            await open_stub(channel).GetServerInfo(pb.GetServerInfoRequest())
        assert pool.num_jobs == max_in_flight
        gated_runtime.gate.set()
        conversation = await hear_out(call, started)
    assert conversation.code == grpc.StatusCode.OK
    assert [result.sequence for result in conversation.results] == list(range(num_frames))
    total, expected = 1, [2]
    for value in range(2, num_frames + 1):
        expected.append(total + value)
        total += value
    assert conversation.labels == expected
    assert conversation.summary == pb.StreamSummary(num_frames=20, num_results=20, num_key_frames=1)


@pytest.mark.parametrize(
    "delivery",
    [
        {"policy": "DELIVERY_POLICY_DROP_OLDEST", "maxInFlight": 2},
        {"policy": "DELIVERY_POLICY_LATEST_ONLY"},
    ],
    ids=["drop oldest", "latest only"],
)
@in_asyncio
async def test_frames_that_make_way_are_told_and_the_newest_is_answered(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, delivery: Document
) -> None:
    """The gate holds frame 0 and one frame may wait, so each newer one takes its place. Their numbers have gaps."""
    values = {0: 10, 4: 20, 8: 30, 15: 40, 16: 50, 23: 60}
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(delivery=delivery), request(0, values[0]))
        responses = [await heard(call, "started")]
        await until(lambda: len(gated_runtime.runs) == 3)  # two to warm up, and this
        await send(call, *(request(sequence, values[sequence]) for sequence in (4, 8, 15, 16, 23)))
        while sum(response.dropped.count for response in responses) < 4:
            responses.append(await heard(call, "dropped"))
        await call.done_writing()
        gated_runtime.gate.set()
        conversation = await hear_out(call, *responses)
    assert conversation.code == grpc.StatusCode.OK
    ranges = [response.dropped for response in responses[1:]]
    dropped = [[sequence for sequence in values if span.first <= sequence <= span.last] for span in ranges]
    assert [len(sequences) for sequences in dropped] == [span.count for span in ranges]
    assert list(itertools.chain(*dropped)) == [4, 8, 15, 16]
    assert all(span.reason == pb.DROP_REASON_SUPERSEDED for span in ranges)
    assert conversation.answered == [
        Answered(0, 20, age=0, previous=10, key=10),
        Answered(23, 10 + 60, age=1, previous=10, key=10),
    ]
    assert conversation.summary == pb.StreamSummary(num_frames=6, num_results=2, num_dropped=4, num_key_frames=1)


@in_asyncio
async def test_drop_oldest_keeps_a_short_history(toy_bundle: Bundle, gated_runtime: GatedRuntime) -> None:
    """With four in flight and one of them at the gate, the newest three remain."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        config = configuration(delivery={"policy": "DELIVERY_POLICY_DROP_OLDEST", "maxInFlight": 4})
        await send(call, config, request(0, 1))
        responses = [await heard(call, "started")]
        await until(lambda: len(gated_runtime.runs) == 3)  # two to warm up, and this
        await send(call, *(request(sequence, sequence + 1) for sequence in range(1, 10)))
        while sum(response.dropped.count for response in responses) < 6:
            responses.append(await heard(call, "dropped"))
        await call.done_writing()
        gated_runtime.gate.set()
        conversation = await hear_out(call, *responses)
    assert [result.sequence for result in conversation.results] == [0, 7, 8, 9]
    assert conversation.labels == [2, 1 + 8, 1 + 8 + 9, 1 + 8 + 9 + 10]
    assert conversation.summary == pb.StreamSummary(num_frames=10, num_results=4, num_dropped=6, num_key_frames=1)


@in_asyncio
async def test_a_bad_frame_is_answered_and_never_dropped(toy_bundle: Bundle, gated_runtime: GatedRuntime) -> None:
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"}), request(0, 10))
        responses = [await heard(call, "started")]
        await until(lambda: len(gated_runtime.runs) == 3)  # two to warm up, and this
        await send(call, request(1, b""), request(2, 20), request(3, 30))
        responses.append(await heard(call, "dropped"))
        await call.done_writing()
        gated_runtime.gate.set()
        conversation = await hear_out(call, *responses)
    assert conversation.kinds == ["started", "dropped", "result", "frame_error", "result", "summary"]
    assert (responses[1].dropped.first, responses[1].dropped.last, responses[1].dropped.count) == (2, 2, 1)
    assert conversation.labels == [20, 40]
    assert conversation.summary == pb.StreamSummary(
        num_frames=4, num_results=2, num_errors=1, num_dropped=1, num_key_frames=1
    )


@pytest.mark.parametrize("by", ["deadline", "max_age"])
@in_asyncio
async def test_a_frame_whose_deadline_passes_while_it_waits_is_dropped(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, by: str
) -> None:
    """The gate holds the first frame until those behind it are late; one has time enough. Late ones leave no total."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        patient = request(3, 40)
        patient.frame.deadline_ms = 60_000
        late = [request(1, 20), request(2, 30)]
        if by == "deadline":
            for message in late:
                message.frame.deadline_ms = 1
        config = configuration(delivery={"maxAgeMs": 1 if by == "max_age" else 0})
        first = request(0, 10)
        first.frame.deadline_ms = 60_000
        await send(call, config, first, *late, patient)
        started = await heard(call, "started")
        await until(lambda: [session.describe().in_flight for session in server.sessions] == [4])
        await asyncio.sleep(0.01)
        gated_runtime.gate.set()
        await call.done_writing()
        conversation = await hear_out(call, started)
    assert conversation.kinds in (
        ["started", "result", "dropped", "result", "summary"],
        ["started", "result", "dropped", "dropped", "result", "summary"],  # told one by one
    )
    dropped = [response.dropped for response in conversation.responses if response.HasField("dropped")]
    assert {message.reason for message in dropped} == {pb.DROP_REASON_DEADLINE}
    assert (dropped[0].first, dropped[-1].last, sum(message.count for message in dropped)) == (1, 2, 2)
    assert conversation.labels == [20, 50]
    assert conversation.summary == pb.StreamSummary(num_frames=4, num_results=2, num_dropped=2, num_key_frames=1)


@in_asyncio
async def test_a_key_frame_that_is_dropped_makes_the_next_frame_one(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """A frame of LATEST_ONLY that was to forget the past makes way for one that then has to."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"}), request(0, 10))
        started = await heard(call, "started")
        first = await heard(call, "result")
        gated_runtime.gate.clear()
        num_runs = len(gated_runtime.runs)
        await send(call, request(1, 20))
        await until(lambda: len(gated_runtime.runs) > num_runs)
        await send(call, request(2, 30, force_key_frame=True))
        await until(lambda: [session.describe().in_flight for session in server.sessions] == [2])
        await send(call, request(3, 40))
        dropped = await heard(call, "dropped")
        gated_runtime.gate.set()
        await call.done_writing()
        conversation = await hear_out(call, started, first, dropped)
    assert conversation.labels == [20, 30, 80]
    assert [result.provenance.kind for result in conversation.results] == [
        pb.FRAME_KIND_KEY, pb.FRAME_KIND_PROPAGATED, pb.FRAME_KIND_KEY
    ]  # fmt: skip


@in_asyncio
async def test_controls_hold_from_the_next_frame_on(toy_bundle: Bundle) -> None:
    """A forced key frame, then a key frame after each frame; ages tell."""

    def control(**action: object) -> pb.SegmentStreamRequest:
        return pb.SegmentStreamRequest(control=ParseDict(action, pb.StreamControl()))

    one_in_flight = configuration(delivery={"maxInFlight": 1})  # so that a control finds the frames before it answered
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(
            server.address, one_in_flight, request(0, 1), request(1, 2), control(forceKeyFrame={}), request(2, 3),
            request(3, 4), request(4, 5), control(keyFrames={"fixed": {"interval": 1}}), request(5, 6), request(6, 7),
        )  # fmt: skip
        for bad, field in (
            (pb.SegmentStreamRequest(control=pb.StreamControl()), "control.action"),
            (control(keyFrames={"fixed": {}}), "control.key_frames.fixed.interval"),
        ):
            refused = await converse(server.address, configuration(), bad)
            assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
            assert refused.blamed_field == field
    assert conversation.code == grpc.StatusCode.OK
    assert [result.provenance.key_frame_age for result in conversation.results] == [0, 1, 0, 1, 2, 3, 1]
    assert [result.provenance.refreshes_key for result in conversation.results] == [False] * 5 + [True, True]


@in_asyncio
async def test_deltas_of_a_stream_give_the_maps_that_png_gives(toy_bundle: Bundle) -> None:
    """The second frame changes nothing, so its delta is shortest; the refused one sends no map; the rest change all."""
    frames = requests(10, 10, b"", 11, 11)
    async with serve_here(served_model(toy_bundle)) as server:
        plain = await converse(server.address, configuration(), *frames)
        deltas = await converse(
            server.address, configuration(outputs={"labelEncoding": "PIXEL_MAP_ENCODING_DELTA_RLE"}), *frames
        )
    shown = None
    whole, delta = pb.PIXEL_MAP_ENCODING_RLE, pb.PIXEL_MAP_ENCODING_DELTA_RLE
    assert [result.labels.encoding for result in deltas.results] == [whole, delta, whole, whole]
    for expected, result in zip(plain.results, deltas.results, strict=True):
        if result.labels.encoding == whole:
            shown = decode_rle(result.labels.data, Size(SIZE, SIZE))
        else:
            assert shown is not None
            shown = decode_delta(result.labels.data, shown)
        assert np.array_equal(shown, decode_png(expected.labels.data))
