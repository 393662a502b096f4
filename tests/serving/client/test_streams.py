"""Both clients against real servers: in another process, or here where a gate can hold the engine."""

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.bundle import Bundle
from serving.client import (
    AsyncSegmentationClient,
    AsyncVideoStream,
    CallError,
    Degraded,
    Frame,
    FrameLike,
    Latency,
    ManualKeyFrames,
    Outputs,
    SegmentationClient,
    StreamOptions,
    VideoStream,
)
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.client.streams import (
    EITHER,
    LOSSLESS,
    ONCE,
    Streamer,
    as_async,
    frames_of,
    label_of,
    options,
    serve_beside,
    stream_async,
    stream_blocking,
)
from tests.serving.conftest import (
    LIMITS,
    SIZE,
    STEP_POISON,
    GatedRuntime,
    LocalServer,
    ServerProcess,
    open_stub,
    served_model,
    start_server,
    toy_frame,
    wait_until,
)
from tests.serving.test_service_elastic import SlowRuntime


def open_streams(server: ServerProcess) -> int:
    with grpc.insecure_channel(server.address) as channel:
        return int(open_stub(channel).GetServerInfo(pb.GetServerInfoRequest()).num_streams)


def num_own_threads() -> int:
    """Without the one that gRPC keeps for asyncio and ends when it likes."""
    return sum("_poll_wrapper" not in thread.name for thread in threading.enumerate())


def outcomes(server: LocalServer, outcome: str) -> int:
    """Frames that the server counted."""
    prefix = f'flowseg_frames_total{{model="toy@1",outcome="{outcome}"}} '
    lines = server.metrics.text().decode().splitlines()
    return sum(int(float(line.removeprefix(prefix))) for line in lines if line.startswith(prefix))


# --- frames and answers ---------------------------------------------------------------------------------------------


@EITHER
def test_every_frame_comes_back_with_its_own_answer(toy_server: ServerProcess, stream: Streamer) -> None:
    sent = frames_of(10, 20, 30)
    streamed = stream(toy_server.address, sent)
    assert streamed.labels == [20, 30, 60]
    assert streamed.sequences == [0, 1, 2]
    assert all(answer.frame.image is frame for answer, frame in zip(streamed.answers, sent, strict=True))
    assert all(answer.error is None and answer.dropped is None for answer in streamed.answers)
    assert all(answer.latency_ms > 0 for answer in streamed.answers)
    assert (streamed.totals.frames, streamed.totals.results, streamed.totals.key_frames) == (3, 3, 1)


@EITHER
def test_a_video_without_frames_has_no_answers(toy_server: ServerProcess, stream: Streamer) -> None:
    streamed = stream(toy_server.address, [])
    assert (streamed.answers, streamed.events, streamed.error, streamed.totals.frames) == ([], [], None, 0)


def test_a_stream_knows_its_model_and_what_was_agreed_at_once(toy_server: ServerProcess) -> None:
    with SegmentationClient(toy_server.address) as client, client.stream(options(max_in_flight=3)) as stream:
        assert (stream.model.name, len(stream.model.classes)) == ("toy", 251)
        assert stream.started.max_in_flight == 3


def test_frames_from_an_asynchronous_source_are_read_in_its_loop(toy_server: ServerProcess) -> None:
    async def run() -> list[int | None]:
        async with AsyncSegmentationClient(toy_server.address) as client, client.stream(LOSSLESS) as stream:
            return [label_of(answer) async for answer in stream.segment(as_async(frames_of(10, 20, 30)))]

    assert asyncio.run(run()) == [20, 30, 60]


@EITHER
def test_a_frame_may_say_how_it_is_to_be_treated(toy_server: ServerProcess, stream: Streamer) -> None:
    frames: list[FrameLike] = [
        Frame(toy_frame(10), capture_time_us=5),
        toy_frame(20),
        Frame(toy_frame(30), force_key_frame=True),
    ]
    streamed = stream(toy_server.address, frames, options(key_frames=ManualKeyFrames()))
    assert streamed.labels == [20, 30, 60]  # totals 10, 10, 30
    assert [answer.result.capture_time_us for answer in streamed.answers if answer.result] == [5, 0, 0]
    assert streamed.totals.key_frames == 2


@EITHER
@pytest.mark.parametrize("label_encoding", ["png", "raw", "rle", "delta-rle"])
def test_labels_are_the_same_however_they_are_sent(
    toy_server: ServerProcess, stream: Streamer, label_encoding: str
) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:, : SIZE // 2] = 90
    frames = [image, toy_frame(7), image]
    outputs = Outputs(label_encoding=label_encoding)  # type: ignore[arg-type]  # one of them
    streamed = stream(toy_server.address, frames, options(outputs=outputs))
    for answer, frame, total in zip(streamed.answers, frames, (90, 90, 97), strict=True):
        assert answer.labels is not None
        assert np.array_equal(answer.labels, (frame[..., 0].astype(int) + total) % 251)


