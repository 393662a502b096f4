"""One call of SegmentStream after its configuration.

A reader takes frames in and a writer sends answers out. Between them lie at most `max_in_flight` frames that are read
and not answered, and every frame that is read is answered exactly once: with a result, an error or as dropped.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TypeAlias

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.errors import FrameFailedError, FrameRefusedError, IdleTimeoutError, InvalidRequestError, ServingError
from serving.frames import FrameDecoder, Size, fit
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.messages import Limits, SessionConfig, result_message
from serving.models import ServedModel
from serving.observability import Metrics
from serving.results import StepResult
from serving.stream import Stream

StreamContext: TypeAlias = "grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse]"
FrameProblem: TypeAlias = FrameRefusedError | FrameFailedError
Answer: TypeAlias = pb.FrameResult | FrameProblem


@dataclass(frozen=True)
class DecodedFrame:
    """A frame as the model takes it."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, of the model's size
    native: Size  # the size it was sent in
    decode_ms: float


@dataclass(eq=False)
class InFlight:
    """A frame that is read and not answered."""

    sequence: int
    number: int  # of the frames of its stream
    future: Future[StepResult] | None  # None if it was refused
    answer: asyncio.Task[Answer]


class Session:
    """A stream of frames between a client and an engine."""

    def __init__(
        self,
        *,
        context: StreamContext,
        model: ServedModel,
        stream: Stream,
        config: SessionConfig,
        limits: Limits,
        pool: Executor,
        metrics: Metrics,
    ) -> None:
        """Takes an open stream of the engine. Decoding and encoding happen in `pool`."""
        self._context = context
        self._model = model
        self._stream = stream
        self._config = config
        self._limits = limits
        self._pool = pool
        self._metrics = metrics
        self._decoder = FrameDecoder(config.encoding, config.size, max_pixels=limits.max_frame_pixels)
        self._in_flight: deque[InFlight] = deque()
        self._drops: deque[tuple[int, pb.FramesDropped]] = deque()  # with the number of the last frame in it
        self._notices: deque[pb.StreamNotice] = deque()
        self._wake_writer = asyncio.Event()
        self._wake_reader = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_reading = False
        self._ending: ServingError | None = None  # why the server ends the stream
        self._last_sequence = -1
        self._errors_in_a_row = 0
        self._summary = pb.StreamSummary()

    async def run(self, started: pb.StreamStarted) -> None:
        """Says that the stream has started, answers frames until the client is done, and sends the summary.

        Raises:
            ServingError: if the stream ends otherwise; all frames that were read are answered, and the summary is sent.
        """
        self._reader = asyncio.create_task(self._read_frames())
        self._reader.add_done_callback(lambda _: self._wake_writer.set())
        try:
            await self._context.write(pb.SegmentStreamResponse(started=started))
            await self._write_answers()
            if not self._reader.cancelled():  # by `end`
                self._reader.result()
        except ServingError as error:
            self._ending = self._ending or error
        finally:
            self._stream.close()
            unfinished = [self._reader, *(frame.answer for frame in self._in_flight)]
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        await self._context.write(pb.SegmentStreamResponse(summary=self._summary))
        if self._ending is not None:
            raise self._ending

    def notify(self, notice: pb.StreamNotice) -> None:
        """Sends a notice soon."""
        self._notices.append(notice)
        self._wake_writer.set()

    def end(self, reason: ServingError) -> None:
        """Reads no further frame; what was read is still answered."""
        self._ending = self._ending or reason
        if self._is_reading and self._reader is not None:
            self._reader.cancel()

    async def _read_frames(self) -> None:
        while self._ending is None:
            request = await self._read()
            if not isinstance(request, pb.SegmentStreamRequest):  # grpc.aio.EOF
                return
            await self._take(self._check(request), time.perf_counter())
            if self._config.policy == pb.DELIVERY_POLICY_BLOCK:
                await self._make_room()  # before the next frame is read: the client waits, not the frame

    async def _read(self) -> pb.SegmentStreamRequest:
        reading = asyncio.ensure_future(self._context.read())
        self._is_reading = True
        try:
            while not reading.done():
                is_idle = not self._in_flight  # a client that waits for answers is not idle
                await asyncio.wait({reading}, timeout=self._limits.idle_timeout_s)
                if not reading.done() and is_idle:
                    raise IdleTimeoutError(f"nothing came for {self._limits.idle_timeout_s:g} s")
            return reading.result()
        finally:
            self._is_reading = False
            reading.cancel()

    def _check(self, request: pb.SegmentStreamRequest) -> pb.Frame:
        if not request.HasField("frame"):
            raise InvalidRequestError("body", "only frames may follow the first message")
        frame = request.frame
        if frame.sequence <= self._last_sequence:
            raise InvalidRequestError(
                "frame.sequence", f"{frame.sequence} follows {self._last_sequence}: sequence numbers must increase"
            )
        self._last_sequence = frame.sequence
        return frame

    async def _take(self, frame: pb.Frame, received_at: float) -> None:
        """Decodes a frame, makes room for it and hands it to the engine."""
        self._summary.num_frames += 1
        future: Future[StepResult] | None = None
        try:
            decoded = await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, frame.data)
        except FrameRefusedError as error:
            await self._make_room()
            answer = asyncio.create_task(_give(error))
        else:
            await self._make_room()
            future = self._stream.submit(decoded.image, force_key_frame=frame.force_key_frame)
            answer = asyncio.create_task(self._answer(frame, decoded, future, received_at))
        answer.add_done_callback(lambda _: self._wake_writer.set())
        self._in_flight.append(InFlight(frame.sequence, self._summary.num_frames, future, answer))

    async def _make_room(self) -> None:
        """Follows the delivery policy until one more frame may be in flight."""
        if self._config.policy == pb.DELIVERY_POLICY_LATEST_ONLY:
            while self._drop_oldest():
                pass
        while len(self._in_flight) >= self._config.max_in_flight:
            if self._config.policy == pb.DELIVERY_POLICY_DROP_OLDEST and self._drop_oldest():
                continue
            self._wake_reader.clear()
            await self._wake_reader.wait()

    def _drop_oldest(self) -> bool:
        dropped = self._stream.drop_oldest()
        if dropped is None:
            return False
        frame = next(frame for frame in self._in_flight if frame.future is dropped)
        self._in_flight.remove(frame)
        frame.answer.cancel()
        self._summary.num_dropped += 1
        self._metrics.frame(self._model.label, "dropped")
        # One range holds dropped frames alone, so it grows only by the very next frame.
        if self._drops and self._drops[-1][0] + 1 == frame.number:
            _, message = self._drops.pop()
            message.last, message.count = frame.sequence, message.count + 1
        else:
            message = pb.FramesDropped(
                first=frame.sequence, last=frame.sequence, count=1, reason=pb.DROP_REASON_SUPERSEDED
            )
        self._drops.append((frame.number, message))
        self._wake_writer.set()
        return True

    async def _write_answers(self) -> None:
        assert self._reader is not None
        while self._notices or self._drops or self._in_flight or not self._reader.done():
            self._wake_writer.clear()
            if self._notices:
                await self._context.write(pb.SegmentStreamResponse(notice=self._notices.popleft()))
            elif self._drops:
                await self._context.write(pb.SegmentStreamResponse(dropped=self._drops.popleft()[1]))
            elif self._in_flight and self._in_flight[0].answer.done():
                frame = self._in_flight[0]
                await self._context.write(self._response(frame, frame.answer.result()))
                self._in_flight.popleft()
                self._wake_reader.set()
            else:
                await self._wake_writer.wait()

    def _response(self, frame: InFlight, answer: Answer) -> pb.SegmentStreamResponse:
        """Counts an answer and wraps it; ends the stream after too many errors in a row."""
        label = self._model.label
        if isinstance(answer, pb.FrameResult):
            self._errors_in_a_row = 0
            self._summary.num_results += 1
            self._summary.num_key_frames += answer.provenance.key_frame_age == 0 or answer.provenance.refreshes_key
            self._metrics.frame(label, "result")
            return pb.SegmentStreamResponse(result=answer)
        self._errors_in_a_row += 1
        self._summary.num_errors += 1
        self._metrics.frame(label, "error")
        if self._errors_in_a_row == self._limits.max_consecutive_errors:
            self.end(type(answer)(f"{self._errors_in_a_row} frames in a row had no result, the last one: {answer}"))
        code = grpc.StatusCode.INVALID_ARGUMENT if isinstance(answer, FrameRefusedError) else grpc.StatusCode.INTERNAL
        return pb.SegmentStreamResponse(
            frame_error=pb.FrameError(sequence=frame.sequence, code=code.value[0], message=str(answer))
        )

    async def _answer(
        self, frame: pb.Frame, decoded: DecodedFrame, future: Future[StepResult], received_at: float
    ) -> Answer:
        try:
            result = await asyncio.wrap_future(future)
        except FrameFailedError as error:
            return error
        message = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._encode, frame, decoded, result, received_at
        )
        timings = message.timings
        parts = ("decode", "queue", "key", "step", "encode", "total")
        self._metrics.times(self._model.label, {part: getattr(timings, f"{part}_ms") for part in parts})
        self._metrics.quality(
            self._model.label, mean_confidence=result.mean_confidence, disagreement=result.disagreement
        )
        return message

    def _decode(self, encoded: bytes) -> DecodedFrame:
        started_at = time.perf_counter()
        image = self._decoder.decode(encoded)
        height, width, _ = image.shape
        fitted = fit(image, self._model.size)
        return DecodedFrame(fitted, Size(width, height), (time.perf_counter() - started_at) * 1e3)

    def _encode(self, frame: pb.Frame, decoded: DecodedFrame, result: StepResult, received_at: float) -> pb.FrameResult:
        started_at = time.perf_counter()
        message = result_message(result, frame, decoded.native, self._model, self._config)
        now = time.perf_counter()
        message.timings.decode_ms = decoded.decode_ms
        message.timings.encode_ms = (now - started_at) * 1e3
        message.timings.total_ms = (now - received_at) * 1e3
        return message


async def _give(answer: Answer) -> Answer:
    return answer
