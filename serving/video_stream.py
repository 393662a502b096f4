"""The client's side of a stream: frames in, answers out in the order of the frames, a bounded number in flight."""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import cv2
import grpc
import numpy as np
from numpy.typing import NDArray

from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc

ENCODINGS = {"jpeg": pb.FRAME_ENCODING_JPEG, "png": pb.FRAME_ENCODING_PNG}
DELIVERIES = {
    "block": pb.DELIVERY_POLICY_BLOCK,
    "drop-oldest": pb.DELIVERY_POLICY_DROP_OLDEST,
    "latest-only": pb.DELIVERY_POLICY_LATEST_ONLY,
}
LABEL_SIZES = {
    "native": pb.LABEL_MAP_SIZE_NATIVE,
    "model": pb.LABEL_MAP_SIZE_MODEL,
    "none": pb.LABEL_MAP_SIZE_NONE,
}
JPEG_QUALITY = 95
MARGIN = 16  # frames on their way: without them a bound here would keep the server from ever dropping


class StreamError(Exception):
    """A stream that could not be opened or broke, in one sentence for the user."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Keeps the status of the call."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What a client asks of a server."""

    server: str = "127.0.0.1:50051"  # HOST:PORT
    model: str = ""  # NAME or NAME@VERSION; empty is the server's only one
    key_frame_interval: int = 0  # frames from one key frame to the next; 0 is the server's choice
    encoding: Literal["jpeg", "png"] = "jpeg"  # how frames are sent; png loses nothing
    delivery: Literal["block", "drop-oldest", "latest-only"] = "block"  # what happens to frames that come too fast
    max_in_flight: int = 8  # frames without an answer at a time
    labels: Literal["native", "model", "none"] = "native"  # size of the label maps
    connect_timeout_s: float = 10.0  # seconds to wait for the server


@dataclass(frozen=True)
class FrameAnswer:
    """What became of a frame. Without result and error it was dropped."""

    sequence: int
    frame: NDArray[np.uint8]  # (H, W, 3) RGB, as it was given
    result: pb.FrameResult | None
    error: pb.FrameError | None
    latency_ms: float  # from handing it to the connection to having the answer


@dataclass
class _Pending:
    sequence: int
    frame: NDArray[np.uint8]
    sent_at: float
    answer: FrameAnswer | None = None


def stream_video(frames: Iterable[NDArray[np.uint8]], options: StreamOptions) -> Iterator[FrameAnswer]:
    """Answers for the frames (H, W, 3) RGB of a video, in their order.

    Raises:
        StreamError: if the server is not there, refuses the stream, or ends it.
    """
    with VideoStream(options) as stream:
        yield from stream.segment(frames)


