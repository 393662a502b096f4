from collections.abc import Callable, Sequence
from threading import Condition

import pytest

from serving.key_frames import FixedInterval
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.schedule import MAX_STEPS_BEFORE_KEY, MAX_STEPS_BEFORE_REFRESH, Batch, Schedule
from serving.stream import Memory, Stream
from tests.serving.conftest import SIZE, toy_frame

CHANGED = Condition()  # the engine's


def new_stream() -> Stream:
    return Stream(
        changed=CHANGED,
        runtime=OnnxRuntime("cpu"),
        frame_shape=(SIZE, SIZE, 3),
        policy=FixedInterval(1),
        capacity=100,
        forget=lambda stream: None,
    )


def waiting_for_key(num_frames: int = 1) -> Stream:
    stream = new_stream()
    for _ in range(num_frames):
        stream.submit(toy_frame(1))
    return stream


def waiting_for_step(num_frames: int = 1) -> Stream:
    stream = waiting_for_key(num_frames)
    stream.memory = Memory(state={}, previous_frame=0, key_frame=0, age=1)
    return stream


def waiting_for_refresh() -> Stream:
    stream = new_stream()
    stream.refresh = toy_frame(1)
    return stream


def choose(schedule: Schedule, streams: Sequence[Stream]) -> Batch | None:
    with CHANGED:
        return schedule.choose(streams)


def run(schedule: Schedule, streams: Sequence[Stream]) -> Batch:
    """Chooses a batch and does as if it had been run."""
    batch = choose(schedule, streams)
    assert batch is not None
    for stream in batch.streams:
        stream.is_running = False
        if batch.graph == "step":
            stream.finish_current()
        elif stream.refresh is not None:
            stream.refresh = None
        else:
            stream.encoded = Memory(state={}, previous_frame=0, key_frame=0, age=0)
    return batch


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(max_key_batch=2, max_step_batch=3)


def test_without_work_there_is_no_batch(schedule: Schedule) -> None:
    assert choose(schedule, []) is None
    assert choose(schedule, [new_stream(), new_stream()]) is None


def test_a_first_frame_goes_through_the_key_graph_and_then_through_the_step_graph(schedule: Schedule) -> None:
    stream = waiting_for_key()
    assert run(schedule, [stream]) == Batch("key", [stream])
    assert run(schedule, [stream]) == Batch("step", [stream])
    assert choose(schedule, [stream]) is None


def test_a_stream_that_runs_is_left_alone(schedule: Schedule) -> None:
    stream = waiting_for_step(2)
    assert choose(schedule, [stream]) == Batch("step", [stream])
    assert stream.is_running
    assert choose(schedule, [stream]) is None


def test_steps_go_before_key_runs(schedule: Schedule) -> None:
    key, step = waiting_for_key(), waiting_for_step()
    assert run(schedule, [key, step]) == Batch("step", [step])
    assert run(schedule, [key, step]) == Batch("key", [key])


def test_a_refresh_comes_before_the_next_step_of_its_stream(schedule: Schedule) -> None:
    stream = waiting_for_step()
    stream.refresh = toy_frame(1)
    assert [run(schedule, [stream]).graph for _ in range(2)] == ["key", "step"]


def test_a_key_run_that_a_frame_waits_for_goes_before_one_that_no_frame_waits_for(schedule: Schedule) -> None:
    refresh, first, second = waiting_for_refresh(), waiting_for_key(), waiting_for_key()
    assert run(schedule, [refresh, first, second]) == Batch("key", [first, second])


@pytest.mark.parametrize(
    ("waits", "most"),
    [(waiting_for_key, MAX_STEPS_BEFORE_KEY), (waiting_for_refresh, MAX_STEPS_BEFORE_REFRESH)],
)
def test_no_more_than_a_stated_number_of_step_batches_go_before_a_key_run(
    schedule: Schedule, waits: Callable[[], Stream], most: int
) -> None:
    busy, key = waiting_for_step(num_frames=50), waits()
    assert [run(schedule, [busy, key]).graph for _ in range(most + 1)] == ["step"] * most + ["key"]


def test_after_a_key_run_steps_have_their_turns_again(schedule: Schedule) -> None:
    busy = waiting_for_step(num_frames=50)
    keys = [waiting_for_key() for _ in range(4)]
    for key in keys:
        key.submit(toy_frame(1))
    first = run(schedule, keys)
    assert first == Batch("key", keys[:2])
    graphs = [run(schedule, [busy, *keys[2:]]).graph for _ in range(MAX_STEPS_BEFORE_KEY + 1)]
    assert graphs == ["step"] * MAX_STEPS_BEFORE_KEY + ["key"]


def test_a_batch_is_no_larger_than_its_bound(schedule: Schedule) -> None:
    steps = [waiting_for_step() for _ in range(5)]
    keys = [waiting_for_key() for _ in range(5)]
    assert run(schedule, steps).streams == steps[:3]
    assert run(schedule, keys).streams == keys[:2]


def test_who_waited_longest_goes_first(schedule: Schedule) -> None:
    streams = [waiting_for_step(num_frames=10) for _ in range(4)]
    chosen = [[streams.index(stream) for stream in run(schedule, streams).streams] for _ in range(4)]
    assert chosen == [[0, 1, 2], [3, 0, 1], [2, 3, 0], [1, 2, 3]]
