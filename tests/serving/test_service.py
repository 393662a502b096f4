"""A real server in this process, spoken to over gRPC. What the toy answers is in conftest.py."""

import asyncio
import itertools
import logging
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import cv2
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.bundle import Bundle, read_bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png, encode_png
from serving.service import SegmentationService
from serving.session import StreamContext
from tests.serving.conftest import (
    KEY_POISON,
    LIMITS,
    PATIENCE_S,
    SIZE,
    STEP_POISON,
    GatedRuntime,
    open_stub,
    serve_here,
    served_model,
    toy_frame,
    write_toy_bundle,
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
    label,
    request,
    requests,
    send,
)

P = ParamSpec("P")
T = TypeVar("T")


async def until(is_so: Callable[[], bool]) -> None:
    """Lets the server work until something holds; `serve_here` bounds how long."""
    while not is_so():
        await asyncio.sleep(0.001)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(image: NDArray[np.uint8]) -> bytes:
    is_encoded, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert is_encoded
    return encoded.tobytes()


# --- a stream -------------------------------------------------------------------------------------------------------


@in_asyncio
async def test_a_stream_is_started_answered_in_order_and_summed_up(toy_bundle: Bundle) -> None:
    config = configuration(fixedKeyFrames={"interval": 2})
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, config, *requests(10, 20, 30, 40))
    assert conversation.code == grpc.StatusCode.OK
    assert conversation.kinds == ["started", *["result"] * 4, "summary"]
    # Totals: 10 from the first frame, 10 + 20 after the second; the third renews the key, so the fourth starts at 30.
    assert conversation.answered == [
        Answered(0, 10 + 10, age=0, previous=10, key=10),
        Answered(1, 10 + 20, age=1, previous=10, key=10),
        Answered(2, 30 + 30, age=2, previous=20, key=10),
        Answered(3, 30 + 40, age=1, previous=30, key=30),
    ]
    provenance = [result.provenance for result in conversation.results]
    assert [origin.kind for origin in provenance] == [pb.FRAME_KIND_KEY, *[pb.FRAME_KIND_PROPAGATED] * 3]
    assert [origin.refreshes_key for origin in provenance] == [False, False, True, False]
    assert {(origin.model, origin.precision) for origin in provenance} == {("toy@1", "fp32")}
    assert [result.capture_time_us for result in conversation.results] == [0, 1000, 2000, 3000]
    assert conversation.summary == pb.StreamSummary(num_frames=4, num_results=4, num_key_frames=2)


