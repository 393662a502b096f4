"""One call of SegmentStream after its configuration.

A reader takes frames in and a writer sends answers out. Between them lie at most `max_in_flight` frames that are read
and not answered, and every frame that is read is answered exactly once: with a result, an error or as dropped.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from serving.answering import Answer, Answering, ReceivedFrame, Surroundings
from serving.clients import Caller
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
from serving.spans import CallSpan, Part
from serving.statuses import status_of
from serving.stream import Stream
from serving.stream_metrics import StreamFigures
from serving.undecodable import undecodable

StreamContext: TypeAlias = "grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse]"
DROP_REASONS = {
    DropReason.SUPERSEDED: pb.DROP_REASON_SUPERSEDED,
    DropReason.DEADLINE: pb.DROP_REASON_DEADLINE,
    DropReason.OVERLOAD: pb.DROP_REASON_OVERLOAD,
    DropReason.QUOTA: pb.DROP_REASON_QUOTA,
}
MAX_DROPS = 1000  # ranges that wait to be told: a client that takes no answers is read no further


@dataclass(eq=False)
class InFlight:
    """A frame that is read and not answered."""

    sequence: int
    number: int  # of the frames of its stream
    received_at: float  # seconds, of time.perf_counter
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
        caller: Caller,
        resume_key: str,
        span: CallSpan,
    ) -> None:
        """Takes an open stream of the engine, what its client is told first, who that is, and the trace of the call."""
        self.started = started
        self.caller = caller
        self.resume_key = resume_key  # what its stream is kept under if the connection breaks
        self._account = caller.account
        self.model = model
        self.stream = stream
        self.has_moved = False  # another call goes on with the stream: this one is cancelled
        self._context, self._span = context, span
        self._config = config
        self._limits, self._metrics = surroundings.limits, surroundings.metrics
        self._answering = Answering(started.stream_id, model, stream, config, surroundings, span, self.notify)
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
        self._device_s_before = stream.device_s  # of earlier calls
        self._newest = (0, 0)  # key-frame age and batch size, in frames, of the newest result
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

    def figures(self) -> StreamFigures:
        """The stream as Prometheus sees it. May be called from any thread."""
        queue_age_s = 0.0
        with contextlib.suppress(IndexError):  # there is none
            queue_age_s = time.perf_counter() - self._in_flight[0].received_at
        key_frame_age, batch_frames = self._newest
        return StreamFigures(
            results=self._summary.num_results,
            errors=self._summary.num_errors,
            dropped=self._summary.num_dropped,
            device_s=self.stream.device_s - self._device_s_before,
            queue_age_s=queue_age_s,
            key_frame_age=key_frame_age,
            batch_frames=batch_frames,
            drift=self._answering.drift,
            level=self._answering.level,
        )

    async def _read_requests(self) -> None:
        while self._ending is None:
            if self._config.policy == pb.DELIVERY_POLICY_BLOCK:
                await self._wait_for_quota()
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

    async def _wait_for_quota(self) -> None:
        """Returns once the client may have another frame: until then it waits, not a frame."""
        self._is_reading = True  # nothing is read that would have to be answered
        try:
            while (wait_s := self._account.wait_s()) > 0:
                await asyncio.sleep(wait_s)
        finally:
            self._is_reading = False

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
        is_beyond_quota = self._config.policy != pb.DELIVERY_POLICY_BLOCK and self._account.wait_s() > 0
        if is_beyond_quota and not self._config.encoding.is_video:
            await self._drop_beyond_quota(frame, number)
            return
        if not is_beyond_quota:
            self._account.charge_frame()
        previous = self._in_flight[-1].answer if self._in_flight else None
        future: Future[StepResult] | None = None
        answering: Coroutine[None, None, Answer]
        try:
            decoded = await self._answering.decode(frame.message.data)
        except FrameRefusedError as error:
            await self._make_room()
            answering = _give(error)
        else:
            if is_beyond_quota:  # decoded all the same: the frames behind it are told from it
                await self._drop_beyond_quota(frame, number)
                return
            self._account.charge_pixels(decoded.native_size.width * decoded.native_size.height)
            await self._make_room()
            future, answering = self._answering.begin(frame, number, decoded, previous)
        answer = asyncio.create_task(answering)
        answer.add_done_callback(lambda _: self._wake_writer.set())
        self._in_flight.append(InFlight(frame.message.sequence, number, frame.received_at, future, answer))

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
        self._in_flight.remove(frame)
        self._record_drop(frame.sequence, frame.number, frame.received_at, DropReason.SUPERSEDED)
        return True

    async def _drop_beyond_quota(self, frame: ReceivedFrame, number: int) -> None:
        if frame.message.force_key_frame:
            self._answering.force_key_frame()
        self._record_drop(frame.message.sequence, number, frame.received_at, DropReason.QUOTA)
        while len(self._drops) >= MAX_DROPS:
            self._wake_reader.clear()
            await self._wake_reader.wait()

    def _record_drop(self, sequence: int, number: int, received_at: float, reason: DropReason) -> None:
        self._summary.num_dropped += 1
        self._metrics.dropped(self.model.label, reason.name.lower())
        self._trace_loss(sequence, received_at, f"dropped: {reason.name.lower()}")
        # One range holds dropped frames alone, so it grows only by the very next frame.
        if self._drops and self._drops[-1][0] + 1 == number and self._drops[-1][1].reason == DROP_REASONS[reason]:
            _, message = self._drops.pop()
            message.last, message.count = sequence, message.count + 1
        else:
            message = pb.FramesDropped(first=sequence, last=sequence, count=1, reason=DROP_REASONS[reason])
        self._drops.append((number, message))
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
                self._wake_reader.set()
            elif self._in_flight and self._in_flight[0].answer.done():
                frame = self._in_flight[0]
                answer = frame.answer.result()
                if isinstance(answer, FrameDroppedError):
                    self._in_flight.remove(frame)
                    self._record_drop(frame.sequence, frame.number, frame.received_at, answer.reason)
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
            self._newest = (provenance.key_frame_age, answer.timings.batch_size or self._newest[1])  # 0: it was held
            self._metrics.frame(label, "result")
            self._metrics.key_frame_age(label, provenance.key_frame_age)
            return pb.SegmentStreamResponse(result=answer)
        self._errors_in_a_row += 1
        self._summary.num_errors += 1
        self._metrics.frame(label, "error")
        self._trace_loss(frame.sequence, frame.received_at, f"error: {answer}")
        if self._errors_in_a_row == self._limits.max_consecutive_errors:
            self.end(type(answer)(f"{self._errors_in_a_row} frames in a row had no result, the last one: {answer}"))
        return pb.SegmentStreamResponse(
            frame_error=pb.FrameError(
                sequence=frame.sequence, code=status_of(answer).code.value[0], message=str(answer)
            )
        )

    def _trace_loss(self, sequence: int, received_at: float, outcome: str) -> None:
        """Tells of a frame that has no result; of the others `Answering` tells, which knows their parts."""
        if self._span.wants(sequence):
            whole = Part("frame", received_at, time.perf_counter())
            self._span.frame(whole, (), {"sequence": sequence, "outcome": outcome})


async def _give(answer: Answer) -> Answer:
    return answer
