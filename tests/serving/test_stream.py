import queue
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.engine import Engine
from serving.errors import FrameDroppedError, FrameRefusedError, StreamClosedError
from serving.results import StepResult
from serving.stream import Stream
from tests.serving.conftest import SIZE, GatedRuntime, toy_frame

PATIENCE_S = 20  # for what takes milliseconds
NEVER = 1000  # frames: a key-frame interval that no test reaches


def label(future: Future[StepResult]) -> int:
    (value,) = np.unique(future.result(PATIENCE_S).labels)
    return int(value)


@pytest.fixture
def held(engine: Engine, gated_runtime: GatedRuntime) -> tuple[Stream, Future[StepResult]]:
    """A stream with a total of 10 that waits, at the closed gate, for the step of a frame of 1."""
    stream = engine.open_stream(key_frame_interval=NEVER, capacity=2)
    assert label(stream.submit(toy_frame(10))) == 20
    while gated_runtime.arrivals.acquire(blocking=False):
        pass
    gated_runtime.gate.clear()
    future = stream.submit(toy_frame(1))
    assert gated_runtime.arrivals.acquire(timeout=PATIENCE_S)
    return stream, future


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((SIZE, 2 * SIZE, 3), np.uint8), r"uint8 of shape \(64, 128, 3\)"),
        (np.zeros((SIZE, SIZE), np.uint8), r"uint8 of shape \(64, 64\)"),
        (np.zeros((SIZE, SIZE, 4), np.uint8), r"uint8 of shape \(64, 64, 4\)"),
        (np.zeros((1, SIZE, SIZE, 3), np.uint8), r"uint8 of shape \(1, 64, 64, 3\)"),
        (np.zeros((SIZE, SIZE, 3), np.float32), r"float32 of shape \(64, 64, 3\)"),
    ],
)
def test_a_frame_of_another_shape_or_type_is_refused_and_the_stream_goes_on(
    engine: Engine, frame: NDArray[Any], found: str
) -> None:
    stream = engine.open_stream()
    with pytest.raises(FrameRefusedError, match=rf"frame is {found}, the model takes uint8 of shape \(64, 64, 3\)$"):
        stream.submit(frame)
    assert label(stream.submit(toy_frame(10))) == 20


def test_a_frame_may_be_any_view(engine: Engine) -> None:
    frame = np.random.default_rng(0).integers(0, 100, (SIZE, SIZE, 3), np.uint8)
    stream = engine.open_stream()
    mirrored = stream.submit(frame[:, ::-1]).result(PATIENCE_S)
    assert np.array_equal(mirrored.labels, stream.submit(frame, force_key_frame=True).result().labels[:, ::-1])


def test_results_come_in_the_order_of_the_frames(engine: Engine) -> None:
    stream = engine.open_stream(capacity=16)
    answered: queue.Queue[Future[StepResult]] = queue.Queue()
    futures = [stream.submit(toy_frame(value)) for value in range(16)]
    for future in futures:
        future.add_done_callback(answered.put)
    assert [answered.get(timeout=PATIENCE_S) for _ in futures] == futures


def test_submit_waits_for_room(held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime) -> None:
    stream, running = held
    futures = [running, stream.submit(toy_frame(2)), stream.submit(toy_frame(3))]
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(stream.submit, toy_frame(4))
        with pytest.raises(TimeoutError):
            submitting.result(timeout=0.1)
        assert len(stream.waiting) == 2
        gated_runtime.gate.set()
        futures.append(submitting.result(PATIENCE_S))
    assert [label(future) for future in futures] == [10 + 1, 11 + 2, 13 + 3, 16 + 4]


def test_closing_ends_the_wait_for_room(held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime) -> None:
    stream, _ = held
    stream.submit(toy_frame(2))
    stream.submit(toy_frame(3))
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(stream.submit, toy_frame(4))
        stream.close()
        with pytest.raises(StreamClosedError, match=r"^the stream is closed$"):
            submitting.result(PATIENCE_S)
    gated_runtime.gate.set()


def test_drop_oldest_drops_frames_that_wait_from_the_oldest_on_and_none_that_is_begun(
    held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime
) -> None:
    stream, running = held
    oldest, newer = stream.submit(toy_frame(2)), stream.submit(toy_frame(3))
    assert stream.drop_oldest() is oldest
    with pytest.raises(FrameDroppedError, match=r"^a newer frame took its place$"):
        oldest.result(PATIENCE_S)
    assert stream.drop_oldest() is newer
    assert stream.drop_oldest() is None
    newest = stream.submit(toy_frame(4))
    gated_runtime.gate.set()
    assert [label(running), label(newest)] == [10 + 1, 11 + 4]  # as if the dropped ones had never been


