"""One call of SegmentStream after its configuration.

A reader takes frames in and a writer sends answers out. Between them lie at most `max_in_flight` frames that are read
and not answered, and every frame that is read is answered exactly once: with a result, an error or as dropped.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import grpc

from serving.answers import AnswerEncoder, DecodedFrame, Outcome, decode_frame
from serving.decoders import open_decoder
from serving.drift import DriftMeter
from serving.drift_recorder import DriftRecorder, StreamRecorder
from serving.elasticity import Elasticity
from serving.errors import (
    DropReason,
    FrameDroppedError,
    FrameFailedError,
    FrameRefusedError,
    FrameTooLargeError,
    IdleTimeoutError,
    InvalidRequestError,
    ServingError,
)
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.messages import (
    Limits,
    SessionConfig,
    key_frame_policy,
    largest_interval,
    parse_key_frames,
    parse_milliseconds,
)
from serving.models import ServedModel
from serving.observability import Metrics
from serving.results import StepResult
from serving.statuses import status_of
from serving.stream import Expiry, Stream

StreamContext: TypeAlias = "grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse]"
Answer: TypeAlias = pb.FrameResult | FrameRefusedError | FrameFailedError | FrameDroppedError
DROP_REASONS = {
    DropReason.SUPERSEDED: pb.DROP_REASON_SUPERSEDED,
    DropReason.DEADLINE: pb.DROP_REASON_DEADLINE,
    DropReason.OVERLOAD: pb.DROP_REASON_OVERLOAD,
}
PARTS = ("decode", "queue", "key", "step", "encode", "total")  # of a frame's time


@dataclass(frozen=True)
class Surroundings:
    """What all sessions of a server share."""

    limits: Limits
    pool: Executor  # decodes and encodes
    metrics: Metrics
    recorder: DriftRecorder | None = None  # None if nobody asked for recording


class ReceivedFrame(NamedTuple):
    """A frame as it came."""

    message: pb.Frame
    received_at: float  # seconds, of time.perf_counter


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
        self._limits, self._pool, self._metrics = surroundings.limits, surroundings.pool, surroundings.metrics
        self._decoder = open_decoder(config.encoding, config.size, max_pixels=self._limits.max_frame_pixels)
        self._encoder = AnswerEncoder(model, config.outputs)
        self._drift = DriftMeter(model.bundle.manifest.baseline)
        self._recorder: StreamRecorder | None = None
        if surroundings.recorder is not None:
            self._recorder = surroundings.recorder.watch(started.stream_id, model.label, config.encoding, self._drift)
        self._key_frames = config.key_frames
        self._elasticity = None if config.objective is None else Elasticity(config.objective)
        self._in_flight: deque[InFlight] = deque()
        self._drops: deque[tuple[int, pb.FramesDropped]] = deque()  # with the number of the last frame in it
        self._notices: deque[pb.StreamNotice] = deque()
        self._wake_writer = asyncio.Event()
        self._wake_reader = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_reading = False
        self._ending: ServingError | None = None  # why the server ends the stream
        self._last_sequence = -1
        self._forces_next = False  # by a control
        self._errors_in_a_row = 0
        self._results: deque[tuple[int, StepResult]] = deque()  # the newest, with the numbers of their frames
        self._held_in_a_row = 0
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
            if self._recorder is not None:
                self._recorder.close()
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
            level=0 if self._elasticity is None else self._elasticity.number,
            drift=self._drift.drift,
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
                    self._obey(request.control)
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

    def _obey(self, control: pb.StreamControl) -> None:
        match control.WhichOneof("action"):
            case "force_key_frame":
                self._forces_next = True
            case "key_frames":
                self._key_frames = parse_key_frames(control.key_frames, "control.key_frames", self._limits)
                self.stream.follow(key_frame_policy(self._key_frames, self.model.bundle.manifest.baseline))
                self._stretch_intervals()
            case _:
                raise InvalidRequestError("control.action", "name what is to be done")

    def _stretch_intervals(self) -> None:
        """Makes key-frame intervals as long as the level says, within what the client allows."""
        if self._elasticity is not None:
            stretch: float = self._elasticity.level.stretch
            most = self._elasticity.objective.max_key_frame_interval
            if most and (largest := largest_interval(self._key_frames)):
                stretch = max(1.0, min(stretch, most / largest))
            self.stream.stretch_intervals(stretch)

    async def _take(self, frame: ReceivedFrame) -> None:
        """Decodes a frame, makes room for it and hands it to the engine, or holds it."""
        self._summary.num_frames += 1
        number = self._summary.num_frames
        future: Future[StepResult] | None = None
        previous = self._in_flight[-1].answer if self._in_flight else None
        try:
            decoded = await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, frame.message.data)
        except FrameRefusedError as error:
            await self._make_room()
            answer = asyncio.create_task(_give(error))
        else:
            await self._make_room()
            forces = frame.message.force_key_frame or self._forces_next
            self._forces_next = False
            if self._may_hold() and not forces:
                self._held_in_a_row += 1
                answer = asyncio.create_task(self._hold(frame, number, decoded, previous))
            else:
                self._held_in_a_row = 0
                expiry = self._expiry(frame)
                future = self.stream.submit(decoded.image, force_key_frame=forces, expiry=expiry)
                answer = asyncio.create_task(self._answer(frame, number, decoded, previous, future))
        answer.add_done_callback(lambda _: self._wake_writer.set())
        self._in_flight.append(InFlight(frame.message.sequence, number, future, answer))

    def _may_hold(self) -> bool:
        """Whether the next frame may be answered with the labels of the one before it."""
        if self._elasticity is None or not self._results:
            return False
        return self._held_in_a_row + 1 < self._elasticity.level.step_every

    def _expiry(self, frame: ReceivedFrame) -> Expiry | None:
        expiries = []
        if seconds := frame.message.deadline_ms / 1e3 or self._config.max_age_s:
            expiries.append(Expiry(frame.received_at + seconds, DropReason.DEADLINE))
        if self._elasticity is not None and self._elasticity.level.drops_late:
            target_s = self._elasticity.objective.target_ms / 1e3
            expiries.append(Expiry(frame.received_at + target_s, DropReason.OVERLOAD))
        return min(expiries, key=lambda expiry: expiry.at, default=None)

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

    async def _answer(
        self,
        frame: ReceivedFrame,
        number: int,
        decoded: DecodedFrame,
        previous: asyncio.Task[Answer] | None,
        future: Future[StepResult],
    ) -> Answer:
        try:
            result = await asyncio.wrap_future(future)
        except FrameFailedError as error:
            return error
        except FrameDroppedError as error:
            self._observe_latency((time.perf_counter() - frame.received_at) * 1e3)
            return error
        self._results.append((number, result))
        self.model.drift.observe(result)
        drift = self._drift.observe(result)
        if self._recorder is not None:
            self._recorder.observe(number, frame.message, decoded.native)
        message = await self._encode(frame, decoded, previous, Outcome(result, drift=drift))
        while self._results[0][0] < number:  # frames that are still to be answered come after this one
            self._results.popleft()
        self._observe_latency(message.timings.total_ms)
        self._metrics.quality(self.model.label, result, drift)
        return message

    async def _hold(
        self, frame: ReceivedFrame, number: int, decoded: DecodedFrame, previous: asyncio.Task[Answer] | None
    ) -> Answer:
        if previous is not None:
            await asyncio.wait({previous})  # its result, or the one before it, is the last one then
        number_of_result, result = next(each for each in reversed(self._results) if each[0] < number)
        outcome = Outcome(result, number - number_of_result, self._drift.drift)
        return await self._encode(frame, decoded, previous, outcome)

    async def _encode(
        self, frame: ReceivedFrame, decoded: DecodedFrame, previous: asyncio.Task[Answer] | None, outcome: Outcome
    ) -> pb.FrameResult:
        if previous is not None:
            await asyncio.wait({previous})  # one after the other: what a map is told from must have been told
        message = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._encoder.encode, frame.message, decoded, outcome, frame.received_at
        )
        timings = message.timings
        self._metrics.times(self.model.label, {part: getattr(timings, f"{part}_ms") for part in PARTS})
        return message

    def _observe_latency(self, latency_ms: float) -> None:
        if self._elasticity is None or not self._elasticity.observe(latency_ms):
            return
        self._stretch_intervals()
        level = self._elasticity.level
        given_up = [f"key frames {level.stretch} times as far apart"] if level.stretch > 1 else []
        given_up += [f"every {level.step_every}th frame looked at"] if level.step_every > 1 else []
        given_up += ["late frames dropped"] if level.drops_late else []
        message = f"to hold {self._elasticity.objective.target_ms:g} ms: {', '.join(given_up) or 'nothing is given up'}"
        self.notify(pb.StreamNotice(kind=pb.NOTICE_KIND_DEGRADED, message=message, level=self._elasticity.number))

    def _decode(self, encoded: bytes) -> DecodedFrame:
        keeps_native = bool(self._config.outputs.overlay) or (
            self._recorder is not None and self._recorder.keeps_native
        )
        return decode_frame(self._decoder, encoded, self.model.size, keeps_native)


async def _give(answer: Answer) -> Answer:
    return answer