@pytest.mark.parametrize("encoding", ["png", "rgb", "jpeg", "nv12"])
def test_frames_keep_their_colours_on_the_way(toy_server: ServerProcess, encoding: str) -> None:
    """The toy's labels are the total, here the largest blue, and red."""
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    frame[:] = 10, 20, 200
    wanted = options(encoding=encoding, size=Size(SIZE, SIZE))
    (answer,) = stream_blocking(toy_server.address, [frame], wanted).answers
    assert answer.labels is not None
    assert np.abs(answer.labels.astype(int) - 210).max() <= (0 if encoding in ("png", "rgb") else 8)


def test_answers_hold_what_was_asked_for_in_the_size_that_was_asked_for(toy_server: ServerProcess) -> None:
    frame = np.full((30, 50, 3), 9, np.uint8)
    everything = Outputs(labels="model", confidence=True, overlay="png")
    (answer,) = stream_blocking(toy_server.address, [frame], options(outputs=everything)).answers
    assert answer.labels is not None
    assert answer.confidence is not None
    assert answer.overlay is not None
    assert (answer.labels.shape, answer.confidence.shape, answer.overlay.shape) == ((64, 64), (16, 16), (30, 50, 3))
    assert answer.confidence.max() == 9  # the toy's anchor
    # class 18 has the colour (18, 237, 9): half of it over half of the frame, away from the legend
    assert np.abs(answer.overlay[-1, -1].astype(int) - [14, 123, 9]).max() <= 1
    (answer,) = stream_blocking(toy_server.address, [frame]).answers
    assert answer.labels is not None
    assert answer.labels.shape == (30, 50)
    (answer,) = stream_blocking(toy_server.address, [frame], options(outputs=Outputs(labels="none"))).answers
    assert answer.result is not None
    assert (answer.labels, answer.confidence, answer.overlay) == (None, None, None)


@EITHER
def test_a_frame_without_a_result_comes_back_with_its_error(toy_server: ServerProcess, stream: Streamer) -> None:
    streamed = stream(toy_server.address, frames_of(10, STEP_POISON, 20))
    assert streamed.labels == [20, None, 30]
    assert streamed.answers[1].error == pb.FrameError(
        sequence=1, code=grpc.StatusCode.INTERNAL.value[0], message="the model failed on this frame"
    )
    assert (streamed.totals.results, streamed.totals.errors) == (2, 1)


# --- backpressure ---------------------------------------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize("delivery", ["drop-oldest", "latest-only"])
def test_frames_that_made_way_come_back_in_their_place(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, delivery: str, stream: Streamer
) -> None:
    with serve_beside(served_model(toy_bundle, gated_runtime)) as server:
        gated_runtime.gate.clear()

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            wait_until(lambda: len(gated_runtime.runs) == 3)  # two to warm up, and the first frame at the gate
            yield from frames_of(20, 30, 40, 50)
            wait_until(lambda: outcomes(server, "dropped") == 3)
            gated_runtime.gate.set()

        streamed = stream(server.address, source(), options(delivery=delivery, max_in_flight=2))
    assert streamed.sequences == [0, 1, 2, 3, 4]
    assert streamed.labels == [20, None, None, None, 60]
    reasons = [answer.dropped.reason for answer in streamed.answers if answer.dropped]
    assert reasons == [pb.DROP_REASON_SUPERSEDED] * 3
    assert (streamed.totals.results, streamed.totals.dropped) == (2, 3)


@EITHER
def test_no_more_frames_are_taken_from_the_video_than_may_be_in_flight(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, stream: Streamer
) -> None:
    """And one, which waits for room. The gate holds all answers until that many are taken."""
    taken: list[int] = []  # at each frame, how many had no result yet

    with serve_beside(served_model(toy_bundle, gated_runtime)) as server, ThreadPoolExecutor(1) as pool:
        gated_runtime.gate.clear()

        def source() -> Iterator[NDArray[np.uint8]]:
            for index in range(20):
                taken.append(index + 1 - outcomes(server, "result"))
                yield toy_frame(index)

        streamed = pool.submit(stream, server.address, source(), options(max_in_flight=3))
        wait_until(lambda: len(taken) == 4)
        gated_runtime.gate.set()
        assert streamed.result().sequences == list(range(20))
    assert max(taken) == 4


