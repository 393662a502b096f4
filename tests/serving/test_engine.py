from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.bundle import Bundle, BundleError
from serving.engine import Engine, open_engine
from serving.errors import DeviceMemoryError, FrameFailedError, StreamClosedError, StreamLimitError
from serving.graphs import GraphRun
from serving.key_frames import Manual
from serving.results import StepResult
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.schedule import MAX_STEPS_BEFORE_KEY
from serving.stream import Stream
from tests.serving.conftest import KEY_POISON, SIZE, STEP_POISON, TOO_MUCH, FullDevice, GatedRuntime, toy_frame

PATIENCE_S = 20  # for what takes milliseconds
NEVER = 1000  # frames: a key-frame interval that no test reaches


class Answer(NamedTuple):
    """What the toy gives away about an answer: its label, and the values of the frames it was made from."""

    label: int
    age: int
    key_state: int  # the frame that the anchor of the state comes from
    previous_frame: int
    key_frame: int


def read(result: StepResult) -> Answer:
    (label,), (key_state,) = np.unique(result.labels), np.unique(result.confidence)
    previous_frame, key_frame = round(result.mean_confidence * 256), round(result.disagreement * 256)
    return Answer(int(label), result.key_frame_age, int(key_state), previous_frame, key_frame)


def segment(stream: Stream, value: int, *, force_key_frame: bool = False) -> StepResult:
    return stream.submit(toy_frame(value), force_key_frame=force_key_frame).result(PATIENCE_S)


def answers(stream: Stream, *values: int) -> list[Answer]:
    return [read(future.result(PATIENCE_S)) for future in [stream.submit(toy_frame(value)) for value in values]]


def refuse(stream: Stream, value: int, *, force_key_frame: bool = False) -> None:
    """Sends a frame on which the model fails."""
    with pytest.raises(FrameFailedError, match=r"^the model failed on this frame$"):
        segment(stream, value, force_key_frame=force_key_frame)


def hold(runtime: GatedRuntime, stream: Stream) -> Future[StepResult]:
    """Closes the gate and waits until the worker stands before it with this stream's next frame."""
    while runtime.arrivals.acquire(blocking=False):
        pass
    runtime.gate.clear()
    future = stream.submit(toy_frame(1))
    assert runtime.arrivals.acquire(timeout=PATIENCE_S)
    runtime.runs.clear()
    return future


# What a frame is answered from


def test_the_first_frame_is_its_own_key_frame_and_its_own_previous_frame(engine: Engine) -> None:
    assert answers(engine.open_stream(), 10) == [Answer(20, age=0, key_state=10, previous_frame=10, key_frame=10)]


def test_what_the_step_of_the_first_frame_leaves_is_discarded(engine: Engine) -> None:
    _, second = answers(engine.open_stream(), 10, 5)
    assert second == Answer(10 + 5, age=1, key_state=10, previous_frame=10, key_frame=10)


def test_with_interval_one_a_frame_is_answered_from_the_frame_before_it_and_then_refreshes_the_state(
    engine: Engine,
) -> None:
    assert answers(engine.open_stream(key_frame_interval=1), 10, 20, 30, 40) == [
        Answer(10 + 10, 0, 10, 10, 10),
        Answer(10 + 20, 1, 10, 10, 10),
        Answer(20 + 30, 1, 20, 20, 20),
        Answer(30 + 40, 1, 30, 30, 30),
    ]


def test_with_interval_three_the_state_is_propagated_and_every_third_frame_refreshes_it(engine: Engine) -> None:
    assert answers(engine.open_stream(key_frame_interval=3), 1, 2, 3, 4, 5, 6, 7, 8) == [
        Answer(1 + 1, 0, 1, 1, 1),
        Answer(1 + 2, 1, 1, 1, 1),
        Answer(1 + 2 + 3, 2, 1, 2, 1),
        Answer(1 + 2 + 3 + 4, 3, 1, 3, 1),
        Answer(4 + 5, 1, 4, 4, 4),
        Answer(4 + 5 + 6, 2, 4, 5, 4),
        Answer(4 + 5 + 6 + 7, 3, 4, 6, 4),
        Answer(7 + 8, 1, 7, 7, 7),
    ]


