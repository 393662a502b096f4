"""What ends a stream, and with which status."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TypeVar

import grpc
import pytest

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.service import SegmentationService
from serving.session import StreamContext
from tests.serving.conftest import (
    LIMITS,
    PATIENCE_S,
    GatedRuntime,
    open_stub,
    serve_here,
    served_model,
)
from tests.serving.conversations import (
    Call,
    Document,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    label,
    request,
    requests,
    send,
    until,
)

T = TypeVar("T")


BAD_CONFIGURATIONS: list[tuple[Document, str]] = [
    ({"format": {}}, "config.format.encoding"),
    ({"format": {"encoding": 99}}, "config.format.encoding"),
    ({"format": {"encoding": "FRAME_ENCODING_RAW_RGB"}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_RAW_GRAY", "width": 64}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_PNG", "height": 64}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_PNG", "width": 1001, "height": 1000}}, "config.format"),
    ({"keyFrames": {"fixed": {}}}, "config.key_frames.fixed.interval"),
    ({"keyFrames": {"fixed": {"interval": 2**32 - 1}}}, "config.key_frames.fixed.interval"),
    ({"delivery": {"policy": 99}}, "config.delivery.policy"),
    ({"delivery": {"maxInFlight": 17}}, "config.delivery.max_in_flight"),
    ({"delivery": {"policy": "DELIVERY_POLICY_DROP_OLDEST", "maxInFlight": 1}}, "config.delivery.max_in_flight"),
    ({"delivery": {"policy": "DELIVERY_POLICY_LATEST_ONLY", "maxInFlight": 1}}, "config.delivery.max_in_flight"),
    ({"outputs": {"labels": 99}}, "config.outputs.labels"),
]


@pytest.mark.parametrize(("fields", "blamed"), BAD_CONFIGURATIONS, ids=lambda value: str(value))
@in_asyncio
async def test_a_bad_configuration_is_refused_with_the_field_to_blame(
    toy_bundle: Bundle, fields: Document, blamed: str
) -> None:
    model = served_model(toy_bundle)
    async with serve_here(model) as server:
        conversation = await converse(server.address, configuration(**fields), *requests(1))
        assert model.num_streams == 0
    assert (conversation.code, conversation.kinds) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert conversation.blamed_field == blamed


@pytest.mark.parametrize("messages", [requests(1), [pb.SegmentStreamRequest()], []], ids=["frame", "empty", "nothing"])
@in_asyncio
async def test_a_stream_must_start_with_its_configuration(
    toy_bundle: Bundle, messages: list[pb.SegmentStreamRequest]
) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, *messages)
    assert (conversation.code, conversation.kinds) == (grpc.StatusCode.INVALID_ARGUMENT, [])
    assert conversation.message == "body: the first message must be the configuration of the stream"
    assert conversation.blamed_field == "body"


@pytest.mark.parametrize(
    ("breach", "blamed"),
    [
        (configuration(), "body"),
        (pb.SegmentStreamRequest(), "body"),
        (request(7, 3), "frame.sequence"),
        (request(6, 3), "frame.sequence"),
    ],
    ids=["second configuration", "empty message", "same sequence number", "lower sequence number"],
)
@in_asyncio
async def test_a_breach_of_the_protocol_ends_the_stream_once_earlier_frames_are_answered(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, breach: pb.SegmentStreamRequest, blamed: str
) -> None:
    """The gate holds both frames until the breach is read."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), request(2, 10), request(7, 20), breach)
        started = await heard(call, "started")
        gated_runtime.gate.set()
        conversation = await hear_out(call, started)
    assert conversation.code == grpc.StatusCode.INVALID_ARGUMENT
    assert conversation.blamed_field == blamed
    assert conversation.kinds == ["started", "result", "result", "summary"]
    assert conversation.labels == [20, 30]
    assert conversation.summary == pb.StreamSummary(num_frames=2, num_results=2, num_key_frames=1)


