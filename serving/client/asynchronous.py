"""The client for asyncio: `async for` over frames and answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
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
from serving.client.ending import Ending
from serving.client.events import StreamEvent, ignore_event
from serving.client.failures import Failure, stream_closed
from serving.client.frames import FrameLike, as_frame, encode_image
from serving.client.options import DEFAULT_OPTIONS, DEFAULT_OUTPUTS, EncodingName, KeyFrames, Outputs, StreamOptions
from serving.client.retries import DEFAULT_RETRY, Attempts, Retry
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.spans import NO_CALL, NO_TRACING, CallSpan, Tracing


class AsyncSegmentationClient:
    """A connection to a server, for any number of streams, in one event loop. Use it in an `async with` statement.

    async with AsyncSegmentationClient("127.0.0.1:50051") as client, client.stream() as stream:
        async for answer in stream.segment(frames):
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
        """As `SegmentationClient`; to be made in the event loop."""
        retry.check()
        credentials.check(server)
        self.server = server
        self._retry, self._tracing, self._credentials = retry, tracing, credentials
        target, of_target = target_of(server)
        options: tuple[tuple[str, str | int], ...] = (*CHANNEL_OPTIONS, *of_target)
        tls = credentials.channel_credentials()
        self._channel = (
            grpc.aio.insecure_channel(target, options=options)
            if tls is None
            else grpc.aio.secure_channel(target, tls, options=options)
        )
        # Any: grpcio-tools writes no types for stubs
        self._stub: Any = segmentation_pb2_grpc.SegmentationServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def stream(
        self, options: StreamOptions = DEFAULT_OPTIONS, on_event: Callable[[StreamEvent], None] = ignore_event
    ) -> "AsyncVideoStream":
        """As `SegmentationClient.stream`, but the stream is opened by `async with`."""
        attempts = Attempts(self._retry, self.server)
        return AsyncVideoStream(
            self._stub,
            Conversation(options, attempts, on_event, self._tracing),
            options.encoding,
            self._credentials.metadata,
        )

    async def segment_image(
        self,
        image: NDArray[np.uint8],
        *,
        model: str = "",
        encoding: EncodingName = "png",
        outputs: Outputs = DEFAULT_OUTPUTS,
    ) -> ImageAnswer:
        """As `SegmentationClient.segment_image`."""
        request = await asyncio.to_thread(image_request, image, model=model, encoding=encoding, outputs=outputs)
        span = self._tracing.make_call("SegmentImage")
        return image_answer(await self._ask(self._stub.SegmentImage, request, span))

    async def models(self) -> list[pb.Model]:
        """As `SegmentationClient.models`."""
        return list((await self._ask(self._stub.ListModels, pb.ListModelsRequest())).models)

    async def server_info(self) -> pb.GetServerInfoResponse:
        """As `SegmentationClient.server_info`."""
        response: pb.GetServerInfoResponse = await self._ask(self._stub.GetServerInfo, pb.GetServerInfoRequest())
        return response

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def _ask(self, method: Any, request: Any, span: CallSpan = NO_CALL) -> Any:  # Any: see above
        try:
            metadata = (*self._credentials.metadata(), *span.metadata)
            response = await method(request, timeout=IMAGE_S, metadata=metadata)
            span.end("OK")
            return response
        except grpc.aio.AioRpcError as error:
            failure = call_error(error, self.server)
            span.end(failure.code.name)
            raise failure from error

    async def __aenter__(self) -> Self:
        """The client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends all calls."""
        await self.close()