def test_a_result_says_whether_the_state_is_refreshed_from_its_frame(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=2)
    results = [segment(stream, value) for value in range(1, 6)]
    assert [result.refreshes_key for result in results] == [False, False, True, False, True]
    assert [result.is_key for result in results] == [True, False, True, False, True]


def test_a_forced_key_frame_forgets_the_past_and_the_interval_counts_from_it(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=3)
    assert answers(stream, 1, 2) == [Answer(2, 0, 1, 1, 1), Answer(3, 1, 1, 1, 1)]
    assert read(segment(stream, 3, force_key_frame=True)) == Answer(3 + 3, 0, 3, 3, 3)
    assert answers(stream, 4, 5, 6, 7) == [
        Answer(3 + 4, 1, 3, 3, 3),
        Answer(3 + 4 + 5, 2, 3, 4, 3),
        Answer(3 + 4 + 5 + 6, 3, 3, 5, 3),
        Answer(6 + 7, 1, 6, 6, 6),
    ]


def test_labels_are_the_models_pixel_by_pixel(engine: Engine) -> None:
    frame = np.random.default_rng(0).integers(0, 200, (SIZE, SIZE, 3), np.uint8)
    frame[0, 0] = 9, 8, 200  # the brightest channel is not the red one
    result = engine.open_stream().submit(frame).result(PATIENCE_S)
    assert result.labels.dtype == np.uint8
    assert np.array_equal(result.labels, (frame[..., 0].astype(int) + 200) % 251)


def test_a_policy_sees_the_result_and_decides_in_place_of_the_interval(engine: Engine) -> None:
    class WhenTheFrameBeforeWasBright:
        def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
            del frame
            return False

        def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
            assert stretch == 1
            assert not result.refreshes_key
            return result.mean_confidence > 0.5

    assert answers(engine.open_stream(policy=WhenTheFrameBeforeWasBright()), 10, 150, 5, 7) == [
        Answer(20, 0, 10, 10, 10),
        Answer(160, 1, 10, 10, 10),
        Answer(165, 2, 10, 150, 10),
        Answer(5 + 7, 1, 5, 5, 5),
    ]


class CutsAtBrightFrames(Manual):
    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        return bool(frame.max() > 99)


def test_a_frame_that_the_policy_calls_a_scene_cut_is_its_own_key_frame(engine: Engine) -> None:
    assert answers(engine.open_stream(policy=CutsAtBrightFrames()), 10, 20, 100, 7) == [
        Answer(20, 0, 10, 10, 10),
        Answer(30, 1, 10, 10, 10),
        Answer(200, 0, 100, 100, 100),
        Answer(107, 1, 100, 100, 100),
    ]


@pytest.mark.parametrize("is_cut", [False, True], ids=["forced", "cut"])
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["dropped", "cancelled"])
def test_a_key_frame_that_never_ran_leaves_its_duty_to_the_frame_after_it(
    engine: Engine, gated_runtime: GatedRuntime, is_cut: bool, is_cancelled: bool
) -> None:
    stream = engine.open_stream(policy=CutsAtBrightFrames())
    segment(stream, 10)
    begun = hold(gated_runtime, stream)
    doomed = stream.submit(toy_frame(100 if is_cut else 20), force_key_frame=not is_cut)
    later = [stream.submit(toy_frame(value)) for value in (7, 8)]
    if is_cancelled:
        assert doomed.cancel()
    else:
        assert stream.drop_oldest() is doomed
    gated_runtime.gate.set()
    assert read(begun.result(PATIENCE_S)).age == 1
    assert [read(future.result(PATIENCE_S)) for future in later] == [Answer(14, 0, 7, 7, 7), Answer(15, 1, 7, 7, 7)]


