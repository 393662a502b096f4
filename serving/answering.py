"""What becomes of the frames of one call, from their bytes to their answers.

A frame is decoded, handed to the engine (or held, if the stream's latency objective cannot be held otherwise), and what
the engine gives for it is encoded. The answers of a stream are made one after the other, in the order of its frames.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from serving.answers import AnswerEncoder, DecodedFrame, Outcome, decode_frame
from serving.decoders import open_decoder
from serving.drift import DriftMeter
from serving.drift_recorder import DriftRecorder, StreamRecorder
from serving.elasticity import Elasticity
from serving.errors import DropReason, FrameDroppedError, FrameFailedError, FrameRefusedError, InvalidRequestError
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.messages import Limits, SessionConfig, key_frame_policy, largest_interval, parse_key_frames
from serving.models import ServedModel
from serving.observability import Metrics
from serving.results import StepResult
from serving.spans import NO_TRACING, CallSpan, Part, Tracing, parts_of
from serving.stream import Expiry, Stream

Answer: TypeAlias = pb.FrameResult | FrameRefusedError | FrameFailedError | FrameDroppedError
PARTS = ("decode", "queue", "key", "step", "encode", "total")  # of a frame's time


@dataclass(frozen=True)
class Surroundings:
    """What all sessions of a server share."""

    limits: Limits
    pool: Executor  # decodes and encodes
    metrics: Metrics
    recorder: DriftRecorder | None = None  # None if nobody asked for recording
    tracing: Tracing = NO_TRACING


class ReceivedFrame(NamedTuple):
    """A frame as it came."""

    message: pb.Frame
    received_at: float  # seconds, of time.perf_counter


class Answering:
    """Answers the frames of one stream."""

    def __init__(
        self,
        stream_id: str,
        model: ServedModel,
        stream: Stream,
        config: SessionConfig,
        surroundings: Surroundings,
        span: CallSpan,
        notify: Callable[[pb.StreamNotice], None],
    ) -> None:
        """Takes an open stream of the engine, the trace of the call, and what sends notices to its client."""
        self._span = span
        self._model, self._stream, self._config, self._notify = model, stream, config, notify
        self._limits, self._pool, self._metrics = surroundings.limits, surroundings.pool, surroundings.metrics
        self._decoder = open_decoder(config.encoding, config.size, max_pixels=self._limits.max_frame_pixels)
        self._encoder = AnswerEncoder(model, config.outputs)
        self._drift = DriftMeter(model.bundle.manifest.baseline)
        self._recorder: StreamRecorder | None = None
        if surroundings.recorder is not None:
            self._recorder = surroundings.recorder.watch(stream_id, model.label, config.encoding, self._drift)
        self._key_frames = config.key_frames
        self._elasticity = None if config.objective is None else Elasticity(config.objective)
        self._forces_next = False  # by a control
        self._results: deque[tuple[int, StepResult]] = deque()  # the newest, with the numbers of their frames
        self._held_in_a_row = 0

    @property
    def level(self) -> int:
        """Of what is given up for the latency objective, 0 to 5."""
        return 0 if self._elasticity is None else self._elasticity.number

    @property
    def drift(self) -> float:
        """Of the stream from the baseline of its model, in standard deviations."""
        return self._drift.drift

    def close(self) -> None:
        """Ends what is recorded of the stream."""
        if self._recorder is not None:
            self._recorder.close()

    def force_key_frame(self) -> None:
        """Makes the next frame that begins a key frame."""
        self._forces_next = True

    def obey(self, control: pb.StreamControl) -> None:
        """Does what a control says, from the next frame on.

        Raises:
            InvalidRequestError: if it says nothing, or what cannot be.
        """
        match control.WhichOneof("action"):
            case "force_key_frame":
                self.force_key_frame()
            case "key_frames":
                self._key_frames = parse_key_frames(control.key_frames, "control.key_frames", self._limits)
                self._stream.follow(key_frame_policy(self._key_frames, self._model.bundle.manifest.baseline))
                self._stretch_intervals()
            case _:
                raise InvalidRequestError("control.action", "name what is to be done")

    async def decode(self, encoded: bytes) -> DecodedFrame:
        """Decodes the next frame, in the pool.

        Raises:
            FrameRefusedError: if it does not decode.
        """
        keeps_native = bool(self._config.outputs.overlay) or (
            self._recorder is not None and self._recorder.keeps_native
        )
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, decode_frame, self._decoder, encoded, self._model.size, keeps_native
        )

    def begin(
        self, frame: ReceivedFrame, number: int, decoded: DecodedFrame, previous: asyncio.Task[Answer] | None
    ) -> tuple[Future[StepResult] | None, Coroutine[None, None, Answer]]:
        """Hands a frame to the engine, or holds it.

        Args:
            frame: as it came.
            number: of the frames of its stream.
            decoded: the same frame.
            previous: what answers the frame before it; None if that is answered.

        Returns:
            What the engine will give for it, None if it is held, and what will be its answer.
        """
        forces = frame.message.force_key_frame or self._forces_next
        self._forces_next = False
        if self._may_hold() and not forces:
            self._held_in_a_row += 1
            return None, self._hold(frame, number, decoded, previous)
        self._held_in_a_row = 0
        submitted_at = time.perf_counter()
        future = self._stream.submit(decoded.image, force_key_frame=forces, expiry=self._expiry(frame))
        return future, self._answer(frame, number, decoded, previous, future, submitted_at)

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

    def _stretch_intervals(self) -> None:
        """Makes key-frame intervals as long as the level says, within what the client allows."""
        if self._elasticity is not None:
            stretch: float = self._elasticity.level.stretch
            most = self._elasticity.objective.max_key_frame_interval
            if most and (largest := largest_interval(self._key_frames)):
                stretch = max(1.0, min(stretch, most / largest))
            self._stream.stretch_intervals(stretch)

    async def _answer(
        self,
        frame: ReceivedFrame,
        number: int,
        decoded: DecodedFrame,
        previous: asyncio.Task[Answer] | None,
        future: Future[StepResult],
        submitted_at: float,
    ) -> Answer:
        try:
            result = await asyncio.wrap_future(future)
        except FrameFailedError as error:
            return error
        except FrameDroppedError as error:
            self._observe_latency((time.perf_counter() - frame.received_at) * 1e3)
            return error
        self._results.append((number, result))
        self._model.drift.observe(result)
        drift = self._drift.observe(result)
        if self._recorder is not None:
            self._recorder.observe(number, frame.message, decoded.native)
        message = await self._encode(frame, decoded, previous, Outcome(result, drift=drift), submitted_at)
        while self._results[0][0] < number:  # frames that are still to be answered come after this one
            self._results.popleft()
        self._observe_latency(message.timings.total_ms)
        self._metrics.quality(self._model.label, result, drift)
        return message

    async def _hold(
        self, frame: ReceivedFrame, number: int, decoded: DecodedFrame, previous: asyncio.Task[Answer] | None
    ) -> Answer:
        if previous is not None:
            await asyncio.wait({previous})  # its result, or the one before it, is the last one then
        number_of_result, result = next(each for each in reversed(self._results) if each[0] < number)
        outcome = Outcome(result, number - number_of_result, self._drift.drift)
        return await self._encode(frame, decoded, previous, outcome, None)

    async def _encode(
        self,
        frame: ReceivedFrame,
        decoded: DecodedFrame,
        previous: asyncio.Task[Answer] | None,
        outcome: Outcome,
        submitted_at: float | None,
    ) -> pb.FrameResult:
        if previous is not None:
            await asyncio.wait({previous})  # one after the other: what a map is told from must have been told
        message = await asyncio.get_running_loop().run_in_executor(
            self._pool, self._encoder.encode, frame.message, decoded, outcome, frame.received_at
        )
        timings = message.timings
        self._metrics.times(self._model.label, {part: getattr(timings, f"{part}_ms") for part in PARTS})
        if self._span.wants(message.sequence):
            attributes = {
                "sequence": message.sequence,
                "outcome": "held" if outcome.held_frames else "result",
                "key_frame_age": message.provenance.key_frame_age,
                "batch_size": timings.batch_size,
            }
            parts = parts_of(timings, frame.received_at, submitted_at)
            self._span.frame(Part("frame", frame.received_at, parts[-1].ended_at), parts, attributes)
        return message

    def _observe_latency(self, latency_ms: float) -> None:
        if self._elasticity is None or not self._elasticity.observe(latency_ms):
            return
        self._stretch_intervals()
        level = self._elasticity.level
        stretch = self._stream.stretch
        given_up = [f"key frames {stretch:.3g} times as far apart"] if stretch > 1 else []
        given_up += [f"one frame in {level.step_every} looked at"] if level.step_every > 1 else []
        given_up += ["late frames dropped"] if level.drops_late else []
        message = f"to hold {self._elasticity.objective.target_ms:g} ms: {', '.join(given_up) or 'nothing is given up'}"
        self._notify(pb.StreamNotice(kind=pb.NOTICE_KIND_DEGRADED, message=message, level=self._elasticity.number))
