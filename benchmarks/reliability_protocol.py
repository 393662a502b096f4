"""Fuzzing of the service: the parsing of its messages, and a real server that is sent anything over gRPC."""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from benchmarks.reliability_codecs import (
    SIZE,
    framed,
    jpegs,
    mutate_framed,
    mutate_png,
    pngs,
    raw,
    unframed,
    videos,
)
from benchmarks.reliability_inputs import mutate_bytes, random_message
from benchmarks.reliability_target import Subject, Target
from serving.errors import InvalidRequestError
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.messages import parse_config, parse_format, parse_key_frames, parse_outputs
from serving.options import READY_BUNDLE, ServerOptions

METHOD = "/flowseg.v1.SegmentationService/"
MAX_MESSAGES = 12  # of one call
CALL_S = 60.0  # that a call may take
NEIGHBOUR_EVERY = 100  # inputs, after each of which a stream of good frames must be answered as ever
# How a call may end for what a client sent; all else, INTERNAL and UNKNOWN before all, is a defect.
PROMISED = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)  # fmt: skip


class CallRefusedError(Exception):
    """A call ended with a status that is promised for wrong requests."""


class BrokenPromiseError(Exception):
    """A call ended, or was answered, as it must not."""


def _calls() -> list[bytes]:
    """Whole calls in each encoding, with controls and options."""
    kinds = {
        pb.FRAME_ENCODING_JPEG: jpegs()[:3],
        pb.FRAME_ENCODING_PNG: pngs()[:3],
        pb.FRAME_ENCODING_RAW_RGB: raw(6) * 2,
        pb.FRAME_ENCODING_RAW_NV12: raw(3) * 2,
        pb.FRAME_ENCODING_H264: unframed(videos("h264")[0], 4),
    }
    return [_call(encoding, images) for encoding, images in kinds.items()]


def _call(encoding: pb.FrameEncoding, images: Sequence[bytes]) -> bytes:
    is_sized = encoding not in (pb.FRAME_ENCODING_JPEG, pb.FRAME_ENCODING_PNG, pb.FRAME_ENCODING_H264)
    width, height = SIZE if is_sized else (0, 0)
    config = pb.StreamConfig(
        format=pb.FrameFormat(encoding=encoding, width=width, height=height),
        key_frames=pb.KeyFrames(adaptive=pb.AdaptiveKeyFrames(min_interval=1, max_interval=3)),
        delivery=pb.Delivery(policy=pb.DELIVERY_POLICY_BLOCK, max_in_flight=4),
        outputs=pb.Outputs(confidence=True, label_encoding=pb.PIXEL_MAP_ENCODING_DELTA_RLE),
        latency=pb.LatencyObjective(target_ms=500, may_skip_steps=True),
    )
    control = pb.StreamControl(key_frames=pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=2)))
    frames = [pb.Frame(sequence=place, data=image) for place, image in enumerate(images)]
    messages = [pb.SegmentStreamRequest(config=config), *(pb.SegmentStreamRequest(frame=frame) for frame in frames)]
    messages.insert(2, pb.SegmentStreamRequest(control=control))
    return framed([message.SerializeToString() for message in messages])