def test_key_time_is_that_of_a_frame_that_waited_for_its_own_key_run(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=1)
    first, second = segment(stream, 1), segment(stream, 2)
    third = segment(stream, 3, force_key_frame=True)
    assert first.timings.key_ms > 0
    assert second.timings.key_ms == 0
    assert third.timings.key_ms > 0
    for result in (first, second, third):
        assert result.timings.queue_ms >= 0
        assert result.timings.step_ms > 0


# What a failure leaves


@pytest.mark.parametrize("poison", [KEY_POISON, STEP_POISON])
def test_after_a_first_frame_that_failed_the_next_one_is_the_first(engine: Engine, poison: int) -> None:
    stream = engine.open_stream(key_frame_interval=NEVER)
    refuse(stream, poison)
    assert stream.state() == {}
    assert answers(stream, 10, 5) == [Answer(20, 0, 10, 10, 10), Answer(15, 1, 10, 10, 10)]


def test_after_a_frame_that_failed_the_stream_goes_on_from_the_state_before_it(engine: Engine) -> None:
    stream = engine.open_stream(key_frame_interval=NEVER)
    answers(stream, 10, 20)
    refuse(stream, STEP_POISON)
    assert answers(stream, 5, 6) == [Answer(10 + 20 + 5, 2, 10, 20, 10), Answer(10 + 20 + 5 + 6, 3, 10, 5, 10)]


@pytest.mark.parametrize("poison", [KEY_POISON, STEP_POISON])
def test_after_a_forced_key_frame_that_failed_the_stream_goes_on_from_the_state_before_it(
    engine: Engine, poison: int
) -> None:
    stream = engine.open_stream(key_frame_interval=NEVER)
    answers(stream, 10, 20)
    refuse(stream, poison, force_key_frame=True)
    assert answers(stream, 5) == [Answer(10 + 20 + 5, 2, 10, 20, 10)]


def test_after_a_key_refresh_that_failed_the_propagated_state_remains_and_the_next_frame_refreshes(
    engine: Engine,
) -> None:
    stream = engine.open_stream(key_frame_interval=1)
    assert answers(stream, 10, KEY_POISON) == [Answer(20, 0, 10, 10, 10), Answer(13, 1, 10, 10, 10)]  # 264 mod 251
    assert {name: tensor.item() for name, tensor in stream.state().items()} == {"total": 13, "anchor": 10}
    assert answers(stream, 5, 6) == [Answer(13 + 5, 2, 10, KEY_POISON, 10), Answer(5 + 6, 1, 5, 5, 5)]


# Batches


def test_equal_graphs_of_several_streams_run_in_one_batch(engine: Engine, gated_runtime: GatedRuntime) -> None:
    first, second, third = (engine.open_stream(key_frame_interval=NEVER) for _ in range(3))
    held = hold(gated_runtime, first)
    futures = [second.submit(toy_frame(20)), third.submit(toy_frame(30))]
    gated_runtime.gate.set()
    results = [future.result(PATIENCE_S) for future in (held, *futures)]
    # the second and the third wait for their key runs together, then for their steps
    assert gated_runtime.runs == [("step", 1), ("key", 2), ("step", 2)]
    assert [result.batch_size for result in results] == [1, 2, 2]
    assert [read(result).label for result in results] == [2, 40, 60]


def test_a_batch_is_no_larger_than_the_engine_was_told(engine: Engine, gated_runtime: GatedRuntime) -> None:
    streams = [engine.open_stream(key_frame_interval=NEVER) for _ in range(7)]
    for value, stream in enumerate(streams):
        segment(stream, value)
    hold(gated_runtime, streams[0])
    futures = [stream.submit(toy_frame(100)) for stream in streams[1:]]
    gated_runtime.gate.set()
    assert [read(future.result(PATIENCE_S)).label for future in futures] == [101, 102, 103, 104, 105, 106]
    assert gated_runtime.runs == [("step", 4), ("step", 2)]


