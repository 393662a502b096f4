"""Frames that have no result, and the stream that goes on without them."""

import struct
from dataclasses import replace

import cv2
import grpc
import numpy as np
import pytest

from serving.bundle import Bundle
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import encode_png
from serving.video_chunks import Codec, VideoDecoder
from tests.serving.conftest import (
    KEY_POISON,
    LIMITS,
    SIZE,
    STEP_POISON,
    TOO_MUCH,
    FullDevice,
    serve_here,
    served_model,
    toy_frame,
)
from tests.serving.conversations import (
    Answered,
    configuration,
    converse,
    in_asyncio,
    jpeg,
    png_header,
    requests,
)
from tests.serving.test_video_chunks import encode as encode_video
from tests.serving.test_video_chunks import pictures

VIDEO_SIZE = Size(128, 96)
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


@pytest.mark.parametrize(("codec", "encoding"), [("h264", "FRAME_ENCODING_H264"), ("hevc", "FRAME_ENCODING_H265")])
@in_asyncio
async def test_frames_of_a_video_are_answered_like_the_images_they_decode_to(
    toy_bundle: Bundle, codec: Codec, encoding: str
) -> None:
    """A chunk that is damaged costs the frames up to the next key frame, each of which is told."""
    chunks = encode_video(codec, [picture // 2 for picture in pictures(12, VIDEO_SIZE)])  # far from the toy's poison
    sent: list[bytes | int] = [*chunks]
    sent[6] = b"\x00\x00\x01no video"
    decoder = VideoDecoder(codec, None, max_pixels=1_000_000)
    images = [decoder.decode(chunk) for chunk in chunks]
    as_images: list[bytes | int] = [encode_png(image) for image in images]
    as_images[6] = as_images[7] = b""
    async with serve_here(served_model(toy_bundle)) as server:
        video = await converse(server.address, configuration(format={"encoding": encoding}), *requests(*sent))
        still = await converse(server.address, configuration(), *requests(*as_images))
    assert video.code == grpc.StatusCode.OK
    assert [error.sequence for error in video.errors] == [6, 7]  # key frames are 0, 4 and 8
    assert [(result.sequence, result.labels.data) for result in video.results] == [
        (result.sequence, result.labels.data) for result in still.results
    ]


@in_asyncio
async def test_a_video_with_b_frames_is_refused_with_what_to_do(toy_bundle: Bundle) -> None:
    chunks = encode_video("h264", pictures(8, VIDEO_SIZE), b_frames=2)
    async with serve_here(served_model(toy_bundle)) as server:
        conversation = await converse(
            server.address, configuration(format={"encoding": "FRAME_ENCODING_H264"}), *requests(*chunks)
        )
    assert conversation.code == grpc.StatusCode.OK
    assert len(conversation.errors) == 8
    assert "encode the video without B-frames" in conversation.errors[0].message


@in_asyncio
async def test_raw_nv12_is_what_opencv_makes_of_it(toy_bundle: Bundle) -> None:
    planes = np.random.default_rng(0).integers(16, 120, (48 * 3 // 2, 64), np.uint8)
    image = cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_NV12)
    nv12 = {"encoding": "FRAME_ENCODING_RAW_NV12", "width": 64, "height": 48}
    async with serve_here(served_model(toy_bundle)) as server:
        raw = await converse(server.address, configuration(format=nv12), *requests(planes.tobytes()))
        still = await converse(server.address, configuration(), *requests(encode_png(image.astype(np.uint8))))
    assert [result.labels for result in raw.results] == [result.labels for result in still.results]
    assert len(raw.results) == 1


@in_asyncio
async def test_frames_that_find_no_memory_on_the_device_are_told_one_by_one_and_end_the_stream_after_many(
    toy_bundle: Bundle,
) -> None:
    limits = replace(LIMITS, max_consecutive_errors=3)
    async with serve_here(served_model(toy_bundle, FullDevice("cpu", threads=1)), limits=limits) as server:
        conversation = await converse(server.address, configuration(), *requests(10, *[TOO_MUCH] * 5, 20))
    assert conversation.kinds[:5] == ["started", "result", "frame_error", "frame_error", "frame_error"]
    assert {error.code for error in conversation.errors} == {grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]}
    assert conversation.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (conversation.reason, conversation.exhausted_subject) == ("DEVICE_MEMORY", "device memory")
    assert conversation.asks_to_retry
