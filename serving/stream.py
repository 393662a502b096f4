"""One video on its way through an engine: the frames that wait, and the state that flows from frame to frame."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Condition
from types import TracebackType
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from serving.errors import DropReason, FrameDroppedError, FrameRefusedError, StreamClosedError
from serving.key_frames import KeyFramePolicy
from serving.results import StepResult
from serving.runtimes.runtime import Array, Runtime, Value


class Expiry(NamedTuple):
    """When a frame that no work was done on is to be dropped, and why."""

    at: float  # seconds, of time.perf_counter
    reason: DropReason


@dataclass(frozen=True)
class QueuedFrame:
    """A frame between `submit` and its answer."""

    frame: NDArray[np.uint8]  # (1, H, W, 3) RGB
    force_key_frame: bool
    future: Future[StepResult]
    submitted_at: float  # seconds, of time.perf_counter
    expiry: Expiry | None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a stream carries from one frame to the next."""

    state: dict[str, Value]
    previous_frame: Value  # the last frame that was answered: the state belongs to it
    key_frame: Value  # the frame of the last key run
    age: int  # key-frame age of the next frame


class Stream:
    """One video's place in an engine. Made by `Engine.open_stream`; safe to use from any thread.

    Fields without an underscore are the engine's, guarded by its condition.
    """

    def __init__(
        self,
        *,
        changed: Condition,
        runtime: Runtime,
        frame_shape: tuple[int, int, int],
        policy: KeyFramePolicy,
        capacity: int,
        forget: Callable[["Stream"], None],
    ) -> None:
        """Takes its place in the engine that `changed` guards."""
        self.name = ""  # for the log
        self.policy = policy
        self.waiting: deque[QueuedFrame] = deque()
        self.current: QueuedFrame | None = None  # chosen to be answered next, can no longer be dropped
        self.encoded: Memory | None = None  # for the current frame alone, if it had to be encoded first
        self.key_ms = 0.0  # what encoding it took
        self.memory: Memory | None = None  # what the last answered frame left
        self.refresh: Value = None  # the answered frame that the state is to be refreshed from
        self.is_running = False  # a graph runs for this stream
        self.is_closed = False
        self.device_s = 0.0  # its share of all runs, in seconds
        self.last_run = 0  # its number in the order of all runs: who waited longest goes first
        self.stretch = 1.0  # factor by which key-frame intervals are longer than the policy says
        self._is_key_frame_owed = False  # one that never ran: the next frame takes its place
        self._changed = changed
        self._runtime = runtime
        self._frame_shape = frame_shape
        self._capacity = capacity
        self._forget = forget

    def submit(
        self, frame: NDArray[np.uint8], *, force_key_frame: bool = False, expiry: Expiry | None = None
    ) -> Future[StepResult]:
        """Queues the next frame; waits for room if the queue is full.

        Args:
            frame: (H, W, 3) uint8 RGB of the engine's size. The stream keeps it: do not write to it afterwards.
            force_key_frame: encode this frame first and answer it from its own key state, as the first frame is. If it
                is dropped or cancelled, the next frame takes its place.
            expiry: when to drop the frame if no work was done on it.

        Returns:
            The answer to come: a StepResult, or FrameFailedError, FrameDroppedError or StreamClosedError. The results
            of one stream come in the order of its frames.

        Raises:
            FrameRefusedError: if the shape or type is not the engine's.
            StreamClosedError: if the stream is closed.
        """
        if frame.shape != self._frame_shape or frame.dtype != np.uint8:
            height, width, _ = self._frame_shape
            raise FrameRefusedError(
                f"frame is {frame.dtype} of shape {frame.shape}, the model takes uint8 of shape ({height}, {width}, 3)"
            )
        is_key_frame = self.policy.is_scene_cut(frame) or force_key_frame
        queued = QueuedFrame(np.ascontiguousarray(frame)[None], is_key_frame, Future(), time.perf_counter(), expiry)
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or len(self.waiting) < self._capacity)
            if self.is_closed:
                raise StreamClosedError("the stream is closed")
            self.waiting.append(queued)
            self._changed.notify_all()
        return queued.future

    def follow(self, policy: KeyFramePolicy) -> None:
        """Refreshes the key state by another policy from the next answer on."""
        with self._changed:
            self.policy = policy

    def stretch_intervals(self, factor: float) -> None:
        """Makes key-frame intervals so many times as long as the policy says, 1 or more."""
        with self._changed:
            self.stretch = factor

    def resize(self, capacity: int) -> None:
        """Lets another number of frames wait."""
        with self._changed:
            self._capacity = capacity
            self._changed.notify_all()

    def drop_oldest(self) -> Future[StepResult] | None:
        """Drops the oldest frame that no work was done on. Returns what was to be its answer, None if all are begun."""
        with self._changed:
            if not self.waiting:
                return None
            dropped = self.waiting.popleft()
            self._is_key_frame_owed |= dropped.force_key_frame
            self._changed.notify_all()
        if dropped.future.set_running_or_notify_cancel():
            dropped.future.set_exception(FrameDroppedError(DropReason.SUPERSEDED))
        return dropped.future

    def abandon_frames(self) -> None:
        """Gives up waiting frames and keeps the state, for whoever goes on with the stream."""
        with self._changed:
            abandoned = list(self.waiting)
            self.waiting.clear()
            self._changed.notify_all()
        give_up(abandoned)

    def state(self) -> dict[str, Array]:
        """Copies of the state tensors, (1, *shape) each, once every frame is answered and the state refreshed.

        Empty before the first frame, and for models without a state.

        Raises:
            StreamClosedError: if the stream is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed or self._is_idle())
            if self.is_closed:
                raise StreamClosedError("the stream is closed")
            state = {} if self.memory is None else self.memory.state
        return {name: self._runtime.to_host(value).copy() for name, value in state.items()}

    def close(self) -> None:
        """Gives up waiting frames and forgets the state. Frames that are being run are still answered."""
        with self._changed:
            if self.is_closed:
                return
            self.is_closed = True
            self._forget(self)
            self._changed.notify_all()
            if self.is_running:  # the engine clears it afterwards
                abandoned = list(self.waiting)
                self.waiting.clear()
            else:
                abandoned = self.clear()
        give_up(abandoned)

    def next_work(self) -> Literal["key", "step"] | None:
        """What to run for the stream now. For the schedule."""
        if self.is_running:
            return None
        if self.refresh is not None:
            return "key"
        while self.current is None and self.waiting:
            queued = self.waiting.popleft()
            self._is_key_frame_owed |= queued.force_key_frame
            if queued.future.set_running_or_notify_cancel():
                if queued.expiry is None or time.perf_counter() < queued.expiry.at:
                    self.current = replace(queued, force_key_frame=self._is_key_frame_owed)
                    self._is_key_frame_owed = False
                else:
                    queued.future.set_exception(FrameDroppedError(queued.expiry.reason))
            self._changed.notify_all()
        if self.current is None:
            return None
        is_encoded = self.encoded is not None or (self.memory is not None and not self.current.force_key_frame)
        return "step" if is_encoded else "key"

    def finish_current(self) -> Future[StepResult]:
        """Moves on from the current frame and returns its answer to be. For the engine."""
        assert self.current is not None
        future = self.current.future
        self.current = self.encoded = None
        return future

    def clear(self) -> list[QueuedFrame]:
        """Lets go of everything that takes memory and returns the frames without an answer. For the engine."""
        abandoned = list(self.waiting)
        if self.current is not None:
            abandoned.append(self.current)
        self.waiting.clear()
        self.current = self.encoded = self.memory = self.refresh = None
        return abandoned

    def _is_idle(self) -> bool:
        return not (self.waiting or self.current or self.is_running) and self.refresh is None

    def __enter__(self) -> Self:
        """The stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the stream."""
        self.close()


def give_up(frames: Iterable[QueuedFrame]) -> None:
    """Answers frames of a closed stream."""
    for queued in frames:
        if queued.future.running() or queued.future.set_running_or_notify_cancel():
            queued.future.set_exception(StreamClosedError("the stream was closed"))