@in_asyncio
async def test_the_start_says_what_was_agreed(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        chosen = await converse(
            server.address, configuration(fixedKeyFrames={"interval": 3}, delivery={"maxInFlight": 5}, model="toy")
        )
        default = await converse(server.address, configuration(model="toy@1"))
        latest = await converse(server.address, configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"}))
    starts = [conversation.responses[0].started for conversation in (chosen, default, latest)]
    assert [(start.key_frame_interval, start.max_in_flight) for start in starts] == [(3, 5), (1000, 8), (1000, 4)]
    assert len({start.stream_id for start in starts}) == 3
    assert starts[0].max_consecutive_errors == 32
    model = starts[0].model
    assert (model.name, model.version, model.width, model.height, model.ready) == ("toy", "1", SIZE, SIZE, True)
    assert model.classes[4] == pb.Class(name="class 4", red=4, green=251, blue=2)
    assert default.summary == pb.StreamSummary()


@in_asyncio
async def test_every_pixel_has_the_label_of_its_own_red(toy_bundle: Bundle) -> None:
    """Red grows to the right, blue downwards: neither may be exchanged, nor the axes."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 0] = np.arange(SIZE)
    image[..., 2] = np.arange(100, 100 + SIZE)[:, None]
    expected = 163 + image[..., 0] % 251  # 163 is the largest value, hence the total
    encodings = {
        "PNG": encode_png(image),
        "RAW_RGB": image.tobytes(),
        "RAW_BGR": image[..., ::-1].tobytes(),
    }
    async with serve_here(served_model(toy_bundle)) as server:
        for name, encoded in encodings.items():
            frame_format = {"encoding": f"FRAME_ENCODING_{name}", "width": SIZE, "height": SIZE}
            conversation = await converse(server.address, configuration(format=frame_format), request(0, encoded))
            (result,) = conversation.results
            assert np.array_equal(decode_png(result.labels.data), expected), name


@in_asyncio
async def test_gray_and_jpeg_frames_are_decoded_too(toy_bundle: Bundle) -> None:
    gray = {"encoding": "FRAME_ENCODING_RAW_GRAY", "width": SIZE, "height": SIZE}
    async with serve_here(served_model(toy_bundle)) as server:
        assert (
            await converse(server.address, configuration(format=gray), request(0, b"\x07" * SIZE * SIZE))
        ).labels == [14]
        config = configuration(format={"encoding": "FRAME_ENCODING_JPEG"})
        assert (await converse(server.address, config, request(0, jpeg(toy_frame(100))))).labels == [200]


@in_asyncio
async def test_label_maps_come_in_the_size_that_was_asked_for(toy_bundle: Bundle) -> None:
    small = encode_png(np.full((24, 32, 3), 5, np.uint8))
    async with serve_here(served_model(toy_bundle)) as server:
        for wanted, size in (("UNSPECIFIED", (32, 24)), ("NATIVE", (32, 24)), ("MODEL", (SIZE, SIZE))):
            config = configuration(outputs={"labels": f"LABEL_MAP_SIZE_{wanted}"})
            (result,) = (await converse(server.address, config, request(0, small))).results
            assert result.labels.encoding == pb.PIXEL_MAP_ENCODING_PNG
            assert (result.labels.width, result.labels.height) == size
            assert np.array_equal(decode_png(result.labels.data), np.full(size[::-1], 10))
            assert not result.HasField("confidence")
        config = configuration(outputs={"labels": "LABEL_MAP_SIZE_NONE", "confidence": True})
        (result,) = (await converse(server.address, config, request(0, small))).results
    assert not result.HasField("labels")
    assert (result.confidence.width, result.confidence.height) == (SIZE // 4, SIZE // 4)
    assert np.array_equal(decode_png(result.confidence.data), np.full((SIZE // 4, SIZE // 4), 5))
    assert [(share.index, share.share) for share in result.classes] == [(10, 1.0)]


@in_asyncio
async def test_class_shares_are_counted_and_sorted(toy_bundle: Bundle) -> None:
    image = toy_frame(0)
    image[: SIZE // 4, :, 0] = 8  # a quarter; the total is 8 too
    async with serve_here(served_model(toy_bundle)) as server:
        (result,) = (await converse(server.address, configuration(), request(0, encode_png(image)))).results
    assert [(share.index, share.share) for share in result.classes] == [(8, 0.75), (16, 0.25)]


@in_asyncio
async def test_timings_are_parts_of_the_whole(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, configuration(), *requests(1, 2, 3))
    timings = [result.timings for result in conversation.results]
    for timing in timings:
        assert min(timing.decode_ms, timing.step_ms, timing.encode_ms) > 0
        parts = timing.decode_ms + timing.queue_ms + timing.key_ms + timing.step_ms + timing.encode_ms
        assert parts <= timing.total_ms * 1.001  # they are float32
        assert timing.batch_size == 1
    assert [timing.key_ms > 0 for timing in timings] == [True, False, False]


@in_asyncio
async def test_a_forced_key_frame_forgets_the_past(toy_bundle: Bundle) -> None:
    frames = [request(3, 10), request(5, 20), request(8, 30, force_key_frame=True), request(13, 40)]
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, configuration(), *frames)
    assert conversation.answered == [
        Answered(3, 20, age=0, previous=10, key=10),
        Answered(5, 30, age=1, previous=10, key=10),
        Answered(8, 60, age=0, previous=30, key=30),
        Answered(13, 70, age=1, previous=30, key=30),
    ]
    assert conversation.summary.num_key_frames == 2


@in_asyncio
async def test_streams_at_once_have_a_state_of_their_own(toy_bundle: Bundle) -> None:
    """Frames of all streams come in turn, so that the engine runs them in common batches."""
    num_streams, num_frames = 5, 12
    async with (
        serve_here(served_model(toy_bundle)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        calls: list[Call] = [open_stub(channel).SegmentStream() for _ in range(num_streams)]
        for call in calls:
            await send(call, configuration())
        for index in range(num_frames):
            await asyncio.gather(*(send(call, request(index, number + 1)) for number, call in enumerate(calls)))
        for call in calls:
            await call.done_writing()
        conversations = await asyncio.gather(*(hear_out(call) for call in calls))
    for number, conversation in enumerate(conversations):
        value = number + 1
        assert conversation.labels == [2 * value, *((index + 1) * value for index in range(1, num_frames))]


# --- what ends a stream ---------------------------------------------------------------------------------------------

BAD_CONFIGURATIONS: list[tuple[Document, str]] = [
    ({"format": {}}, "config.format.encoding"),
    ({"format": {"encoding": 99}}, "config.format.encoding"),
    ({"format": {"encoding": "FRAME_ENCODING_RAW_RGB"}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_RAW_GRAY", "width": 64}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_PNG", "height": 64}}, "config.format"),
    ({"format": {"encoding": "FRAME_ENCODING_PNG", "width": 1001, "height": 1000}}, "config.format"),
    ({"fixedKeyFrames": {}}, "config.fixed_key_frames.interval"),
    ({"fixedKeyFrames": {"interval": 2**32 - 1}}, "config.fixed_key_frames.interval"),
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
        draining = asyncio.create_task(server.service.drain(grace_s=PATIENCE_S))
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
        draining = asyncio.create_task(server.service.drain(grace_s=0))
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
        draining = asyncio.create_task(server.service.drain(grace_s=0))
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

    monkeypatch.setattr("serving.session.result_message", broken)
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


# --- frames that have no result -------------------------------------------------------------------------------------

BAD_FRAMES = {
    "empty": (b"", "frame is empty"),
    "noise": (b"no image at all", "frame is not a PNG"),
    "other kind": (jpeg(toy_frame(1)), "frame is not a PNG"),
    "cut short": (encode_png(toy_frame(1))[:60], "frame does not decode as PNG: it is damaged or cut short"),
    "no pixels": (png_header(SIZE, SIZE), "frame does not decode as PNG: it is damaged or cut short"),
    "other size": (
        encode_png(np.zeros((32, 16, 3), np.uint8)),
        "frame is 16x32, this stream's frames are 64x64: open another stream",
    ),
    "100 megapixels": (
        png_header(10_000, 10_000),
        "frame is 10000x10000, this stream's frames are 64x64: open another stream",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
@in_asyncio
async def test_a_bad_frame_has_an_error_and_the_stream_goes_on_as_if_it_had_not_been(
    toy_bundle: Bundle, name: str
) -> None:
    bad, message = BAD_FRAMES[name]
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, configuration(), *requests(10, bad, 20, bad, bad, 30))
    assert conversation.code == grpc.StatusCode.OK
    kinds = ["result", "frame_error", "result", "frame_error", "frame_error", "result"]
    assert conversation.kinds == ["started", *kinds, "summary"]
    assert [(error.sequence, error.code, error.message) for error in conversation.errors] == [
        (sequence, grpc.StatusCode.INVALID_ARGUMENT.value[0], message) for sequence in (1, 3, 4)
    ]
    assert conversation.answered == [
        Answered(0, 20, age=0, previous=10, key=10),
        Answered(2, 10 + 20, age=1, previous=10, key=10),
        Answered(5, 10 + 20 + 30, age=2, previous=20, key=10),
    ]
    assert conversation.summary == pb.StreamSummary(num_frames=6, num_results=3, num_errors=3, num_key_frames=1)


@in_asyncio
async def test_a_huge_header_is_refused_before_it_is_decoded(toy_bundle: Bundle) -> None:
    """As first frame, when no size is agreed yet: the next one sets it."""
    jpeg_header = b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 10_000, 10_000) + bytes(12)
    message = "frame is 10000x10000, 100.0 megapixels: at most 1.0 are taken, send it smaller"
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, configuration(), *requests(png_header(10_000, 10_000), 10))
        assert [error.message for error in conversation.errors] == [message]
        assert conversation.answered == [Answered(1, 20, age=0, previous=10, key=10)]
        config = configuration(format={"encoding": "FRAME_ENCODING_JPEG"})
        conversation = await converse(server.address, config, *requests(jpeg_header, jpeg(toy_frame(10))))
    assert [error.message for error in conversation.errors] == [message]
    assert conversation.answered == [Answered(1, 20, age=0, previous=10, key=10)]


@in_asyncio
async def test_a_frame_of_another_size_than_was_announced_has_an_error(toy_bundle: Bundle) -> None:
    announced = configuration(format={"encoding": "FRAME_ENCODING_PNG", "width": 32, "height": 64})
    raw = configuration(format={"encoding": "FRAME_ENCODING_RAW_RGB", "width": 2, "height": 2})
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, announced, *requests(10))
        assert [error.message for error in conversation.errors] == [
            "frame is 64x64, this stream's frames are 32x64: open another stream"
        ]
        conversation = await converse(server.address, raw, *requests(b"\x05" * 11, b"\x05" * 12))
    assert [error.message for error in conversation.errors] == ["frame has 11 bytes, raw RGB of 2x2 has 12"]
    assert conversation.labels == [10]


@in_asyncio
async def test_a_frame_the_model_fails_on_leaves_the_state_as_it_was(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(server.address, configuration(), *requests(KEY_POISON, 10, STEP_POISON, 20, 30))
    assert conversation.code == grpc.StatusCode.OK
    assert [(error.sequence, error.code, error.message) for error in conversation.errors] == [
        (sequence, grpc.StatusCode.INTERNAL.value[0], "the model failed on this frame") for sequence in (0, 2)
    ]
    assert conversation.answered == [
        Answered(1, 20, age=0, previous=10, key=10),
        Answered(3, 30, age=1, previous=10, key=10),
        Answered(4, 60, age=2, previous=20, key=10),
    ]
    assert conversation.summary == pb.StreamSummary(num_frames=5, num_results=3, num_errors=2, num_key_frames=1)


@in_asyncio
async def test_too_many_refused_frames_in_a_row_end_the_stream(toy_bundle: Bundle) -> None:
    limits = replace(LIMITS, max_consecutive_errors=3)
    async with serve_here(served_model(toy_bundle), limits=limits) as server:
        conversation = await converse(server.address, configuration(), *requests(b"", b"", 10, b"", b"", b""))
    assert conversation.code == grpc.StatusCode.INVALID_ARGUMENT
    assert conversation.message == "3 frames in a row had no result, the last one: frame is empty"
    assert conversation.blamed_field == "frame.data"
    assert conversation.responses[0].started.max_consecutive_errors == 3
    assert conversation.labels == [20]
    assert conversation.summary == pb.StreamSummary(num_frames=6, num_results=1, num_errors=5, num_key_frames=1)


@in_asyncio
async def test_too_many_failed_frames_in_a_row_end_the_stream_too(toy_bundle: Bundle) -> None:
    """A refused frame among them counts like any other; what was read beyond them is answered."""
    limits = replace(LIMITS, max_consecutive_errors=3)
    async with serve_here(served_model(toy_bundle), limits=limits) as server:
        conversation = await converse(
            server.address, configuration(), *requests(10, STEP_POISON, b"", STEP_POISON, *[20] * 20)
        )
    assert conversation.code == grpc.StatusCode.INTERNAL
    assert conversation.message == "3 frames in a row had no result, the last one: the model failed on this frame"
    assert [error.sequence for error in conversation.errors] == [1, 2, 3]
    sequences = [result.sequence for result in conversation.results]
    assert sequences == [0, *range(4, 3 + len(sequences))]
    assert conversation.summary.num_results == len(sequences)


# --- clients that vanish --------------------------------------------------------------------------------------------


@in_asyncio
async def test_a_client_that_vanishes_frees_its_slot_and_disturbs_no_other(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """It goes while the gate holds a frame of each; more of its frames wait behind."""
    model = served_model(toy_bundle, gated_runtime)
    values = [10, 20, 30, 40]
    async with (
        serve_here(model) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        undisturbed = await converse(server.address, configuration(), *requests(*values))
        stays: Call = open_stub(channel).SegmentStream()
        goes: Call = open_stub(channel).SegmentStream()
        await send(stays, configuration(), *requests(*values[:2]))
        await send(goes, configuration(), *requests(99, 98))
        before = [await heard(stays, "started"), await heard(stays, "result"), await heard(stays, "result")]
        for kind in ("started", "result", "result"):
            await heard(goes, kind)
        gated_runtime.gate.clear()
        await send(goes, *(request(sequence, sequence) for sequence in range(2, 8)))
        await send(stays, request(2, values[2]))
        goes.cancel()
        await until(lambda: model.num_streams == 1)
        gated_runtime.gate.set()
        await send(stays, request(3, values[3]))
        await stays.done_writing()
        conversation = await hear_out(stays, *before)
        await until(lambda: model.num_streams == 0)
        assert (await open_stub(channel).GetServerInfo(pb.GetServerInfoRequest())).num_streams == 0
        await until(lambda: b'flowseg_streams_total{model="toy@1",status="CANCELLED"} 1.0' in server.metrics.text())
    assert conversation.code == grpc.StatusCode.OK
    assert [result.labels.data for result in conversation.results] == [
        result.labels.data for result in undisturbed.results
    ]
    assert conversation.answered == undisturbed.answered
    assert conversation.summary == undisturbed.summary


@in_asyncio
async def test_a_client_that_vanishes_before_its_configuration_leaves_nothing(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle, max_streams=1)
    async with (
        serve_here(model) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        call: Call = open_stub(channel).SegmentStream()
        await call.wait_for_connection()
        call.cancel()
        assert (await converse(server.address, configuration(), *requests(1))).labels == [2]


# --- frames that come too fast --------------------------------------------------------------------------------------


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


# --- the other RPCs -------------------------------------------------------------------------------------------------


@pytest.fixture
def two_versions(tmp_path: Path) -> list[Bundle]:
    return [read_bundle(write_toy_bundle(tmp_path / version, version=version)) for version in ("1", "2")]


@in_asyncio
async def test_models_are_found_by_name_and_version(two_versions: list[Bundle]) -> None:
    async with (
        serve_here(*map(served_model, two_versions)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        listed = (await stub.ListModels(pb.ListModelsRequest())).models
        assert [(model.name, model.version, model.ready) for model in listed] == [
            ("toy", "1", True),
            ("toy", "2", True),
        ]
        for name, version in (("toy@1", "1"), ("toy@2", "2"), ("toy", "2")):
            assert (await stub.GetModel(pb.GetModelRequest(model=name))).model.version == version
            conversation = await converse(server.address, configuration(model=name), *requests(1))
            assert conversation.responses[0].started.model.version == version
            assert conversation.results[0].provenance.model == f"toy@{version}"
        conversation = await converse(server.address, configuration(), *requests(1))
        assert conversation.code == grpc.StatusCode.INVALID_ARGUMENT
        assert conversation.message == "model: this server has several, name one of toy@1, toy@2"
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.GetModel(pb.GetModelRequest(model="dog"))
        assert missing.value.code() == grpc.StatusCode.NOT_FOUND


@in_asyncio
async def test_a_model_is_described_before_it_is_ready(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    async with (
        serve_here(model, is_loaded=False) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        described = (await open_stub(channel).GetModel(pb.GetModelRequest())).model
        assert (described.name, len(described.classes), described.ready) == ("toy", 251, False)
        model.load(server.metrics.watch_runs(model.label))
        assert (await open_stub(channel).GetModel(pb.GetModelRequest())).model.ready


@in_asyncio
async def test_the_server_tells_its_load_and_limits(toy_bundle: Bundle) -> None:
    async with (
        serve_here(served_model(toy_bundle)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = open_stub(channel)
        call: Call = stub.SegmentStream()
        await send(call, configuration())
        await heard(call, "started")
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert info.version
        assert (info.num_streams, info.draining) == (1, False)
        assert info.limits == pb.Limits(
            max_streams=8, max_in_flight=16, max_frame_bytes=1_000_000, max_frame_pixels=1_000_000
        )
        await call.done_writing()
        await hear_out(call)
        assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).num_streams == 0


@in_asyncio
async def test_metrics_count_frames_and_streams_by_outcome(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        await converse(server.address, configuration(), *requests(10, b"", 20, STEP_POISON))
        await converse(server.address, configuration(model="dog"))
        # a stream is counted once its status is on its way
        await until(lambda: server.metrics.text().count(b'flowseg_streams_total{model="') == 2)
        lines = server.metrics.text().decode().splitlines()
    assert 'flowseg_frames_total{model="toy@1",outcome="result"} 2.0' in lines
    assert 'flowseg_frames_total{model="toy@1",outcome="error"} 2.0' in lines
    assert 'flowseg_frame_seconds_count{model="toy@1",part="total"} 2.0' in lines
    assert 'flowseg_graph_failures_total{graph="step",model="toy@1"} 1.0' in lines
    assert 'flowseg_streams_total{model="toy@1",status="OK"} 1.0' in lines
    assert 'flowseg_streams_total{model="none",status="NOT_FOUND"} 1.0' in lines