def test_a_late_frame_is_dropped_by_its_own_deadline_and_by_that_of_the_stream(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    with serve_beside(served_model(toy_bundle, gated_runtime)) as server:
        for frame, max_age_ms in ((Frame(toy_frame(20), deadline_ms=1), 0), (Frame(toy_frame(20)), 1)):
            gated_runtime.gate.clear()
            num_runs = len(gated_runtime.runs)

            def source(frame: Frame = frame, num_runs: int = num_runs) -> Iterator[Frame]:
                yield Frame(toy_frame(10), deadline_ms=30_000)
                wait_until(lambda: len(gated_runtime.runs) > num_runs)
                yield frame
                time.sleep(0.1)  # of which the deadline is a hundredth
                gated_runtime.gate.set()

            streamed = stream_blocking(server.address, source(), options(max_age_ms=max_age_ms))
            dropped = streamed.answers[1].dropped
            assert dropped is not None
            assert dropped.reason == pb.DROP_REASON_DEADLINE


def test_an_objective_reaches_the_server(toy_server: ServerProcess) -> None:
    """It could not be held: an hour and a bit is refused."""
    with pytest.raises(CallError, match=r"config\.latency\.target_ms"):
        stream_blocking(toy_server.address, [], options(latency=Latency(target_ms=3_600_001)))
    held = Latency(target_ms=60_000, max_key_frame_interval=9, may_skip_steps=True, may_drop_frames=True)
    assert stream_blocking(toy_server.address, frames_of(10), options(latency=held)).labels == [20]
    assert options(latency=held).message().latency == pb.LatencyObjective(
        target_ms=60_000, max_key_frame_interval=9, may_skip_steps=True, may_drop_frames=True
    )


# --- ends -----------------------------------------------------------------------------------------------------------


@EITHER
def test_a_source_that_fails_is_heard_once_its_frames_are_answered(toy_server: ServerProcess, stream: Streamer) -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        yield from frames_of(10, 20)
        raise OSError("the camera fell down")

    streamed = stream(toy_server.address, source())
    assert isinstance(streamed.error, OSError)
    assert str(streamed.error) == "the camera fell down"
    assert streamed.labels == [20, 30]


@EITHER
def test_what_is_no_image_is_refused_with_its_shape(toy_server: ServerProcess, stream: Streamer) -> None:
    streamed = stream(toy_server.address, [toy_frame(1), np.zeros((4, 4), np.uint8)])
    assert isinstance(streamed.error, ValueError)
    assert str(streamed.error) == "frame is uint8 of shape (4, 4), send uint8 of shape (height, width, 3), RGB"
    assert streamed.labels == [2]


def test_who_stops_early_frees_the_slot_and_leaves_no_thread(toy_folder: Path, tmp_path: Path) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield toy_frame(1)

    async def stop_early(address: str) -> None:
        async with AsyncSegmentationClient(address) as client, client.stream(LOSSLESS) as stream:
            async for answer in stream.segment(endless()):
                assert label_of(answer) == 2
                break

    with start_server(tmp_path / "log", str(toy_folder), "--max-streams", "1") as server:
        num_threads = num_own_threads()
        with SegmentationClient(server.address) as client, client.stream(LOSSLESS) as stream:
            answers = stream.segment(endless())
            assert [label_of(next(answers)), label_of(next(answers))] == [2, 2]
        wait_until(lambda: open_streams(server) == 0)
        wait_until(lambda: num_own_threads() <= num_threads)
        asyncio.run(stop_early(server.address))
        wait_until(lambda: open_streams(server) == 0)
        assert stream_blocking(server.address, frames_of(3)).labels == [6]
        assert "Traceback" not in server.log.read_text()


@EITHER
def test_a_refused_stream_says_why_and_leaves_no_thread(toy_server: ServerProcess, stream: Streamer) -> None:
    num_threads = num_own_threads()
    for _ in range(3):
        with pytest.raises(CallError) as refused:
            stream(toy_server.address, [], options(model="dog"))
        assert refused.value.code == grpc.StatusCode.NOT_FOUND
        assert str(refused.value) == (
            "the server ended the call with NOT_FOUND: there is no model 'dog': this server has toy@1"
        )
    with pytest.raises(CallError, match=r"config\.delivery\.max_in_flight: 65 is not within 1\.\.64"):
        stream(toy_server.address, [], options(max_in_flight=65))
    wait_until(lambda: num_own_threads() <= num_threads)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (StreamOptions(max_in_flight=0), "max_in_flight must be 1 or more, it is 0"),
        (StreamOptions(max_in_flight=1, delivery="drop-oldest"), "max_in_flight must be 2 or more, it is 1"),
        (StreamOptions(encoding="rgb"), "rgb frames do not tell their size: give it"),
        (StreamOptions(encoding="nv12", size=Size(3, 4)), "raw NV12 takes even widths and heights, not 3x4"),
    ],
)
def test_options_that_cannot_work_are_refused_before_any_call(wrong: StreamOptions, sentence: str) -> None:
    with SegmentationClient("127.0.0.1:1") as client, pytest.raises(ValueError, match=sentence):
        client.stream(wrong)