class VideoStream:
    """An open stream. Use it in a `with` statement."""

    def __init__(self, options: StreamOptions) -> None:
        """Opens the stream and waits until the server has agreed.

        Raises:
            StreamError: if it does not.
        """
        self._options = options
        self._requests: queue.Queue[pb.SegmentStreamRequest | None] = queue.Queue()
        self._pending: deque[_Pending] = deque()  # oldest first; the feeder appends, the consumer takes
        self._room = threading.Semaphore(options.max_in_flight + (0 if options.delivery == "block" else MARGIN))
        self._is_closed = threading.Event()
        self._source_error: Exception | None = None
        self._channel = grpc.insecure_channel(
            options.server,
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        self.summary = pb.StreamSummary()  # complete once `segment` is through
        self.notices: list[pb.StreamNotice] = []
        self._requests.put(pb.SegmentStreamRequest(config=self._config()))
        try:
            try:
                grpc.channel_ready_future(self._channel).result(timeout=options.connect_timeout_s)
            except grpc.FutureTimeoutError as error:
                message = f"no server answers at {options.server}: start one with 'python -m serving.server BUNDLE'"
                raise StreamError(grpc.StatusCode.UNAVAILABLE, message) from error
            # grpcio-tools writes no types for stubs
            stub = segmentation_pb2_grpc.SegmentationServiceStub(self._channel)  # type: ignore[no-untyped-call]
            self._call: Iterator[pb.SegmentStreamResponse] = stub.SegmentStream(iter(self._requests.get, None))
            self.model: pb.Model = self._receive().started.model
        except BaseException:
            self.close()
            raise

    def segment(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[FrameAnswer]:
        """Answers for the frames (H, W, 3) RGB, in their order; to be called once.

        Raises:
            StreamError: if the server ends the stream.
        """
        feeder = threading.Thread(target=self._feed, args=(frames,), name="frames", daemon=True)
        feeder.start()
        while True:
            response = self._receive()
            now = time.perf_counter()
            match response.WhichOneof("body"):
                case "result":
                    result = response.result
                    self._settle(result.sequence, result.sequence, now, result=result)
                case "frame_error":
                    error = response.frame_error
                    self._settle(error.sequence, error.sequence, now, error=error)
                case "dropped":
                    self._settle(response.dropped.first, response.dropped.last, now)
                case "notice":
                    self.notices.append(response.notice)
                case "summary":
                    self.summary = response.summary
                    break
            while self._pending and (answer := self._pending[0].answer) is not None:
                self._pending.popleft()
                yield answer
        self._finish()
        feeder.join()
        if self._source_error is not None:
            raise self._source_error

    def _config(self) -> pb.StreamConfig:
        options = self._options
        is_latest_only = options.delivery == "latest-only"
        config = pb.StreamConfig(
            model=options.model,
            format=pb.FrameFormat(encoding=ENCODINGS[options.encoding]),
            delivery=pb.Delivery(
                policy=DELIVERIES[options.delivery], max_in_flight=0 if is_latest_only else options.max_in_flight
            ),
            outputs=pb.Outputs(labels=LABEL_SIZES[options.labels]),
        )
        if options.key_frame_interval:
            config.key_frames.fixed.interval = options.key_frame_interval
        return config

    def _feed(self, frames: Iterable[NDArray[np.uint8]]) -> None:
        """Sends frames while there is room."""
        try:
            for sequence, frame in enumerate(frames):
                self._room.acquire()
                if self._is_closed.is_set():
                    return
                encoded = _encode(frame, self._options.encoding)
                self._pending.append(_Pending(sequence, frame, time.perf_counter()))
                capture_time_us = time.time_ns() // 1000
                message = pb.Frame(sequence=sequence, capture_time_us=capture_time_us, data=encoded)
                self._requests.put(pb.SegmentStreamRequest(frame=message))
        except Exception as error:  # of the source: it belongs to whoever reads the answers
            self._source_error = error
        finally:
            self._requests.put(None)

    def _settle(
        self,
        first: int,
        last: int,
        now: float,
        *,
        result: pb.FrameResult | None = None,
        error: pb.FrameError | None = None,
    ) -> None:
        for pending in list(self._pending):
            if first <= pending.sequence <= last:
                latency_ms = (now - pending.sent_at) * 1e3
                pending.answer = FrameAnswer(pending.sequence, pending.frame, result, error, latency_ms)
                self._room.release()

    def _receive(self) -> pb.SegmentStreamResponse:
        try:
            return next(self._call)
        except StopIteration as error:
            raise StreamError(grpc.StatusCode.INTERNAL, "the server ended the stream without a summary") from error
        except grpc.RpcError as error:
            raise _stream_error(error) from error

    def _finish(self) -> None:
        """Waits for the status of the call, which comes after the summary."""
        try:
            next(self._call, None)
        except grpc.RpcError as error:
            raise _stream_error(error) from error

    def close(self) -> None:
        """Ends the call, also in the middle."""
        self._is_closed.set()
        self._room.release()  # of a feeder that waits
        self._requests.put(None)
        self._channel.close()

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the call."""
        self.close()


def _encode(frame: NDArray[np.uint8], encoding: str) -> bytes:
    image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    if encoding == "png":
        is_encoded, encoded = cv2.imencode(".png", image)
    else:
        is_encoded, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert is_encoded
    return encoded.tobytes()


def _stream_error(error: grpc.RpcError) -> StreamError:
    assert isinstance(error, grpc.Call)
    message = error.details() or "no reason given"
    return StreamError(error.code(), f"the server ended the stream with {error.code().name}: {message}")
