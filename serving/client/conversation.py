"""A stream from the client's side, without its input and output: what to send next, and what an arrival means.

A stream is one call after the other. Each begins with the configuration; once the server has agreed, the frames that
have no answer yet are sent in their order, under the numbers they have, those of an earlier call first. So each frame
that was given has exactly one answer in the end, and answers come in the order of the frames.

A frame that the server had segmented when its answer was lost is segmented again: with a state that was kept, it then
follows itself. The protocol does not tell.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.client.answers import FrameAnswer, LabelDecoder
from serving.client.events import ConnectionLost, Degraded, Draining, ModelReloaded, Reconnected, StreamEvent
from serving.client.failures import CallError, Failure
from serving.client.frames import Frame
from serving.client.ledger import Ledger, Totals
from serving.client.options import KeyFrames, StreamOptions
from serving.client.retries import Attempts
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.spans import NO_CALL, NO_TRACING, Part, Tracing

MARGIN = 16  # frames on their way: without them a bound here would keep the server from ever dropping
MAX_EVENTS = 1000  # that are kept


@dataclass
class _Call:
    """What is known of the call that is open."""

    decoder: LabelDecoder = field(default_factory=LabelDecoder)
    is_accepted: bool = False
    is_ending: bool = False  # the server drains: send no more
    is_summed_up: bool = False
    forces_next: bool = False  # the first frame of a call that has no state
    control: pb.StreamControl | None = None


class Conversation:
    """One stream. Not for several threads at a time."""

    def __init__(
        self,
        options: StreamOptions,
        attempts: Attempts,
        on_event: Callable[[StreamEvent], None],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Nothing is given yet.

        Args:
            options: what to ask for.
            attempts: when to call again.
            on_event: is told what happens beside answers; must not block.
            tracing: who is told of calls and frames.
        """
        options.check()
        self._tracing, self._span = tracing, NO_CALL
        self._config = options.message()
        self._attempts = attempts
        self._on_event = on_event
        self._ledger = Ledger(options.max_in_flight + (0 if options.delivery == "block" else MARGIN))
        self._forces_given = False  # the next frame that is given
        self._is_complete = False  # no more frames will be given
        self._call = _Call()
        self._num_accepted = 0  # calls
        self.delay_s = 0.0  # before the next call
        self.started = pb.StreamStarted()  # of the newest call
        self.events: deque[StreamEvent] = deque(maxlen=MAX_EVENTS)

    # frames in, answers out

    @property
    def has_room(self) -> bool:
        """Whether another frame may be given."""
        return self._ledger.has_room

    def give(self, frame: Frame, data: bytes) -> None:
        """Takes a frame and its bytes. There must be room."""
        if self._forces_given and not frame.force_key_frame:
            frame = Frame(frame.image, True, frame.capture_time_us, frame.deadline_ms)
        self._forces_given = False
        self._ledger.give(frame, data)

    def complete(self) -> None:
        """Says that no more frames will be given."""
        self._is_complete = True

    def take(self) -> list[FrameAnswer]:
        """Answers that are there, in the order of the frames."""
        answers = self._ledger.take()
        for answer in answers:
            if self._span.wants(answer.sequence):
                now = time.perf_counter()
                outcome = "result" if answer.result else "error" if answer.error else "dropped"
                frame = Part("client frame", now - answer.latency_ms / 1e3, now)
                self._span.frame(frame, (), {"sequence": answer.sequence, "outcome": outcome})
        return answers

    def force_key_frame(self) -> None:
        """Makes the next frame that is given a key frame."""
        self._forces_given = True

    def follow(self, key_frames: KeyFrames) -> None:
        """Asks for another key-frame policy, from the next frame that is sent on."""
        self._config.key_frames.CopyFrom(key_frames.message())
        self._call.control = pb.StreamControl(key_frames=self._config.key_frames)

    @property
    def totals(self) -> Totals:
        """What became of the frames so far."""
        return self._ledger.totals

    # calls

    @property
    def is_through(self) -> bool:
        """Whether all frames are answered."""
        return self._is_complete and not self._ledger.num_unanswered

    @property
    def needs_call(self) -> bool:
        """Whether there is something to send when no call is open."""
        return self._ledger.num_unanswered > 0

    def begin_call(self) -> pb.SegmentStreamRequest:
        """The first message of a new call."""
        self._call = _Call()
        self._span = self._tracing.make_call("SegmentStream")
        self._ledger.begin_call()
        return pb.SegmentStreamRequest(config=self._config)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What the call that was begun is sent with."""
        return self._span.metadata

    def close(self) -> None:
        """The user has no more of the stream."""
        self._span.end("CANCELLED")

    @property
    def has_request(self) -> bool:
        """Whether `next_request` has something to say, if only that the call is to be half-closed."""
        call = self._call
        return call.is_ending or (call.is_accepted and (self._ledger.has_unsent or self._is_complete))

    def next_request(self) -> pb.SegmentStreamRequest | None:
        """What to send next, once there is something; None: half-close."""
        call = self._call
        if call.is_ending or not self._ledger.has_unsent:
            return None
        if call.control is not None:
            control, call.control = call.control, None
            return pb.SegmentStreamRequest(control=control)
        forces, call.forces_next = call.forces_next, False
        return pb.SegmentStreamRequest(frame=self._ledger.send(force_key_frame=forces))

    def receive(self, response: pb.SegmentStreamResponse) -> None:
        """Takes what the server sends.

        Raises:
            CallError: if it makes no sense.
        """
        match response.WhichOneof("body"):
            case "started":
                self._start(response.started)
            case "result":
                self._ledger.settle_result(response.result, self._decode(response.result))
                self._attempts.succeed()
            case "frame_error":
                self._ledger.settle_error(response.frame_error)
                self._attempts.succeed()
            case "dropped":
                self._ledger.settle_dropped(response.dropped)
                self._attempts.succeed()
            case "notice":
                self._notice(response.notice)
            case "summary":
                self._call.is_summed_up = True

    def end_call(self, failure: Failure | None) -> None:
        """The call is over; None is OK. `delay_s` is then how long to wait before the next one.

        Raises:
            CallError: if there is to be none.
        """
        self._span.end("OK" if failure is None else failure.code.name)
        call, self._call = self._call, _Call()
        if failure is None:
            self._config.resume_token = ""  # nosec B105  # a stream that ended in good order is not kept
            self.delay_s = 0.0
            if call.is_summed_up and not self._ledger.is_any_under_way:
                return
            failure = Failure(code=grpc.StatusCode.INTERNAL, message="it ended in the middle of the stream")
        elif self.is_through and (failure.code == grpc.StatusCode.UNAVAILABLE or not failure.reason):
            return  # all that was lost is the summary
        self.delay_s = self._attempts.fail(failure, was_accepted=call.is_accepted)
        self._tell(
            ConnectionLost(
                reason=f"{failure.code.name}, {failure.message}", delay_s=self.delay_s, attempt=self._attempts.count
            )
        )

    def _start(self, started: pb.StreamStarted) -> None:
        self._call.is_accepted = self._attempts.has_met_server = True
        self.started = started
        self._span.describe(stream=started.stream_id, model=f"{started.model.name}@{started.model.version}")
        self._config.resume_token = started.resume_token
        self._num_accepted += 1
        if self._num_accepted > 1:
            self._call.forces_next = not started.resumed
            self._ledger.totals.reconnects += 1
            self._tell(Reconnected(has_state=started.resumed, num_resent=self._ledger.num_lost))

    def _decode(self, result: pb.FrameResult) -> NDArray[np.uint8] | None:
        try:
            return self._call.decoder.decode(result)
        except ValueError as error:
            raise CallError(grpc.StatusCode.DATA_LOSS, f"frame {result.sequence} came back broken: {error}") from error

    def _notice(self, notice: pb.StreamNotice) -> None:
        match notice.kind:
            case pb.NOTICE_KIND_DRAINING:
                self._call.is_ending = True
                self._tell(Draining(message=notice.message, grace_ms=notice.grace_ms))
            case pb.NOTICE_KIND_DEGRADED:
                self._tell(Degraded(message=notice.message, level=notice.level))
            case pb.NOTICE_KIND_MODEL_RELOADED:
                self._tell(ModelReloaded(message=notice.message, model=notice.model))

    def _tell(self, event: StreamEvent) -> None:
        self.events.append(event)
        self._on_event(event)


class StreamView:
    """What a user sees of a stream beside its answers, whichever way these come."""

    def __init__(self, conversation: Conversation) -> None:
        """Looks at a conversation."""
        self._conversation = conversation

    @property
    def started(self) -> pb.StreamStarted:
        """What the server has agreed to, in the newest call."""
        return self._conversation.started

    @property
    def model(self) -> pb.Model:
        """The model with its version, classes and colours."""
        return self.started.model

    @property
    def totals(self) -> Totals:
        """What became of the frames so far."""
        return self._conversation.totals

    @property
    def events(self) -> list[StreamEvent]:
        """What happened beside answers: the newest thousand, oldest first."""
        return list(self._conversation.events)
