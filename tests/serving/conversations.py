"""Calls of SegmentStream as tests hold them, and what the toy's answers say. The toy is in conftest.py."""

import asyncio
import contextlib
import functools
import struct
import zlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import cv2
import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no py.typed
from numpy.typing import NDArray

from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png, encode_png
from tests.serving.conftest import open_stub, toy_frame

P = ParamSpec("P")
M = TypeVar("M", bound=Message)
Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.SegmentStreamRequest, pb.SegmentStreamResponse]"
Document = dict[str, object]


def in_asyncio(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def configuration(**fields: object) -> pb.SegmentStreamRequest:
    """PNG frames unless said otherwise; ParseDict also takes enum values that the schema lacks."""
    document: Document = {"format": {"encoding": "FRAME_ENCODING_PNG"}} | fields
    return pb.SegmentStreamRequest(config=ParseDict(document, pb.StreamConfig()))


def request(sequence: int, image: bytes | int, *, force_key_frame: bool = False) -> pb.SegmentStreamRequest:
    """A frame of one value, or of some bytes."""
    encoded = image if isinstance(image, bytes) else encode_png(toy_frame(image))
    return pb.SegmentStreamRequest(
        frame=pb.Frame(
            sequence=sequence, capture_time_us=sequence * 1000, data=encoded, force_key_frame=force_key_frame
        )
    )


def requests(*values: bytes | int) -> list[pb.SegmentStreamRequest]:
    """Frames numbered from 0."""
    return [request(sequence, value) for sequence, value in enumerate(values)]


def label(result: pb.FrameResult) -> int:
    """That of all pixels."""
    labels = decode_png(result.labels.data)
    assert labels.min() == labels.max()
    return int(labels[0, 0])


class Answered(NamedTuple):
    """What the toy gives away about a result."""

    sequence: int
    label: int
    age: int
    previous: int  # the value of the frame before
    key: int  # the value of the last key frame


def answered(result: pb.FrameResult) -> Answered:
    return Answered(
        result.sequence,
        label(result),
        result.provenance.key_frame_age,
        previous=round(result.quality.mean_confidence * 256),
        key=round(result.quality.disagreement * 256),
    )


@dataclass(frozen=True)
class Conversation:
    """All that came back in a call."""

    responses: list[pb.SegmentStreamResponse]
    code: grpc.StatusCode
    message: str
    details: Sequence[Any]  # Any: google.protobuf.Any, as the untyped Status has it

    @property
    def results(self) -> list[pb.FrameResult]:
        return [response.result for response in self.responses if response.HasField("result")]

    @property
    def errors(self) -> list[pb.FrameError]:
        return [response.frame_error for response in self.responses if response.HasField("frame_error")]

    @property
    def kinds(self) -> list[str | None]:
        return [response.WhichOneof("body") for response in self.responses]

    @property
    def answered(self) -> list[Answered]:
        return [answered(result) for result in self.results]

    @property
    def labels(self) -> list[int]:
        return [label(result) for result in self.results]

    @property
    def summary(self) -> pb.StreamSummary:
        """The last response, whose sum must be right."""
        assert self.kinds.count("summary") == 1
        summary = self.responses[-1].summary
        assert summary.num_frames == summary.num_results + summary.num_errors + summary.num_dropped
        return summary

    def detail(self, kind: type[M]) -> M:
        """The one detail of a kind."""
        (packed,) = [detail for detail in self.details if detail.Is(kind.DESCRIPTOR)]
        message = kind()
        packed.Unpack(message)
        return message

    @property
    def blamed_field(self) -> str:
        """The one that BadRequest names, in the words of the status."""
        (violation,) = self.detail(error_details_pb2.BadRequest).field_violations
        assert violation.description == self.message
        return str(violation.field)

    @property
    def asks_to_retry(self) -> bool:
        return bool(self.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0)

    @property
    def reason(self) -> str:
        """For machines."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "flowseg"
        return str(info.reason)

    @property
    def exhausted_subject(self) -> str:
        (violation,) = self.detail(error_details_pb2.QuotaFailure).violations
        assert violation.description == self.message
        return str(violation.subject)


def details_of(
    metadata: Iterable[tuple[str, str | bytes]], code: grpc.StatusCode, message: str | None
) -> Sequence[Any]:
    """What the status of a call says beside code and message, which it repeats."""
    for name, value in metadata:
        if name == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            assert (status.code, status.message) == (code.value[0], message)
            return list(status.details)
    return ()


async def converse(address: str, *messages: pb.SegmentStreamRequest) -> Conversation:
    """Sends everything, half-closes, and hears the server out, which may end the call in between."""
    # not with grpc.aio: it reports INTERNAL, whatever the server said, if the call ends while it writes
    return await asyncio.to_thread(_converse, address, messages)


def _converse(address: str, messages: Iterable[pb.SegmentStreamRequest]) -> Conversation:
    with grpc.insecure_channel(address) as channel:
        call = open_stub(channel).SegmentStream(iter(messages))
        responses: list[pb.SegmentStreamResponse] = []
        with contextlib.suppress(grpc.RpcError):  # its code is also the call's
            responses.extend(call)
        details = details_of(call.trailing_metadata(), call.code(), call.details())
        return Conversation(responses, call.code(), call.details(), details)


async def hear_out(call: Call, *earlier: pb.SegmentStreamResponse) -> Conversation:
    """The rest of a call, after what was read of it before."""
    responses = list(earlier)
    with contextlib.suppress(grpc.aio.AioRpcError):  # its code is also the call's
        while isinstance(response := await call.read(), pb.SegmentStreamResponse):
            responses.append(response)
    code, message = await call.code(), await call.details() or ""
    return Conversation(responses, code, message, details_of(await call.trailing_metadata(), code, message))


async def heard(call: Call, kind: str) -> pb.SegmentStreamResponse:
    """The next response, which must be of this kind."""
    response = await call.read()
    assert isinstance(response, pb.SegmentStreamResponse)
    assert response.WhichOneof("body") == kind, response
    return response


async def send(call: Call, *messages: pb.SegmentStreamRequest) -> None:
    for message in messages:
        await call.write(message)


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