def test_a_frame_whose_answer_is_cancelled_is_skipped(
    held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime
) -> None:
    stream, running = held
    unwanted, wanted = stream.submit(toy_frame(2)), stream.submit(toy_frame(3))
    assert unwanted.cancel()
    assert not running.cancel()
    gated_runtime.gate.set()
    assert [label(running), label(wanted)] == [10 + 1, 11 + 3]


def test_a_cancelled_frame_can_be_dropped_and_its_stream_closed(
    held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime
) -> None:
    stream, running = held
    futures = [stream.submit(toy_frame(2)), stream.submit(toy_frame(3))]
    for future in futures:
        assert future.cancel()
    assert stream.drop_oldest() is futures[0]
    stream.close()
    gated_runtime.gate.set()
    assert label(running) == 10 + 1


def test_closing_gives_up_waiting_frames_and_answers_the_one_that_is_being_run(
    held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime
) -> None:
    stream, running = held
    waiting = [stream.submit(toy_frame(2)), stream.submit(toy_frame(3))]
    stream.close()
    for future in waiting:
        with pytest.raises(StreamClosedError, match=r"^the stream was closed$"):
            future.result(PATIENCE_S)
    gated_runtime.gate.set()
    assert label(running) == 10 + 1


def test_a_frame_that_was_encoded_and_not_answered_is_given_up(engine: Engine, gated_runtime: GatedRuntime) -> None:
    gated_runtime.gate.clear()
    stream = engine.open_stream()
    future = stream.submit(toy_frame(10))
    assert gated_runtime.arrivals.acquire(timeout=PATIENCE_S)
    stream.close()
    gated_runtime.gate.set()
    with pytest.raises(StreamClosedError):
        future.result(PATIENCE_S)
    assert label(engine.open_stream().submit(toy_frame(5))) == 10
    assert gated_runtime.runs == [("key", 1), ("key", 1), ("step", 1)]


def test_a_closed_stream_lets_go_of_its_frames_and_its_state(
    held: tuple[Stream, Future[StepResult]], engine: Engine, gated_runtime: GatedRuntime
) -> None:
    stream, running = held
    stream.submit(toy_frame(2))
    stream.close()
    gated_runtime.gate.set()
    assert label(running) == 10 + 1
    assert label(engine.open_stream().submit(toy_frame(5))) == 10  # the worker has left the first stream
    assert [stream.memory, stream.current, stream.encoded, stream.refresh] == [None] * 4
    assert not stream.waiting


def test_a_closed_stream_takes_nothing_and_may_be_closed_again(engine: Engine) -> None:
    with engine.open_stream() as stream:
        assert label(stream.submit(toy_frame(10))) == 20
    stream.close()
    assert stream.drop_oldest() is None
    with pytest.raises(StreamClosedError):
        stream.submit(toy_frame(1))
    with pytest.raises(StreamClosedError):
        stream.state()


def test_the_state_is_there_once_every_frame_is_answered_and_the_state_refreshed(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=2)
    assert stream.state() == {}
    states = []
    for value in (10, 20, 30):
        stream.submit(toy_frame(value))
        states.append({name: tensor.tolist() for name, tensor in stream.state().items()})
    assert states == [
        {"total": [[10]], "anchor": [[10]]},
        {"total": [[30]], "anchor": [[10]]},
        {"total": [[30]], "anchor": [[30]]},  # refreshed: 60 otherwise
    ]


def test_the_state_is_a_copy(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=NEVER)
    stream.submit(toy_frame(10))
    stream.state()["total"][:] = 99
    assert label(stream.submit(toy_frame(5))) == 15


def test_closing_ends_the_wait_for_the_state(
    held: tuple[Stream, Future[StepResult]], gated_runtime: GatedRuntime
) -> None:
    stream, _ = held
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(stream.state)
        with pytest.raises(TimeoutError):
            asking.result(timeout=0.1)
        stream.close()
        with pytest.raises(StreamClosedError):
            asking.result(PATIENCE_S)
    gated_runtime.gate.set()
