"""The engine runs one model on one device for many streams at once. It is blind to the model: it follows the manifest.

Semantics, per stream:

- A frame is answered with `step` from the state that exists, and *then*, if the key-frame policy asks for it, the
  state is refreshed with `key` on that frame: the heavy graph is off the critical path. A refresh always happens
  before the stream's next step, and what it gives replaces the state that the step left.
- The first frame, a forced key frame and one that the policy takes for a scene cut go through `key` first: such a
  frame is its own key frame and its own previous frame. What its step leaves is discarded: the next frame starts from
  its key state. If it never runs, dropped or cancelled, the next frame takes its place.
- After a frame that failed, the stream goes on from the state, previous frame and key frame before it.

One worker thread per engine runs what `schedule.py` chooses.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Condition, Thread
from types import TracebackType
from typing import Literal, Self

from serving.bundle import NEXT, RESULTS, Bundle, Precision, Variant, read_bundle
from serving.errors import DeviceMemoryError, FrameFailedError, StreamClosedError, StreamLimitError
from serving.graphs import GraphRun, ModelGraphs, pick_variant
from serving.key_frames import FixedInterval, KeyFramePolicy
from serving.logs import about
from serving.results import StepResult, StepTimings
from serving.runtimes.choice import RuntimeChoice, open_runtime
from serving.runtimes.runtime import Runtime, Value, is_out_of_memory
from serving.schedule import Schedule
from serving.stream import Memory, Stream, give_up

logger = logging.getLogger(__name__)


def log_run(run: GraphRun) -> None:
    """What an engine does with its runs if nobody counts them."""
    logger.debug("%s of %d frames took %.1f ms", run.graph, run.num_frames, run.seconds * 1e3)


class Engine:
    """Runs one variant of a bundle for many streams. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        runtime: Runtime,
        *,
        max_streams: int = 64,
        max_batch: int = 4,
        observe: Callable[[GraphRun], None] = log_run,
    ) -> None:
        """Loads the graphs and starts the worker.

        Args:
            bundle: where the graphs are.
            variant: which of its graphs.
            runtime: what runs them.
            max_streams: open at a time.
            max_batch: frames in one run.
            observe: is told of each run, on the worker's thread.

        Raises:
            BundleError: if the runtime cannot load a graph, or a graph is not what the manifest says.
        """
        self.bundle = bundle
        self.variant = variant
        self.runtime = runtime
        self.max_streams = max_streams
        self._graphs = ModelGraphs(bundle, variant, runtime, observe)
        self._schedule = Schedule(
            max_key_batch=min(max_batch, self._graphs.max_key_batch),
            max_step_batch=min(max_batch, self._graphs.max_step_batch),
        )
        self._changed = Condition()
        self._streams: list[Stream] = []
        self._is_closed = False
        self._worker = Thread(target=self._work, name=f"engine {bundle.manifest.name}", daemon=True)
        self._worker.start()

    @property
    def is_alive(self) -> bool:
        """Whether the engine answers frames."""
        return self._worker.is_alive() and not self._is_closed

    @property
    def num_streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    def warm_up(self) -> None:
        """Runs both graphs once, and checks that they give what the manifest says.

        Raises:
            BundleError: if they do not.
        """
        self._graphs.warm_up()

    def open_stream(
        self, *, key_frame_interval: int = 1, policy: KeyFramePolicy | None = None, capacity: int = 8
    ) -> Stream:
        """Opens a stream with a state of its own.

        Args:
            key_frame_interval: frames from one key frame to the next.
            policy: decides in place of the fixed interval.
            capacity: frames that may wait before `submit` does.

        Raises:
            StreamLimitError: if `max_streams` are open.
            StreamClosedError: if the engine is closed.
        """
        stream = Stream(
            changed=self._changed,
            runtime=self.runtime,
            frame_shape=(self.variant.height, self.variant.width, 3),
            policy=policy or FixedInterval(key_frame_interval),
            capacity=capacity,
            forget=self._streams.remove,
        )
        with self._changed:
            if not self.is_alive:
                raise StreamClosedError("the model is not served any more")
            if len(self._streams) >= self.max_streams:
                raise StreamLimitError(f"all {self.max_streams} streams of the model are taken: try again later")
            self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Closes all streams and stops the worker once the run in progress is over."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for stream in list(self._streams):
            stream.close()
        self._worker.join()

    def __enter__(self) -> Self:
        """The engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the engine."""
        self.close()

    def _work(self) -> None:
        streams: Sequence[Stream] = ()
        try:
            while True:
                with self._changed:
                    for stream in streams:
                        stream.is_running = False
                        if stream.is_closed:
                            give_up(stream.clear())
                    self._changed.notify_all()
                    while (batch := self._schedule.choose(self._streams)) is None and not self._is_closed:
                        self._changed.wait()
                if batch is None:
                    return
                streams = batch.streams
                if batch.graph == "key":
                    self._run_keys(streams)
                else:
                    self._run_steps(streams)
        except Exception:
            logger.exception("the engine of %s stopped: this is a bug", self.bundle.manifest.name)
            self._is_closed = True
            for stream in streams:
                give_up(stream.clear())
                stream.is_running = False
            for stream in list(self._streams):
                stream.close()

    def _run_keys(self, streams: Sequence[Stream]) -> None:
        """Encodes a frame of each stream: the one it was just answered for, or the one it waits to be answered for."""
        started_at = time.perf_counter()
        uploaded = self._upload(stream for stream in streams if stream.refresh is None)
        work = uploaded + [(stream, stream.refresh) for stream in streams if stream.refresh is not None]
        answers = self._graphs.encode_keys([frame for _, frame in work])
        key_ms = (time.perf_counter() - started_at) * 1e3
        share_device_time((stream for stream, _ in work), key_ms, len(work))
        for (stream, frame), state in zip(work, answers, strict=True):
            if stream.refresh is None:
                if isinstance(state, Exception):
                    self._fail(stream, state)
                else:
                    stream.encoded = Memory(state=state, previous_frame=frame, key_frame=frame, age=0)
                    stream.key_ms = key_ms
            else:
                stream.refresh = None
                if isinstance(state, Exception):  # the propagated state remains, and the policy will ask again
                    logger.warning("a key refresh failed: %s", state, extra=about(stream.name))
                else:
                    stream.memory = Memory(state=state, previous_frame=frame, key_frame=frame, age=1)

    def _run_steps(self, streams: Sequence[Stream]) -> None:
        """Answers the current frame of each stream."""
        started_at = time.perf_counter()
        work = [(stream, stream.encoded.key_frame, stream.encoded) for stream in streams if stream.encoded is not None]
        for stream, frame in self._upload(stream for stream in streams if stream.encoded is None):
            assert stream.memory is not None
            work.append((stream, frame, stream.memory))
        answers = self._graphs.step(
            [
                memory.state | {"frame": frame, "previous_frame": memory.previous_frame, "key_frame": memory.key_frame}
                for _, frame, memory in work
            ]
        )
        step_ms = (time.perf_counter() - started_at) * 1e3
        share_device_time((stream for stream, _, _ in work), step_ms, len(work))
        for (stream, frame, memory), outputs in zip(work, answers, strict=True):
            if isinstance(outputs, Exception):
                self._fail(stream, outputs)
                continue
            assert stream.current is not None
            key_ms = stream.key_ms if memory.age == 0 else 0.0
            waited_ms = (started_at - stream.current.submitted_at) * 1e3
            timings = StepTimings(queue_ms=waited_ms - key_ms, key_ms=key_ms, step_ms=step_ms)
            self._answer(stream, memory, frame, outputs, timings, len(work))

    def _upload(self, streams: Iterable[Stream]) -> list[tuple[Stream, Value]]:
        """The current frame of each stream on the device; streams whose frame has no room there are moved past it."""
        uploaded = []
        for stream in streams:
            assert stream.current is not None
            try:
                uploaded.append((stream, self.runtime.to_device(stream.current.frame)))
            except Exception as error:  # whatever the runtime raises
                self._fail(stream, error)
        return uploaded

    def _answer(
        self,
        stream: Stream,
        memory: Memory,
        frame: Value,
        outputs: Mapping[str, Value],
        timings: StepTimings,
        batch_size: int,
    ) -> None:
        """Moves the stream past its current frame, then hands out the result."""
        try:
            host = {name: self.runtime.to_host(outputs[name])[0] for name in RESULTS}
        except Exception as error:  # whatever the runtime raises
            self._fail(stream, error)
            return
        result = StepResult(
            labels=host["labels"],
            confidence=host["confidence"],
            mean_confidence=float(host["mean_confidence"]),
            disagreement=float(host["disagreement"]),
            mean_entropy=float(host["mean_entropy"]),
            warp_residual=float(host["warp_residual"]),
            key_frame_age=memory.age,
            refreshes_key=False,
            batch_size=batch_size,
            timings=timings,
        )
        result = replace(result, refreshes_key=stream.policy.is_due(result, stream.stretch))
        state = memory.state
        if memory.age > 0:  # the state of a key frame is what `key` gave, not what its own step made of it
            state = {name: outputs.get(NEXT + name, value) for name, value in state.items()}
        stream.memory = replace(memory, state=state, previous_frame=frame, age=memory.age + 1)
        stream.refresh = frame if result.refreshes_key else None
        stream.finish_current().set_result(result)

    def _fail(self, stream: Stream, error: Exception) -> None:
        """Moves the stream past its current frame without a result: state and previous frame stay as they were."""
        logger.warning("a frame failed: %s", error, extra=about(stream.name))
        if is_out_of_memory(error):
            failure: FrameFailedError = DeviceMemoryError("the device has no memory left for this frame")
        else:
            failure = FrameFailedError("the model failed on this frame")
        stream.finish_current().set_exception(failure)


