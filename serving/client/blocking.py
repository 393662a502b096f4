"""The client for programs that block: iterators in, iterators out."""

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.client.answers import FrameAnswer, ImageAnswer
from serving.client.balancing import target_of
from serving.client.connection import (
    CHANNEL_OPTIONS,
    DEFAULT_SERVER,
    IMAGE_S,
    call_error,
    image_answer,
    image_request,
)
from serving.client.conversation import Conversation, StreamView
from serving.client.credentials import NO_CREDENTIALS, Credentials, Metadata
from serving.client.events import StreamEvent, ignore_event
from serving.client.failures import failure_of, stream_closed
from serving.client.frames import FrameLike, as_frame, encode_image
from serving.client.options import DEFAULT_OPTIONS, DEFAULT_OUTPUTS, EncodingName, KeyFrames, Outputs, StreamOptions
from serving.client.retries import DEFAULT_RETRY, Attempts, Retry
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.spans import NO_CALL, NO_TRACING, CallSpan, Tracing


class Closable:
    """Something that a `with` statement closes."""

    def close(self) -> None:
        """Ends what is open."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


class SegmentationClient(Closable):
    """A connection to a server, for any number of streams. Use it in a `with` statement.

    with SegmentationClient("127.0.0.1:50051") as client, client.stream() as stream:
        for answer in stream.segment(frames):
            print(answer.labels)
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        retry: Retry = DEFAULT_RETRY,
        credentials: Credentials = NO_CREDENTIALS,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Connects when the first call is made.

        Args:
            server: HOST:PORT; ADDRESS:PORT,ADDRESS:PORT or dns:///HOST:PORT for several, of which streams take those
                that are healthy in turn.
            retry: for how long calls are tried again.
            credentials: for a server that wants encryption, a certificate or a token.
            tracing: who is told of streams and their frames, see `open_tracing`; to be closed by who opened it.

        Raises:
            ValueError: if the servers, retry or credentials cannot be used.
        """
        retry.check()
        credentials.check(server)
        self.server = server
        self._retry, self._tracing, self._credentials = retry, tracing, credentials
        target, of_target = target_of(server)
        options: tuple[tuple[str, str | int], ...] = (*CHANNEL_OPTIONS, *of_target)
        tls = credentials.channel_credentials()
        self._channel = (
            grpc.insecure_channel(target, options=options)
            if tls is None
            else grpc.secure_channel(target, tls, options=options)
        )
        # Any: grpcio-tools writes no types for stubs
        self._stub: Any = segmentation_pb2_grpc.SegmentationServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def stream(
        self, options: StreamOptions = DEFAULT_OPTIONS, on_event: Callable[[StreamEvent], None] = ignore_event
    ) -> "VideoStream":
        """Opens a stream and waits until the server has agreed.

        Args:
            options: what to ask for.
            on_event: is told of what happens beside answers, in whichever thread hears of it; must not block.

        Raises:
            CallError: if the server is not there or refuses.
            ValueError: if the options cannot work.
        """
        attempts = Attempts(self._retry, self.server)
        return VideoStream(
            self._stub,
            Conversation(options, attempts, on_event, self._tracing),
            options.encoding,
            self._credentials.metadata,
        )

    def segment_image(
        self,
        image: NDArray[np.uint8],
        *,
        model: str = "",
        encoding: EncodingName = "png",
        outputs: Outputs = DEFAULT_OUTPUTS,
    ) -> ImageAnswer:
        """Segments one image (H, W, 3) RGB on its own.

        Raises:
            CallError: if the server is not there or refuses.
            ValueError: if it is no image, or cannot be encoded so.
        """
        request = image_request(image, model=model, encoding=encoding, outputs=outputs)
        response: pb.SegmentImageResponse = self._ask(
            self._stub.SegmentImage, request, self._tracing.make_call("SegmentImage")
        )
        return image_answer(response)

    def models(self) -> list[pb.Model]:
        """The models of the server, ready or not.

        Raises:
            CallError: if the server is not there.
        """
        return list(self._ask(self._stub.ListModels, pb.ListModelsRequest()).models)

    def server_info(self) -> pb.GetServerInfoResponse:
        """Version, load and limits of the server.

        Raises:
            CallError: if the server is not there.
        """
        response: pb.GetServerInfoResponse = self._ask(self._stub.GetServerInfo, pb.GetServerInfoRequest())
        return response

    def close(self) -> None:
        """Ends all calls."""
        self._channel.close()

    def _ask(self, method: Any, request: Any, span: CallSpan = NO_CALL) -> Any:  # Any: see above
        try:
            metadata = (*self._credentials.metadata(), *span.metadata)
            response = method(request, timeout=IMAGE_S, metadata=metadata)
            span.end("OK")
            return response
        except grpc.RpcError as error:
            failure = call_error(error, self.server)
            span.end(failure.code.name)
            raise failure from error


class VideoStream(StreamView, Closable):
    """An open stream, made by `SegmentationClient.stream`. Use it in a `with` statement.

    Frames are taken from their source and encoded on a thread of its own, sent on one of gRPC's, and answers arrive on
    the caller's. What they share is guarded by one condition.
    """

    def __init__(
        self,
        stub: Any,  # Any: see above
        conversation: Conversation,
        encoding: EncodingName,
        metadata: Callable[[], Metadata],
    ) -> None:
        """Opens the stream.

        Raises:
            CallError: if the server is not there or refuses.
        """
        self._stub = stub
        self._metadata = metadata
        super().__init__(conversation)
        self._encoding = encoding
        self._changed = threading.Condition()
        self._is_closed = False
        self._source_error: Exception | None = None
        self._call: Any = None
        self._num_calls = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def segment(self, frames: Iterable[FrameLike]) -> Iterator[FrameAnswer]:
        """Exactly one answer for each frame, in their order; to be called once.

        If the call breaks, the stream goes on in another one, as `Retry` says, and frames without an answer are sent
        again. What `frames` raises is raised here, once the frames before it are answered.

        Raises:
            CallError: if the server ends the stream, or is lost for too long.
        """
        feeder = threading.Thread(target=self._feed, args=(frames,), name="frames", daemon=True)
        feeder.start()
        while True:
            while self._receive():
                with self._changed:
                    answers = self._conversation.take()
                yield from answers
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or self._conversation.needs_call or self._conversation.is_through
                )
                if self._conversation.is_through:
                    break
            self._open()
        feeder.join()
        if self._source_error is not None:
            raise self._source_error

    def force_key_frame(self) -> None:
        """Makes the next frame that is taken from the source a key frame."""
        with self._changed:
            self._conversation.force_key_frame()

    def follow(self, key_frames: KeyFrames) -> None:
        """Asks for another key-frame policy, from the next frame that is sent on."""
        with self._changed:
            self._conversation.follow(key_frames)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the stream, also in the middle."""
        with self._changed:
            self._is_closed = True
            self._conversation.close()
            self._changed.notify_all()
        if self._call is not None:
            self._call.cancel()

    def _open(self) -> None:
        """Makes calls until one is accepted."""
        is_accepted = False
        while not is_accepted:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, self._conversation.delay_s):
                    raise stream_closed()
                config = self._conversation.begin_call()
                self._num_calls += 1
                self._changed.notify_all()
                self._call = self._stub.SegmentStream(
                    self._requests(config, self._num_calls),
                    metadata=(*self._metadata(), *self._conversation.metadata),
                )
            is_accepted = self._receive()

    def _requests(self, config: pb.SegmentStreamRequest, number: int) -> Iterator[pb.SegmentStreamRequest]:
        """What one call sends, until it is half-closed or another one has taken its place."""
        request: pb.SegmentStreamRequest | None = config
        while request is not None:
            yield request
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or number != self._num_calls or self._conversation.has_request
                )
                if self._is_closed or number != self._num_calls:
                    return
                request = self._conversation.next_request()

    def _feed(self, frames: Iterable[FrameLike]) -> None:
        """Takes frames from their source while there is room."""
        try:
            for each in frames:
                frame = as_frame(each)
                data = encode_image(frame.image, self._encoding)
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed or self._conversation.has_room)
                    if self._is_closed:
                        return
                    self._conversation.give(frame, data)
                    self._changed.notify_all()
        except Exception as error:  # of the source: it belongs to whoever reads the answers
            self._source_error = error
        finally:
            with self._changed:
                self._conversation.complete()
                self._changed.notify_all()

    def _receive(self) -> bool:
        """Takes the next response; False at the end of the call."""
        failure = None
        try:
            response = next(self._call, None)
        except grpc.RpcError as error:
            response, failure = None, failure_of(error)
        with self._changed:
            if self._is_closed:
                raise stream_closed()
            try:
                if response is None:
                    self._conversation.end_call(failure)
                else:
                    self._conversation.receive(response)
            finally:
                self._changed.notify_all()
        return response is not None