@in_asyncio
async def test_a_model_that_is_not_there_is_not_found(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        for name in ("dog", "toy@2", "toy@", "@1"):
            conversation = await converse(server.address, configuration(model=name), *requests(1))
            assert (conversation.code, conversation.kinds) == (grpc.StatusCode.NOT_FOUND, [])
            assert conversation.message == f"there is no model '{name}': this server has toy@1"
        conversation = await converse(server.address, configuration(model="x" * 100_000))
    assert conversation.code == grpc.StatusCode.NOT_FOUND
    assert len(conversation.message) < 300


@in_asyncio
async def test_the_stream_after_the_last_free_one_is_told_to_wait(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle, max_streams=1)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), request(0, 10))
        await heard(call, "started")
        refused = await converse(server.address, configuration(), *requests(1))
        assert (refused.code, refused.kinds) == (grpc.StatusCode.RESOURCE_EXHAUSTED, [])
        assert refused.exhausted_subject == "streams"
        assert refused.asks_to_retry
        await call.done_writing()
        assert (await hear_out(call)).labels == [20]
        assert (await converse(server.address, configuration(), *requests(7))).labels == [14]


@in_asyncio
async def test_a_model_that_loads_is_unavailable(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle), is_loaded=False) as server:
        conversation = await converse(server.address, configuration(), *requests(1))
    assert (conversation.code, conversation.kinds) == (grpc.StatusCode.UNAVAILABLE, [])
    assert conversation.message == "model toy@1 is loading: try again in a moment"
    assert conversation.asks_to_retry


@in_asyncio
async def test_a_draining_server_tells_its_streams_and_takes_no_others(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), request(0, 10))
        before = [await heard(call, "started"), await heard(call, "result")]
        draining = asyncio.create_task(server.sessions.drain(grace_s=PATIENCE_S))
        notice = await heard(call, "notice")
        assert notice.notice.kind == pb.NOTICE_KIND_DRAINING
        assert notice.notice.grace_ms == PATIENCE_S * 1000
        assert (await open_stub(channel).GetServerInfo(pb.GetServerInfoRequest())).draining
        refused = await converse(server.address, configuration(), *requests(1))
        assert (refused.code, refused.asks_to_retry) == (grpc.StatusCode.UNAVAILABLE, True)
        await send(call, request(1, 20))
        await call.done_writing()
        conversation = await hear_out(call, *before)
        await draining  # at once, not at the end of the grace: `serve_here` would not wait so long
    assert conversation.code == grpc.StatusCode.OK
    assert conversation.labels == [20, 30]
    assert conversation.summary.num_frames == 2