@pytest.mark.parametrize(("graph", "poison"), [("key", KEY_POISON), ("step", STEP_POISON)])
def test_only_the_guilty_frame_of_a_batch_fails(
    engine: Engine, gated_runtime: GatedRuntime, graph: str, poison: int
) -> None:
    streams = [engine.open_stream(key_frame_interval=NEVER) for _ in range(4)]
    for stream in streams[: 4 if graph == "step" else 1]:
        segment(stream, 10)
    hold(gated_runtime, streams[0])
    futures = [stream.submit(toy_frame(value)) for stream, value in zip(streams[1:], (20, poison, 30), strict=True)]
    gated_runtime.gate.set()
    with pytest.raises(FrameFailedError):
        futures[1].result(PATIENCE_S)
    labels = [read(futures[index].result(PATIENCE_S)).label for index in (0, 2)]
    assert labels == ([20 + 10, 30 + 10] if graph == "step" else [20 + 20, 30 + 30])
    assert gated_runtime.runs[:4] == [(graph, 3), (graph, 1), (graph, 1), (graph, 1)]


def test_only_the_guilty_refresh_of_a_batch_fails(engine: Engine, gated_runtime: GatedRuntime) -> None:
    streams = [engine.open_stream(key_frame_interval=1) for _ in range(3)]
    for stream in streams:
        segment(stream, 10)
    hold(gated_runtime, streams[0])
    futures = [stream.submit(toy_frame(value)) for stream, value in zip(streams[1:], (20, KEY_POISON), strict=True)]
    gated_runtime.gate.set()
    assert [read(future.result(PATIENCE_S)).label for future in futures] == [30, 13]
    assert [answers(stream, 5)[0].label for stream in streams[1:]] == [20 + 5, 13 + 5]
    assert ("key", 3) in gated_runtime.runs


def test_no_stream_starves_while_others_keep_the_device_busy(toy_bundle: Bundle, gated_runtime: GatedRuntime) -> None:
    variant = toy_bundle.manifest.variants[0]
    with Engine(toy_bundle, variant, gated_runtime, max_streams=3, max_batch=1) as engine:
        busy = [engine.open_stream(key_frame_interval=NEVER, capacity=20) for _ in range(2)]
        for stream in busy:
            segment(stream, 1)
        hold(gated_runtime, busy[0])
        futures = [stream.submit(toy_frame(1)) for stream in busy for _ in range(20)]
        newcomer = engine.open_stream().submit(toy_frame(7))
        gated_runtime.gate.set()
        assert read(newcomer.result(PATIENCE_S)).label == 14
        for future in futures:
            future.result(PATIENCE_S)
        graphs = [graph for graph, _ in gated_runtime.runs]
        assert graphs.index("key") <= MAX_STEPS_BEFORE_KEY
        # a step before that frame's own, at most one for each of the others
        assert graphs.count("step") == len(futures) + 1


# Isolation


def clip(seed: int, num_frames: int = 12) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 250, (num_frames, SIZE, SIZE, 3), np.uint8)


def alone(engine: Engine, frames: NDArray[np.uint8], interval: int) -> list[StepResult]:
    with engine.open_stream(key_frame_interval=interval) as stream:
        return [stream.submit(frame).result(PATIENCE_S) for frame in frames]


def assert_same(found: Sequence[StepResult], expected: Sequence[StepResult]) -> None:
    for result, reference in zip(found, expected, strict=True):
        assert np.array_equal(result.labels, reference.labels)
        assert np.array_equal(result.confidence, reference.confidence)
        assert result.mean_confidence == reference.mean_confidence
        assert result.disagreement == reference.disagreement
        assert result.key_frame_age == reference.key_frame_age