class AsyncVideoStream(StreamView):
    """A stream, made by `AsyncSegmentationClient.stream`. Use it in an `async with` statement.

    One task takes frames from their source, one per call sends them, and answers arrive in the caller's.
    """

    def __init__(
        self,
        stub: Any,  # Any: see above
        conversation: Conversation,
        encoding: EncodingName,
        metadata: Callable[[], Metadata],
    ) -> None:
        """Not yet opened."""
        self._stub = stub
        self._metadata = metadata
        super().__init__(conversation)
        self._encoding = encoding
        self._changed = asyncio.Condition()
        self._call: Any = None
        self._ending: Ending | None = None  # of the call
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False

    async def segment(self, frames: AsyncIterable[FrameLike] | Iterable[FrameLike]) -> AsyncIterator[FrameAnswer]:
        """As `VideoStream.segment`. An iterable of frames that is not asynchronous is read on a thread."""
        source = frames if isinstance(frames, AsyncIterable) else _read_on_thread(frames)
        feeder = asyncio.create_task(self._feed(source))
        try:
            while True:
                while await self._receive():
                    for answer in self._conversation.take():
                        yield answer
                async with self._changed:
                    await self._changed.wait_for(
                        lambda: self._is_closed or self._conversation.needs_call or self._conversation.is_through
                    )
                if self._conversation.is_through:
                    break
                await self._open()
            await feeder  # which raises what the source raised
        finally:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)

    def force_key_frame(self) -> None:
        """Makes the next frame that is taken from the source a key frame."""
        self._conversation.force_key_frame()

    def follow(self, key_frames: KeyFrames) -> None:
        """Asks for another key-frame policy, from the next frame that is sent on."""
        self._conversation.follow(key_frames)

    async def close(self) -> None:
        """Ends the stream, also in the middle."""
        self._is_closed = True
        self._conversation.close()
        await self._drop_call()
        async with self._changed:
            self._changed.notify_all()

    async def _drop_call(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        if self._call is not None:
            self._call.cancel()

    async def _open(self) -> None:
        """Makes calls until one is accepted."""
        is_accepted = False
        while not is_accepted:
            await self._drop_call()
            await asyncio.sleep(self._conversation.delay_s)
            if self._is_closed:
                raise stream_closed()
            config = self._conversation.begin_call()
            metadata = (*self._metadata(), *self._conversation.metadata)
            self._call = self._stub.SegmentStream(metadata=metadata)
            self._ending = Ending(self._call)
            self._sender = asyncio.create_task(self._send(self._call, config))
            is_accepted = await self._receive()

    async def _send(self, call: Any, config: pb.SegmentStreamRequest) -> None:  # Any: see above
        """What one call sends, until it is half-closed or over."""
        request: pb.SegmentStreamRequest | None = config
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # who reads hears of it
            while request is not None:
                await call.write(request)
                async with self._changed:
                    await self._changed.wait_for(lambda: self._conversation.has_request)
                    request = self._conversation.next_request()
            await call.done_writing()

    async def _feed(self, source: AsyncIterable[FrameLike]) -> None:
        """Takes frames from their source while there is room."""
        try:
            async for each in source:
                frame = as_frame(each)
                data = await asyncio.to_thread(encode_image, frame.image, self._encoding)
                async with self._changed:
                    await self._changed.wait_for(lambda: self._conversation.has_room)
                    self._conversation.give(frame, data)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._conversation.complete()
                self._changed.notify_all()

    async def _receive(self) -> bool:
        """Takes the next response; False at the end of the call."""
        response: pb.SegmentStreamResponse | None = None
        failure: Failure | None = None
        assert self._ending is not None
        try:
            with contextlib.suppress(grpc.aio.AioRpcError):  # the call has ended, and may not say how
                read = await self._call.read()
                response = read if isinstance(read, pb.SegmentStreamResponse) else None  # grpc.aio.EOF
            if response is None:
                failure = await self._ending.failure()
        except asyncio.CancelledError:
            if self._is_closed:  # by another task, and gRPC says it so
                raise stream_closed() from None
            raise
        async with self._changed:
            try:
                if response is None:
                    self._conversation.end_call(failure)
                else:
                    self._conversation.receive(response)
            finally:
                self._changed.notify_all()
        return response is not None

    async def __aenter__(self) -> Self:
        """Opens the stream and waits until the server has agreed.

        Raises:
            CallError: if the server is not there or refuses.
        """
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends the stream."""
        await self.close()


async def _read_on_thread(frames: Iterable[FrameLike]) -> AsyncIterator[FrameLike]:
    """Each frame, without holding up the event loop while it is awaited."""
    iterator = iter(frames)
    while (frame := await asyncio.to_thread(next, iterator, None)) is not None:
        yield frame