@in_asyncio
async def test_a_client_that_has_not_said_what_it_wants_is_sent_elsewhere_at_once(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await call.wait_for_connection()
        await server.sessions.drain(grace_s=0)
        conversation = await hear_out(call)
    assert (conversation.code, conversation.asks_to_retry) == (grpc.StatusCode.UNAVAILABLE, True)
    assert conversation.kinds == []


@in_asyncio
async def test_after_its_grace_a_drained_stream_has_answers_for_all_that_was_read(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    async with (
        serve_here(served_model(toy_bundle, gated_runtime)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration(), request(0, 10))
        before = [await heard(call, "started"), await heard(call, "result")]
        gated_runtime.gate.clear()
        await send(call, request(1, 20))
        await until(lambda: len(gated_runtime.runs) == 5)  # two to warm up, two of the first frame, and this
        draining = asyncio.create_task(server.sessions.drain(grace_s=0))
        await heard(call, "notice")
        gated_runtime.gate.set()
        conversation = await hear_out(call, *before)
        await draining
    assert conversation.code == grpc.StatusCode.UNAVAILABLE
    assert conversation.asks_to_retry
    assert conversation.labels == [20, 30]
    assert conversation.summary == pb.StreamSummary(num_frames=2, num_results=2, num_key_frames=1)


class SlowContext:
    """A call whose responses wait for a sign, as they do when the client does not read."""

    def __init__(self, context: StreamContext, sign: asyncio.Event) -> None:
        self._context = context
        self._sign = sign

    async def write(self, response: pb.SegmentStreamResponse) -> None:
        await self._sign.wait()
        await self._context.write(response)

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)


@in_asyncio
async def test_a_notice_is_not_lost_if_the_stream_ends_while_a_response_is_written(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = asyncio.Event()
    segment_stream = SegmentationService.SegmentStream

    async def slow(service: SegmentationService, messages: AsyncIterator[T], context: StreamContext) -> None:
        await segment_stream(service, messages, SlowContext(context, sign))  # type: ignore[arg-type]  # as good as one

    monkeypatch.setattr(SegmentationService, "SegmentStream", slow)
    model = served_model(toy_bundle)
    async with (
        serve_here(model) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await send(call, configuration())
        await until(lambda: model.num_streams == 1)
        draining = asyncio.create_task(server.sessions.drain(grace_s=0))
        for _ in range(100):  # turns of the loop: `drain` has told the stream to end, and waits
            await asyncio.sleep(0)
        sign.set()
        conversation = await hear_out(call)
        await draining
    assert conversation.kinds == ["started", "notice", "summary"]
    assert conversation.code == grpc.StatusCode.UNAVAILABLE


@in_asyncio
async def test_a_silent_client_is_let_go(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    async with (
        serve_here(model, limits=replace(LIMITS, idle_timeout_s=0.5)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        mute: Call = open_stub(channel).SegmentStream()
        conversation = await hear_out(mute)
        assert (conversation.code, conversation.kinds) == (grpc.StatusCode.ABORTED, [])
        assert conversation.reason == "IDLE_TIMEOUT"
        paused: Call = open_stub(channel).SegmentStream()
        await send(paused, configuration(), request(0, 10))
        conversation = await hear_out(paused)
        await until(lambda: model.num_streams == 0)
    assert conversation.code == grpc.StatusCode.ABORTED
    assert conversation.message == "nothing came for 0.5 s"
    assert conversation.kinds == ["started", "result", "summary"]


@in_asyncio
async def test_a_client_that_waits_for_an_answer_is_not_idle(toy_bundle: Bundle, gated_runtime: GatedRuntime) -> None:
    """The clock: two silent streams, one after the other, are let go while the gate holds the patient one's frame."""
    async with (
        serve_here(served_model(toy_bundle, gated_runtime), limits=replace(LIMITS, idle_timeout_s=0.5)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        gated_runtime.gate.clear()
        patient: Call = open_stub(channel).SegmentStream()
        await send(patient, configuration(), request(0, 10))
        await heard(patient, "started")
        for _ in range(2):
            assert (await hear_out(open_stub(channel).SegmentStream())).code == grpc.StatusCode.ABORTED
        gated_runtime.gate.set()
        assert label((await heard(patient, "result")).result) == 20
        await patient.done_writing()


@in_asyncio
async def test_a_bug_is_internal_and_keeps_its_secrets(
    toy_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("serving.answers.class_statistics", broken)
    model = served_model(toy_bundle)
    with caplog.at_level(logging.ERROR):
        async with serve_here(model) as server:
            conversation = await converse(server.address, configuration(), *requests(1))
            assert model.num_streams == 0
            monkeypatch.undo()
            assert (await converse(server.address, configuration(), *requests(1))).labels == [2]
    assert conversation.code == grpc.StatusCode.INTERNAL
    assert conversation.message == "the server failed: its log says why"
    assert "/secret/path" in caplog.text


@in_asyncio
async def test_a_client_that_takes_no_answers_is_let_go(toy_bundle: Bundle) -> None:
    """Answers of a megabyte each fill what gRPC buffers; the client sends on and never reads."""
    model = served_model(toy_bundle)
    raw = {"encoding": "FRAME_ENCODING_RAW_GRAY", "width": 1000, "height": 1000}
    config = configuration(format=raw, outputs={"labelEncoding": "PIXEL_MAP_ENCODING_RAW"})
    async with (
        serve_here(model, limits=replace(LIMITS, idle_timeout_s=0.5)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream(
            iter([config, *(request(number, bytes(1_000_000)) for number in range(64))])
        )
        await until(lambda: len(server.sessions) == 1)
        await until(lambda: len(server.sessions) == 0)
        assert model.num_streams == 0
        call.cancel()