@pytest.mark.parametrize("intervals", [(1, 1, 1), (3, 3, 3), (1, 2, 5)])
def test_streams_side_by_side_give_the_bits_that_each_gives_alone(
    engine: Engine, gated_runtime: GatedRuntime, intervals: tuple[int, ...]
) -> None:
    clips = [clip(seed) for seed in range(3)]
    expected = [alone(engine, frames, interval) for frames, interval in zip(clips, intervals, strict=True)]
    streams = [engine.open_stream(key_frame_interval=interval, capacity=12) for interval in intervals]
    hold(gated_runtime, engine.open_stream())
    futures = [[stream.submit(frame) for frame in frames] for stream, frames in zip(streams, clips, strict=True)]
    gated_runtime.gate.set()
    found = [[future.result(PATIENCE_S) for future in of_stream] for of_stream in futures]
    assert any(result.batch_size > 1 for result in found[0])
    for results, references in zip(found, expected, strict=True):
        assert_same(results, references)


@pytest.mark.parametrize("poison", [KEY_POISON, STEP_POISON])
def test_a_neighbour_that_fails_or_is_closed_changes_no_bit(
    engine: Engine, gated_runtime: GatedRuntime, poison: int
) -> None:
    frames = clip(0)
    expected = alone(engine, frames, 2)
    stream = engine.open_stream(key_frame_interval=2)
    failing = engine.open_stream(key_frame_interval=1)
    found = []
    for index, frame in enumerate(frames):
        closing = engine.open_stream()
        held = hold(gated_runtime, closing)
        closing.submit(toy_frame(3))
        neighbour = failing.submit(toy_frame(poison if index % 2 else 5))
        future = stream.submit(frame)
        closing.close()
        gated_runtime.gate.set()
        found.append(future.result(PATIENCE_S))
        for other in (neighbour, held):
            other.exception(PATIENCE_S)
    assert_same(found, expected)


def test_a_new_stream_knows_nothing_of_a_closed_one(engine: Engine) -> None:
    with engine.open_stream(key_frame_interval=NEVER) as stream:
        answers(stream, 100, 50)
    assert answers(engine.open_stream(key_frame_interval=NEVER), 10) == [Answer(20, 0, 10, 10, 10)]


# Streams come and go


def test_there_is_room_for_a_stated_number_of_streams_and_a_closed_one_makes_room(engine: Engine) -> None:
    streams = [engine.open_stream() for _ in range(engine.max_streams)]
    with pytest.raises(StreamLimitError, match=r"^all 8 streams of the model are taken: try again later$"):
        engine.open_stream()
    assert engine.num_streams == 8
    streams[3].close()
    assert engine.num_streams == 7
    assert answers(engine.open_stream(), 10)[0].label == 20


def test_an_interval_that_cannot_be_takes_no_room(engine: Engine) -> None:
    with pytest.raises(ValueError, match="the key-frame interval is 0: it must be 1 or more frames"):
        engine.open_stream(key_frame_interval=0)
    assert engine.num_streams == 0


def test_closing_the_engine_answers_every_frame_that_waits(engine: Engine, gated_runtime: GatedRuntime) -> None:
    running, waiting = engine.open_stream(key_frame_interval=NEVER), engine.open_stream()
    segment(running, 10)
    held = hold(gated_runtime, running)
    futures = [stream.submit(toy_frame(2)) for stream in (running, waiting, waiting)]
    closer = Thread(target=engine.close)
    closer.start()
    for future in futures:
        with pytest.raises(StreamClosedError):
            future.result(PATIENCE_S)
    gated_runtime.gate.set()
    closer.join(PATIENCE_S)
    assert not closer.is_alive()
    assert read(held.result(PATIENCE_S)).label == 11  # it was being run
    assert not engine.is_alive
    assert engine.num_streams == 0
    for stream in (running, waiting):
        with pytest.raises(StreamClosedError):
            stream.submit(toy_frame(1))
    with pytest.raises(StreamClosedError, match="the model is not served any more"):
        engine.open_stream()


