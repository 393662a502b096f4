"""The frames of a stream from when they are given until their answers are taken, over all calls."""

import time
from collections import deque
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from serving.client.answers import FrameAnswer
from serving.client.failures import CallError
from serving.client.frames import Frame
from serving.generated.flowseg.v1 import segmentation_pb2 as pb

MAX_BEHIND = 64  # frames that have an answer and wait for that of an older one


@dataclass
class Totals:
    """What became of the frames, over all calls. frames = results + errors + dropped, once the stream is through."""

    frames: int = 0  # that were answered
    results: int = 0
    errors: int = 0
    dropped: int = 0
    key_frames: int = 0  # results whose frame left a key state
    held: int = 0  # results with the labels of an earlier frame
    reconnects: int = 0


@dataclass(eq=False)
class _Given:
    """A frame that was given and whose answer was not taken."""

    sequence: int
    frame: Frame
    data: bytes  # empty once it is answered
    given_at: float  # seconds, of time.perf_counter
    is_sent: bool = False  # in this call
    was_sent: bool = False  # in an earlier one
    answer: FrameAnswer | None = None


class Ledger:
    """Frames and their answers, oldest first."""

    def __init__(self, max_unanswered: int) -> None:
        """Nothing is given yet.

        Args:
            max_unanswered: frames without an answer at a time.
        """
        self._max_unanswered = max_unanswered
        self._given: deque[_Given] = deque()
        self._num_given = 0
        self.num_unanswered = 0
        self.totals = Totals()

    @property
    def has_room(self) -> bool:
        """Whether another frame may be given."""
        is_behind = len(self._given) - self.num_unanswered >= MAX_BEHIND
        return self.num_unanswered < self._max_unanswered and not is_behind

    @property
    def num_lost(self) -> int:
        """Frames that were sent in an earlier call and have no answer."""
        return sum(given.was_sent and given.answer is None for given in self._given)

    @property
    def is_any_under_way(self) -> bool:
        """Whether a frame that was sent in this call has no answer."""
        return any(given.is_sent and given.answer is None for given in self._given)

    @property
    def has_unsent(self) -> bool:
        """Whether there is a frame to send in this call."""
        return self._first_unsent() is not None

    def give(self, frame: Frame, data: bytes) -> None:
        """Takes a frame and its bytes. There must be room."""
        self._given.append(_Given(self._num_given, frame, data, time.perf_counter()))
        self._num_given += 1
        self.num_unanswered += 1

    def begin_call(self) -> None:
        """All frames without an answer are to be sent from now on."""
        for given in self._given:
            given.was_sent |= given.is_sent
            given.is_sent = False

    def send(self, *, force_key_frame: bool) -> pb.Frame:
        """The next frame to send in this call, of which there must be one."""
        given = self._first_unsent()
        assert given is not None
        given.is_sent = True
        return pb.Frame(
            sequence=given.sequence,
            capture_time_us=given.frame.capture_time_us,
            data=given.data,
            force_key_frame=force_key_frame or given.frame.force_key_frame,
            deadline_ms=given.frame.deadline_ms,
        )

    def settle_result(self, result: pb.FrameResult, labels: NDArray[np.uint8] | None) -> None:
        """Answers a frame. `labels` are those of the result.

        Raises:
            CallError: if it waits for no answer.
        """
        self.totals.results += self._settle(result.sequence, result.sequence, result=result, labels=labels)
        self.totals.held += result.provenance.held_frames > 0
        self.totals.key_frames += result.provenance.key_frame_age == 0 or result.provenance.refreshes_key

    def settle_error(self, error: pb.FrameError) -> None:
        """Answers a frame.

        Raises:
            CallError: if it waits for no answer.
        """
        self.totals.errors += self._settle(error.sequence, error.sequence, error=error)

    def settle_dropped(self, dropped: pb.FramesDropped) -> None:
        """Answers all frames of a range.

        Raises:
            CallError: if none waits for an answer.
        """
        self.totals.dropped += self._settle(dropped.first, dropped.last, dropped=dropped)

    def take(self) -> list[FrameAnswer]:
        """Answers that are there, in the order of the frames."""
        taken = []
        while self._given and (answer := self._given[0].answer) is not None:
            self._given.popleft()
            taken.append(answer)
        return taken

    def _settle(
        self,
        first: int,
        last: int,
        *,
        result: pb.FrameResult | None = None,
        error: pb.FrameError | None = None,
        dropped: pb.FramesDropped | None = None,
        labels: NDArray[np.uint8] | None = None,
    ) -> int:
        """Answers the frames from first to last that wait for one. Returns how many these were."""
        now = time.perf_counter()
        settled = [
            given for given in self._given if first <= given.sequence <= last and given.is_sent and not given.answer
        ]
        if not settled:
            raise CallError(grpc.StatusCode.INTERNAL, f"the server answered frame {first}, which waits for no answer")
        for given in settled:
            given.data = b""
            given.answer = FrameAnswer(
                sequence=given.sequence,
                frame=given.frame,
                result=result,
                error=error,
                dropped=dropped,
                labels=labels,
                latency_ms=(now - given.given_at) * 1e3,
            )
        self.totals.frames += len(settled)
        self.num_unanswered -= len(settled)
        return len(settled)

    def _first_unsent(self) -> _Given | None:
        return next((given for given in self._given if not given.is_sent and given.answer is None), None)
