"""SegmentImage, and what frames and images may be like."""

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import encode_png
from tests.serving.conftest import KEY_POISON, LIMITS, open_stub, serve_here, served_model, toy_frame
from tests.serving.conversations import Document, answered, configuration, converse, in_asyncio, request, requests


def image(data: bytes, **fields: object) -> pb.SegmentImageRequest:
    document: Document = {"format": {"encoding": "FRAME_ENCODING_PNG"}} | fields
    message = ParseDict(document, pb.SegmentImageRequest())
    message.data = data
    return message


@in_asyncio
async def test_an_image_is_answered_like_the_first_frame_of_a_stream(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        first = (await converse(server.address, configuration(), request(0, 7))).results[0]
        response = await open_stub(channel).SegmentImage(image(encode_png(toy_frame(7))))
        assert model.num_streams == 0
    assert answered(response.result) == answered(first)
    assert response.result.labels == first.labels
    assert response.result.provenance.kind == pb.FRAME_KIND_KEY


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (image(b"no PNG"), grpc.StatusCode.INVALID_ARGUMENT),
        (image(b"", format={"encoding": "FRAME_ENCODING_H264"}), grpc.StatusCode.INVALID_ARGUMENT),
        (image(b"", format={}), grpc.StatusCode.INVALID_ARGUMENT),
        (image(b"", outputs={"labels": 99}), grpc.StatusCode.INVALID_ARGUMENT),
        (image(encode_png(toy_frame(1)), model="dog"), grpc.StatusCode.NOT_FOUND),
        (image(encode_png(toy_frame(KEY_POISON))), grpc.StatusCode.INTERNAL),
        (image(bytes(LIMITS.max_frame_bytes + 1)), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["damaged", "video", "no encoding", "bad outputs", "unknown model", "model fails", "too large"],
)
@in_asyncio
async def test_what_cannot_be_segmented_is_the_status_of_the_call(
    toy_bundle: Bundle, message: pb.SegmentImageRequest, code: grpc.StatusCode
) -> None:
    model = served_model(toy_bundle)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await open_stub(channel).SegmentImage(message)
        assert failed.value.code() == code
        assert model.num_streams == 0


@in_asyncio
async def test_an_image_needs_a_place_among_the_streams(toy_bundle: Bundle) -> None:
    model = served_model(toy_bundle, max_streams=1)
    async with serve_here(model) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = open_stub(channel).SegmentStream()
        await call.write(configuration())
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await open_stub(channel).SegmentImage(image(encode_png(toy_frame(1))))
        assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@in_asyncio
async def test_a_frame_of_too_many_bytes_ends_the_stream_with_what_the_limit_is(toy_bundle: Bundle) -> None:
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(
            server.address, configuration(), *requests(1), request(1, bytes(LIMITS.max_frame_bytes + 1))
        )
    assert conversation.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert conversation.message == "frame has 1000001 bytes, at most 1000000 are taken: send it smaller"
    assert conversation.exhausted_subject == "frame bytes"
    assert conversation.kinds == ["started", "result", "summary"]
