"""One call of SegmentStream after its configuration.

A reader takes frames in and a writer sends answers out. Between them lie at most `max_in_flight` frames that are read
and not answered, and every frame that is read is answered exactly once: with a result, an error or as dropped.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from serving.answering import Answer, Answering, ReceivedFrame, Surroundings
from serving.errors import (
    DropReason,
    FrameDroppedError,
    FrameRefusedError,
    FrameTooLargeError,
    IdleTimeoutError,
    InvalidRequestError,
    ServingError,
)
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.messages import SessionConfig, parse_milliseconds
from serving.models import ServedModel
from serving.results import StepResult
from serving.statuses import status_of
from serving.stream import Stream
from serving.undecodable import undecodable

StreamContext: TypeAlias = "grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse]"
DROP_REASONS = {
    DropReason.SUPERSEDED: pb.DROP_REASON_SUPERSEDED,
    DropReason.DEADLINE: pb.DROP_REASON_DEADLINE,
    DropReason.OVERLOAD: pb.DROP_REASON_OVERLOAD,
}


@dataclass(eq=False)
class InFlight:
    """A frame that is read and not answered."""

    sequence: int
    number: int  # of the frames of its stream
    future: Future[StepResult] | None  # None if the engine does not have it
    answer: asyncio.Task[Answer]


class Session:
    """A stream of frames between a client and an engine."""

    def __init__(
        self,
        *,
        started: pb.StreamStarted,
        context: StreamContext,
        model: ServedModel,
        stream: Stream,
        config: SessionConfig,
        surroundings: Surroundings,
    ) -> None:
        """Takes an open stream of the engine, and what its client is told first."""
        self.started = started
        self.model = model
        self.stream = stream
        self.has_moved = False  # another call goes on with the stream: this one is cancelled
        self._context = context
        self._config = config
        self._limits, self._metrics = surroundings.limits, surroundings.metrics
        self._answering = Answering(started.stream_id, model, stream, config, surroundings, self.notify)
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
        self._opened_at = time.monotonic()
        self._summary = pb.StreamSummary()

    async def run(self) -> None:
        """Says that the stream has started, answers frames until the client is done, and sends the summary.

        Raises:
            ServingError: if the stream ends otherwise; all frames that were read are answered, and the summary is sent.
        """
        self._reader = asyncio.create_task(self._read_requests())
        self._reader.add_done_callback(lambda _: self._wake_writer.set())
        try:
            await self._write(pb.SegmentStreamResponse(started=self.started))
            await self._write_answers()
            if not self._reader.cancelled():  # by `end`
                self._reader.result()
        except ServingError as error:
            self._ending = self._ending or error
        finally:
            unfinished = [self._reader, *(frame.answer for frame in self._in_flight)]
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
            self._answering.close()
        await self._write(pb.SegmentStreamResponse(summary=self._summary))
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

    def describe(self) -> pb.StreamInfo:
        """The stream as an administrator sees it."""
        return pb.StreamInfo(
            stream_id=self.started.stream_id,
            model=self.model.label,
            peer=self._context.peer(),
            age_ms=round((time.monotonic() - self._opened_at) * 1e3),
            totals=self._summary,
            in_flight=len(self._in_flight),
            level=self._answering.level,
            drift=self._answering.drift,
        )

    async def _read_requests(self) -> None:
        while self._ending is None:
            request = await self._read()
            if not isinstance(request, pb.SegmentStreamRequest):  # grpc.aio.EOF
                return
            match request.WhichOneof("body"):
                case "frame":
                    await self._take(ReceivedFrame(self._check(request.frame), time.perf_counter()))
                    if self._config.policy == pb.DELIVERY_POLICY_BLOCK:
                        await self._make_room()  # before the next frame is read: the client waits, not the frame
                case "control":
                    self._answering.obey(request.control)
                case _:
                    raise InvalidRequestError("body", "only frames and controls may follow the first message")

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
        except DecodeError as error:
            raise undecodable() from error
        finally:
            self._is_reading = False
            reading.cancel()

    def _check(self, frame: pb.Frame) -> pb.Frame:
        if frame.sequence <= self._last_sequence:
            raise InvalidRequestError(
                "frame.sequence", f"{frame.sequence} follows {self._last_sequence}: sequence numbers must increase"
            )
        parse_milliseconds(frame.deadline_ms, "frame.deadline_ms")
        if len(frame.data) > self._limits.max_frame_bytes:
            raise FrameTooLargeError(
                f"frame has {len(frame.data)} bytes, at most {self._limits.max_frame_bytes} are taken: send it smaller"
            )
        self._last_sequence = frame.sequence
        return frame

    async def _take(self, frame: ReceivedFrame) -> None:
        """Decodes a frame, makes room for it, and begins to answer it."""
        self._summary.num_frames += 1
        number = self._summary.num_frames
        previous = self._in_flight[-1].answer if self._in_flight else None
        future: Future[StepResult] | None = None
        answering: Coroutine[None, None, Answer]
        try:
            decoded = await self._answering.decode(frame.message.data)
        except FrameRefusedError as error:
            await self._make_room()
            answering = _give(error)
        else:
            await self._make_room()
            future, answering = self._answering.begin(frame, number, decoded, previous)
        answer = asyncio.create_task(answering)
        answer.add_done_callback(lambda _: self._wake_writer.set())
        self._in_flight.append(InFlight(frame.message.sequence, number, future, answer))

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
        dropped = self.stream.drop_oldest()
        if dropped is None:
            return False
        frame = next(frame for frame in self._in_flight if frame.future is dropped)
        frame.answer.cancel()
        self._record_drop(frame, DropReason.SUPERSEDED)
        return True

    def _record_drop(self, frame: InFlight, reason: DropReason) -> None:
        self._in_flight.remove(frame)
        self._summary.num_dropped += 1
        self._metrics.frame(self.model.label, "dropped")
        # One range holds dropped frames alone, so it grows only by the very next frame.
        if self._drops and self._drops[-1][0] + 1 == frame.number and self._drops[-1][1].reason == DROP_REASONS[reason]:
            _, message = self._drops.pop()
            message.last, message.count = frame.sequence, message.count + 1
        else:
            message = pb.FramesDropped(first=frame.sequence, last=frame.sequence, count=1, reason=DROP_REASONS[reason])
        self._drops.append((frame.number, message))
        self._wake_writer.set()
        self._wake_reader.set()

    async def _write_answers(self) -> None:
        assert self._reader is not None
        while self._notices or self._drops or self._in_flight or not self._reader.done():
            self._wake_writer.clear()
            if self._notices:
                await self._write(pb.SegmentStreamResponse(notice=self._notices.popleft()))
            elif self._drops:
                await self._write(pb.SegmentStreamResponse(dropped=self._drops.popleft()[1]))
            elif self._in_flight and self._in_flight[0].answer.done():
                frame = self._in_flight[0]
                answer = frame.answer.result()
                if isinstance(answer, FrameDroppedError):
                    self._record_drop(frame, answer.reason)
                else:
                    await self._write(self._response(frame, answer))
                    self._in_flight.popleft()
                    self._wake_reader.set()
            else:
                await self._wake_writer.wait()

    async def _write(self, response: pb.SegmentStreamResponse) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                await self._context.write(response)
        except TimeoutError as error:
            raise IdleTimeoutError(f"no answer was taken for {self._limits.idle_timeout_s:g} s") from error

    def _response(self, frame: InFlight, answer: pb.FrameResult | ServingError) -> pb.SegmentStreamResponse:
        """Counts an answer and wraps it; ends the stream after too many errors in a row."""
        label = self.model.label
        if isinstance(answer, pb.FrameResult):
            self._errors_in_a_row = 0
            provenance = answer.provenance
            self._summary.num_results += 1
            self._summary.num_held += provenance.held_frames > 0
            self._summary.num_key_frames += provenance.key_frame_age == 0 or provenance.refreshes_key
            self._metrics.frame(label, "result")
            return pb.SegmentStreamResponse(result=answer)
        self._errors_in_a_row += 1
        self._summary.num_errors += 1
        self._metrics.frame(label, "error")
        if self._errors_in_a_row == self._limits.max_consecutive_errors:
            self.end(type(answer)(f"{self._errors_in_a_row} frames in a row had no result, the last one: {answer}"))
        return pb.SegmentStreamResponse(
            frame_error=pb.FrameError(
                sequence=frame.sequence, code=status_of(answer).code.value[0], message=str(answer)
            )
        )


async def _give(answer: Answer) -> Answer:
    return answer