def _mutate_call(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A call with messages that are damaged, made up, or hold damaged frames."""
    if chance.randrange(3) == 0:
        return mutate_framed(chance, seeds)
    messages = unframed(chance.choice(seeds), MAX_MESSAGES)
    for _ in range(chance.randint(1, 3)):
        index = chance.randrange(len(messages))
        messages[index] = _wrong_message(chance, messages[index], messages)
    return framed([message[:65535] for message in messages])


def _wrong_message(chance: random.Random, encoded: bytes, others: Sequence[bytes]) -> bytes:
    message = pb.SegmentStreamRequest()
    try:
        message.ParseFromString(encoded)
    except DecodeError:
        return chance.choice(others)
    if chance.randrange(3) == 0:
        return random_message(chance, pb.SegmentStreamRequest, others).SerializeToString()
    match message.WhichOneof("body"):
        case "config":
            part = chance.choice(("format", "delivery", "key_frames", "outputs", "latency"))
            strange = random_message(chance, pb.StreamConfig, others)
            getattr(message.config, part).CopyFrom(getattr(strange, part))
        case "frame":
            message.frame.data = mutate_bytes(chance, [message.frame.data])
        case "control":
            message.control.CopyFrom(random_message(chance, pb.StreamControl, others))
    return message.SerializeToString()


def _parse(content: bytes) -> None:
    """As the service does with each message of a call."""
    limits = ServerOptions().limits()
    for encoded in unframed(content, MAX_MESSAGES):
        message = pb.SegmentStreamRequest.FromString(encoded)
        match message.WhichOneof("body"):
            case "config":
                parse_config(message.config, limits)
            case "control":
                parse_key_frames(message.control.key_frames, "control.key_frames", limits)
            case "frame":
                image = pb.SegmentImageRequest.FromString(encoded)
                parse_format(image.format, "format", limits)
                parse_outputs(image.outputs, "outputs")


class _Server:
    """The real command in a process of its own, and a channel to it."""

    def __init__(self, folder: Path) -> None:
        arguments = ("--port", "0", "--http-port", "0", "--json", "--threads", "1", "--runtime", "onnxruntime",
                     "--max-frame-megapixels", "4", "--max-streams", "8", "--resume-s", "5")  # fmt: skip
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.server", str(READY_BUNDLE), *arguments],
                stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.channel: Any = grpc.insecure_channel(f"127.0.0.1:{ports['port']}")  # Any: grpc types no calls of bytes
        self.process_id = self._process.pid

    def close(self) -> None:
        self.channel.close()
        self._process.kill()
        self._process.communicate()


def _open_stream(folder: Path) -> Subject:
    server = _Server(folder)
    good = unframed(_call(pb.FRAME_ENCODING_JPEG, jpegs()[:3]), MAX_MESSAGES)
    expected, number = _labels(_converse(server.channel, good)), 0

    def feed(content: bytes) -> None:
        nonlocal number
        number += 1
        if number % NEIGHBOUR_EVERY == 0 and _labels(_converse(server.channel, good)) != expected:
            raise BrokenPromiseError("a good stream is no longer answered as before")
        _converse(server.channel, unframed(content, MAX_MESSAGES))

    return Subject(feed, server.process_id, server.close)


def _converse(channel: Any, messages: Sequence[bytes]) -> list[pb.SegmentStreamResponse]:
    """All answers of a call.

    Raises:
        CallRefusedError: if it ended with a promised status.
        BrokenPromiseError: if it ended otherwise, or a frame was not answered exactly once.
    """
    call = channel.stream_stream(METHOD + "SegmentStream")(iter(messages), timeout=CALL_S)
    responses: list[pb.SegmentStreamResponse] = []
    refusal = None
    try:
        responses.extend(map(pb.SegmentStreamResponse.FromString, call))  # keeps those before an error
    except grpc.RpcError as error:
        refusal = _refusal(error)
    _check_accounting(responses)
    if refusal is not None:
        raise refusal
    return responses


def _refusal(error: grpc.RpcError) -> Exception:
    code = error.code()
    if code in PROMISED:
        return CallRefusedError(code.name)
    return BrokenPromiseError(f"{code.name}: {error.details()}")


def _check_accounting(responses: Sequence[pb.SegmentStreamResponse]) -> None:
    """Every frame that was read is answered exactly once."""
    answered, num_dropped = Counter[int](), 0
    for response in responses:
        match response.WhichOneof("body"):
            case "result":
                answered[response.result.sequence] += 1
            case "frame_error":
                answered[response.frame_error.sequence] += 1
            case "dropped":
                num_dropped += response.dropped.count
            case "summary":
                total = response.summary
                counts = (total.num_results + total.num_errors, total.num_dropped)
                if counts != (sum(answered.values()), num_dropped) or total.num_frames != sum(counts):
                    raise BrokenPromiseError(f"the summary does not add up: {total}, answered {answered}")
    if answered and max(answered.values()) > 1:
        raise BrokenPromiseError(f"frames were answered more than once: {answered}")


def _labels(responses: Sequence[pb.SegmentStreamResponse]) -> list[bytes]:
    return [response.result.labels.SerializeToString() for response in responses if response.HasField("result")]


def _image_requests() -> list[bytes]:
    images = {pb.FRAME_ENCODING_JPEG: jpegs(), pb.FRAME_ENCODING_PNG: pngs()}
    return [
        pb.SegmentImageRequest(format=pb.FrameFormat(encoding=encoding), data=image).SerializeToString()
        for encoding, encoded in images.items()
        for image in encoded
    ]


def _mutate_image_request(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    request = pb.SegmentImageRequest.FromString(chance.choice(seeds))
    match chance.randrange(4):
        case 0:
            return mutate_bytes(chance, [request.SerializeToString()])
        case 1:
            request.MergeFrom(random_message(chance, pb.SegmentImageRequest, [request.data]))
        case _:
            is_png = request.format.encoding == pb.FRAME_ENCODING_PNG
            request.data = (mutate_png if is_png else mutate_bytes)(chance, [request.data])
    return request.SerializeToString()


def _open_images(folder: Path) -> Subject:
    server = _Server(folder)
    segment = server.channel.unary_unary(METHOD + "SegmentImage")

    def feed(content: bytes) -> None:
        try:
            pb.SegmentImageResponse.FromString(segment(content, timeout=CALL_S))
        except grpc.RpcError as error:
            raise _refusal(error) from error

    return Subject(feed, server.process_id, server.close)


def _open_parsing(folder: Path) -> Subject:
    del folder
    return Subject(_parse)


PROTOCOL = (
    Target("requests", "messages of the service, parsed", 150, _calls, _open_parsing,
           (DecodeError, InvalidRequestError), _mutate_call),
    Target("stream", "calls of SegmentStream to a server", 20, _calls, _open_stream, (CallRefusedError,), _mutate_call),
    Target("image", "calls of SegmentImage to a server", 20, _image_requests, _open_images, (CallRefusedError,),
           _mutate_image_request),
)  # fmt: skip