def test_every_run_is_told(toy_bundle: Bundle) -> None:
    runs: list[GraphRun] = []
    variant = toy_bundle.manifest.variants[0]
    with Engine(toy_bundle, variant, OnnxRuntime("cpu", threads=1), observe=runs.append) as engine:
        stream = engine.open_stream(key_frame_interval=NEVER)
        segment(stream, 1)
        refuse(stream, STEP_POISON)
    assert [run[:3] for run in runs] == [("key", 1, 0), ("step", 1, 0), ("step", 1, 1)]
    assert all(run.seconds > 0 for run in runs)


def test_an_engine_that_meets_a_bug_stops_and_leaves_no_frame_unanswered(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(run: GraphRun) -> None:
        raise RuntimeError("nobody expected this")

    variant = toy_bundle.manifest.variants[0]
    with Engine(toy_bundle, variant, gated_runtime, observe=broken) as engine:
        stream, other = engine.open_stream(), engine.open_stream()
        futures = [hold(gated_runtime, stream), stream.submit(toy_frame(2)), other.submit(toy_frame(3))]
        gated_runtime.gate.set()
        for future in futures:
            with pytest.raises(StreamClosedError):
                future.result(PATIENCE_S)
        assert not engine.is_alive
        with pytest.raises(StreamClosedError):
            engine.open_stream()
    assert "the engine of toy stopped: this is a bug" in caplog.text
    assert "nobody expected this" in caplog.text


# Opening


def test_an_opened_engine_is_warm_and_answers(toy_folder: Path) -> None:
    runs: list[GraphRun] = []
    with open_engine(toy_folder, threads=1, size=(SIZE, SIZE), observe=runs.append) as engine:
        assert [run.graph for run in runs] == ["key", "step"]
        assert answers(engine.open_stream(), 10) == [Answer(20, 0, 10, 10, 10)]


@pytest.mark.parametrize(
    ("opening", "message"),
    [
        (lambda folder: open_engine(folder / "absent"), "there is no bundle at"),
        (lambda folder: open_engine(folder, precision="int8"), "'int8' picks 0 of them"),
        (lambda folder: open_engine(folder, size=(64, 128)), "'fp32 64x128' picks 0 of them"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    toy_folder: Path, opening: Callable[[Path], Engine], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        opening(toy_folder)


@pytest.mark.parametrize("force_key_frame", [False, True])
def test_a_device_without_memory_fails_the_frame_and_neither_the_stream_nor_its_neighbours(
    toy_bundle: Bundle, force_key_frame: bool
) -> None:
    runtime = FullDevice("cpu", threads=1)
    with Engine(toy_bundle, toy_bundle.manifest.variants[0], runtime, max_streams=2) as engine:
        stream, neighbour = engine.open_stream(key_frame_interval=99), engine.open_stream(key_frame_interval=99)
        for each in (stream, neighbour):
            assert each.submit(toy_frame(10)).result(PATIENCE_S).labels.max() == 20
        failing = stream.submit(toy_frame(TOO_MUCH), force_key_frame=force_key_frame)
        with pytest.raises(DeviceMemoryError, match=r"^the device has no memory left for this frame$"):
            failing.result(PATIENCE_S)
        for each in (stream, neighbour):
            result = each.submit(toy_frame(20)).result(PATIENCE_S)
            assert (result.labels.max(), result.key_frame_age) == (30, 1)  # from the state before


def test_a_first_frame_that_finds_no_memory_leaves_the_next_one_to_be_the_first(toy_bundle: Bundle) -> None:
    with Engine(toy_bundle, toy_bundle.manifest.variants[0], FullDevice("cpu", threads=1)) as engine:
        stream = engine.open_stream()
        with pytest.raises(DeviceMemoryError):
            stream.submit(toy_frame(TOO_MUCH)).result(PATIENCE_S)
        assert stream.submit(toy_frame(10)).result(PATIENCE_S).key_frame_age == 0