@EITHER
def test_what_was_answered_before_the_server_ended_the_stream_is_kept(toy_bundle: Bundle, stream: Streamer) -> None:
    limits = replace(LIMITS, max_consecutive_errors=2)
    with serve_beside(served_model(toy_bundle), limits) as server:
        streamed = stream(server.address, frames_of(10, STEP_POISON, STEP_POISON), retry=ONCE)
    assert isinstance(streamed.error, CallError)
    assert "2 frames in a row had no result" in str(streamed.error)
    assert streamed.error.code == grpc.StatusCode.INTERNAL
    assert streamed.labels == [20, None, None]
    assert (streamed.totals.frames, streamed.totals.results, streamed.totals.errors) == (3, 1, 2)


@EITHER
def test_a_frame_too_large_ends_the_stream_and_is_not_tried_again(toy_bundle: Bundle, stream: Streamer) -> None:
    large = np.zeros((700, 700, 3), np.uint8)
    with serve_beside(served_model(toy_bundle)) as server:
        streamed = stream(server.address, [large] * 3, options(encoding="rgb", size=Size(700, 700)))
    assert isinstance(streamed.error, CallError)
    assert streamed.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "frame has 1470000 bytes, at most 1000000 are taken: send it smaller" in str(streamed.error)
    assert streamed.events == []  # it was one call


def test_the_asynchronous_client_hears_the_server_out_though_the_call_ends_while_it_writes(toy_bundle: Bundle) -> None:
    """grpc.aio puts a status of its own in the place of the server's, nearly each time."""
    large = np.zeros((700, 700, 3), np.uint8)
    with serve_beside(served_model(toy_bundle)) as server:
        for _ in range(10):
            streamed = stream_async(server.address, [large] * 8, options(encoding="rgb", size=Size(700, 700)))
            assert "at most 1000000 are taken" in str(streamed.error)
            assert streamed.events == []


# --- what the server tells beside answers ---------------------------------------------------------------------------


@EITHER
def test_a_server_that_cannot_hold_an_objective_tells_what_it_gives_up(toy_bundle: Bundle, stream: Streamer) -> None:
    runtime = SlowRuntime()
    with serve_beside(served_model(toy_bundle, runtime)) as server:
        runtime.seconds = 0.02
        streamed = stream(
            server.address, frames_of(*[1] * 60), options(latency=Latency(target_ms=5, may_skip_steps=True))
        )
    assert streamed.error is None
    levels = [event.level for event in streamed.events if isinstance(event, Degraded)]
    assert levels[:4] == [1, 2, 3, 4]
    assert 0 < streamed.totals.held < streamed.totals.results == 60


# --- calls of one message -------------------------------------------------------------------------------------------


def test_both_clients_segment_an_image_and_tell_of_models_and_server(toy_server: ServerProcess) -> None:
    with SegmentationClient(toy_server.address) as client:
        blocking = (client.segment_image(toy_frame(10)), client.models(), client.server_info())
        with pytest.raises(CallError, match="NOT_FOUND"):
            client.segment_image(toy_frame(10), model="dog")
        with pytest.raises(ValueError, match="frame is uint8 of shape"):
            client.segment_image(np.zeros((4, 4), np.uint8))
        with pytest.raises(ValueError, match="NV12 takes even"):
            client.segment_image(np.zeros((3, 4, 3), np.uint8), encoding="nv12")
        assert client.segment_image(toy_frame(10), outputs=Outputs(labels="none")).labels is None

    async def run() -> tuple[object, ...]:
        async with AsyncSegmentationClient(toy_server.address) as client:
            return await client.segment_image(toy_frame(10)), await client.models(), await client.server_info()

    answer, models, info = blocking
    assert answer.labels is not None
    assert int(answer.labels.max()) == 20
    assert [model.name for model in models] == ["toy"]
    assert info.limits.max_in_flight == 64
    again, models_again, info_again = asyncio.run(run())
    assert np.array_equal(again.labels, answer.labels)  # type: ignore[attr-defined]  # an ImageAnswer
    assert (models_again, info_again) == (models, info)


@pytest.mark.parametrize(
    ("blocking", "asynchronous"), [(SegmentationClient, AsyncSegmentationClient), (VideoStream, AsyncVideoStream)]
)
def test_both_clients_offer_the_same(blocking: type, asynchronous: type) -> None:
    def offered(kind: type) -> dict[str, list[str]]:
        methods = {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}
        return {
            name: list(inspect.signature(member).parameters) for name, member in methods.items() if callable(member)
        }

    assert offered(blocking) == offered(asynchronous)


def test_both_clients_give_the_same(toy_server: ServerProcess) -> None:
    results = [stream(toy_server.address, frames_of(1, 2, 3, 4)) for stream in (stream_blocking, stream_async)]
    assert results[0].labels == results[1].labels
    assert results[0].totals == results[1].totals
