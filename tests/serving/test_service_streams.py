"""Streams as they should go, on a real server in this process. What the toy answers is in conftest.py."""

import asyncio

import grpc
import numpy as np

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png, encode_png
from tests.serving.conftest import (
    SIZE,
    open_stub,
    serve_here,
    served_model,
    toy_frame,
)
from tests.serving.conversations import (
    Answered,
    Call,
    configuration,
    converse,
    hear_out,
    in_asyncio,
    jpeg,
    request,
    requests,
    send,
)


@in_asyncio
async def test_a_stream_is_started_answered_in_order_and_summed_up(toy_bundle: Bundle) -> None:
    config = configuration(keyFrames={"fixed": {"interval": 2}})
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
            server.address,
            configuration(keyFrames={"fixed": {"interval": 3}}, delivery={"maxInFlight": 5}, model="toy"),
        )
        default = await converse(server.address, configuration(model="toy@1"))
        latest = await converse(server.address, configuration(delivery={"policy": "DELIVERY_POLICY_LATEST_ONLY"}))
    starts = [conversation.responses[0].started for conversation in (chosen, default, latest)]
    assert [(start.key_frames.fixed.interval, start.max_in_flight) for start in starts] == [
        (3, 5),
        (1000, 8),
        (1000, 4),
    ]
    assert len({start.stream_id for start in starts}) == 3
    assert starts[0].max_consecutive_errors == 32
    model = starts[0].model
    assert (model.name, model.version, model.width, model.height, model.state) == (
        "toy",
        "1",
        SIZE,
        SIZE,
        pb.MODEL_STATE_READY,
    )
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