def share_device_time(streams: Iterable[Stream], milliseconds: float, num_frames: int) -> None:
    """Puts a run to the account of its streams, in equal parts."""
    for stream in streams:
        stream.device_s += milliseconds / 1e3 / num_frames


def open_engine(
    folder: Path,
    *,
    precision: Precision | Literal["auto"] = "auto",
    size: tuple[int, int] | None = None,
    device: str = "cpu",
    runtime: RuntimeChoice = "auto",
    threads: int = 0,
    max_streams: int = 64,
    max_batch: int = 4,
    observe: Callable[[GraphRun], None] = log_run,
) -> Engine:
    """Reads a bundle and starts a warm engine on one of its variants.

    Args:
        folder: of the bundle.
        precision: of the variant; "auto" is the highest there is for the runtime.
        size: (height, width) of the variant's frames; may be left out if the bundle has one size.
        device: "cpu" or "cuda:N".
        runtime: that runs the graphs; "auto" is the fastest that is there.
        threads: of one run on the CPU; 0 takes every core.
        max_streams: open at a time.
        max_batch: frames in one run.
        observe: is told of each run, on the worker's thread.

    Raises:
        BundleError: with one sentence that says what is wrong and what to do.
        ValueError: if there is no such device, or the runtime is not there.
    """
    bundle = read_bundle(folder)
    chosen = open_runtime(runtime, device, threads, bundle, precision, size)
    variant = pick_variant(bundle, chosen.name, precision, size)
    engine = Engine(bundle, variant, chosen, max_streams=max_streams, max_batch=max_batch, observe=observe)
    try:
        engine.warm_up()
    except BaseException:
        engine.close()
        raise
    return engine
