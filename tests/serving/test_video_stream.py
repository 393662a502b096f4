"""The client's side of a stream, against real servers: in another process, or here where a gate can hold the engine."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.bundle import Bundle
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png
from serving.messages import Limits
from serving.models import ServedModel
from serving.video_stream import FrameAnswer, StreamError, StreamOptions, VideoStream, stream_video
from tests.serving.conftest import (
    LIMITS,
    SIZE,
    STEP_POISON,
    GatedRuntime,
    LocalServer,
    ServerProcess,
    open_stub,
    serve_here,
    served_model,
    start_server,
    toy_frame,
    wait_until,
)
from tests.serving.conversations import label

ALL_FRAMES = 1000  # as key-frame interval: more than any test sends


@contextlib.contextmanager
def serve_beside(model: ServedModel, limits: Limits = LIMITS) -> Iterator[LocalServer]:
    """A server on a thread of its own, since these clients block."""
    ready: Future[tuple[LocalServer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        done = asyncio.Event()
        async with serve_here(model, limits=limits) as server:
            ready.set_result((server, asyncio.get_running_loop(), done))
            await done.wait()

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(asyncio.run, serve())
        server, loop, done = ready.result()
        try:
            yield server
        finally:
            loop.call_soon_threadsafe(done.set)
        served.result()


def options(server: LocalServer | ServerProcess, **fields: object) -> StreamOptions:
    """Frames arrive as they were sent, and no refresh hides the state."""
    lossless = StreamOptions(server=server.address, encoding="png", key_frame_interval=ALL_FRAMES)
    return replace(lossless, **fields)  # type: ignore[arg-type]  # fields by name


def frames(*values: int) -> list[NDArray[np.uint8]]:
    return [toy_frame(value) for value in values]


def labels(answers: Iterable[FrameAnswer]) -> list[int | None]:
    return [None if answer.result is None else label(answer.result) for answer in answers]


def open_streams(server: ServerProcess) -> int:
    with grpc.insecure_channel(server.address) as channel:
        return int(open_stub(channel).GetServerInfo(pb.GetServerInfoRequest()).num_streams)


def outcomes(server: LocalServer, outcome: str) -> int:
    """Frames that the server counted."""
    prefix = f'flowseg_frames_total{{model="toy@1",outcome="{outcome}"}} '
    lines = server.metrics.text().decode().splitlines()
    return sum(int(float(line.removeprefix(prefix))) for line in lines if line.startswith(prefix))


def test_every_frame_comes_back_with_its_own_answer(toy_server: ServerProcess) -> None:
    sent = frames(10, 20, 30)
    answers = list(stream_video(sent, options(toy_server)))
    assert labels(answers) == [20, 30, 60]
    assert [answer.sequence for answer in answers] == [0, 1, 2]
    assert all(answer.frame is frame for answer, frame in zip(answers, sent, strict=True))
    assert all(answer.error is None and answer.latency_ms > 0 for answer in answers)


def test_a_stream_knows_its_model_at_once_and_its_totals_at_the_end(toy_server: ServerProcess) -> None:
    with VideoStream(options(toy_server, key_frame_interval=2)) as stream:
        assert (stream.model.name, len(stream.model.classes)) == ("toy", 251)
        # the third frame renews the key state
        assert labels(stream.segment(frames(10, 20, 30, 40))) == [20, 30, 60, 70]
        assert stream.summary == pb.StreamSummary(num_frames=4, num_results=4, num_key_frames=2)
        assert stream.notices == []


def test_a_video_without_frames_has_no_answers(toy_server: ServerProcess) -> None:
    with VideoStream(options(toy_server)) as stream:
        assert list(stream.segment([])) == []
        assert stream.summary == pb.StreamSummary()


def test_label_maps_have_the_size_that_was_asked_for(toy_server: ServerProcess) -> None:
    frame = np.full((30, 50, 3), 9, np.uint8)
    for wanted, shape in (("native", (30, 50)), ("model", (SIZE, SIZE))):
        (answer,) = stream_video([frame], options(toy_server, labels=wanted))
        assert answer.result is not None
        assert np.array_equal(decode_png(answer.result.labels.data), np.full(shape, 18))
    (answer,) = stream_video([frame], options(toy_server, labels="none"))
    assert answer.result is not None
    assert not answer.result.HasField("labels")


def test_frames_keep_their_colours_on_the_way(toy_server: ServerProcess) -> None:
    """The toy's labels are the total, here the largest blue, and red."""
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    frame[:] = 10, 20, 200
    for encoding in ("png", "jpeg"):
        (answer,) = stream_video([frame], options(toy_server, encoding=encoding))
        assert answer.result is not None
        found = decode_png(answer.result.labels.data).astype(int)
        assert np.abs(found - 210).max() <= (0 if encoding == "png" else 8)


def test_a_frame_without_a_result_comes_back_with_its_error(toy_server: ServerProcess) -> None:
    answers = list(stream_video(frames(10, STEP_POISON, 20), options(toy_server)))
    assert labels(answers) == [20, None, 30]
    assert answers[1].error == pb.FrameError(
        sequence=1, code=grpc.StatusCode.INTERNAL.value[0], message="the model failed on this frame"
    )


@pytest.mark.parametrize("delivery", ["drop-oldest", "latest-only"])
def test_frames_that_made_way_come_back_in_their_place(
    toy_bundle: Bundle, gated_runtime: GatedRuntime, delivery: str
) -> None:
    with serve_beside(served_model(toy_bundle, gated_runtime)) as server:
        gated_runtime.gate.clear()

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            wait_until(lambda: len(gated_runtime.runs) == 3)  # two to warm up, and the first frame at the gate
            yield from frames(20, 30, 40, 50)
            wait_until(lambda: outcomes(server, "dropped") == 3)
            gated_runtime.gate.set()

        with VideoStream(options(server, delivery=delivery, max_in_flight=2)) as stream:
            answers = list(stream.segment(source()))
            assert stream.summary == pb.StreamSummary(num_frames=5, num_results=2, num_dropped=3, num_key_frames=1)
    assert [answer.sequence for answer in answers] == [0, 1, 2, 3, 4]
    assert labels(answers) == [20, None, None, None, 60]
    assert all(answer.error is None for answer in answers)


def test_no_more_frames_are_taken_from_the_video_than_may_be_in_flight(
    toy_bundle: Bundle, gated_runtime: GatedRuntime
) -> None:
    """And one, which waits for room. The gate holds all answers until that many are taken."""
    taken: list[int] = []  # at each frame, how many had no result yet

    with serve_beside(served_model(toy_bundle, gated_runtime)) as server, ThreadPoolExecutor(1) as pool:
        gated_runtime.gate.clear()

        def source() -> Iterator[NDArray[np.uint8]]:
            for index in range(20):
                taken.append(index + 1 - outcomes(server, "result"))
                yield toy_frame(index)

        with VideoStream(options(server, max_in_flight=3)) as stream:
            answers = pool.submit(lambda: list(stream.segment(source())))
            wait_until(lambda: len(taken) == 4)
            gated_runtime.gate.set()
            assert [answer.sequence for answer in answers.result()] == list(range(20))
    assert max(taken) == 4


def test_a_source_that_fails_is_heard_once_its_frames_are_answered(toy_server: ServerProcess) -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        yield from frames(10, 20)
        raise OSError("the camera fell down")

    answers = []
    with pytest.raises(OSError, match="the camera fell down"):  # noqa: PT012  # what came before counts
        for answer in stream_video(source(), options(toy_server)):
            answers.append(answer)  # noqa: PERF402  # a list that fails keeps nothing
    assert labels(answers) == [20, 30]


def test_who_stops_early_frees_the_slot_and_leaves_no_thread(toy_folder: Path, tmp_path: Path) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield toy_frame(1)

    with start_server(tmp_path / "log", str(toy_folder), "--max-streams", "1") as server:
        num_threads = threading.active_count()
        with VideoStream(options(server)) as stream:
            answers = stream.segment(endless())
            assert labels([next(answers), next(answers)]) == [2, 2]
        wait_until(lambda: open_streams(server) == 0)
        wait_until(lambda: threading.active_count() <= num_threads)
        assert labels(stream_video(frames(3), options(server))) == [6]
        assert "Traceback" not in server.log.read_text()


def test_a_refused_stream_says_why_and_leaves_no_thread(toy_server: ServerProcess) -> None:
    num_threads = threading.active_count()
    for _ in range(3):
        with pytest.raises(StreamError) as refused:
            VideoStream(options(toy_server, model="dog"))
        assert refused.value.code == grpc.StatusCode.NOT_FOUND
        assert str(refused.value) == (
            "the server ended the stream with NOT_FOUND: there is no model 'dog': this server has toy@1"
        )
    with pytest.raises(StreamError, match=r"config\.delivery\.max_in_flight: 65 is not within 1\.\.64"):
        VideoStream(options(toy_server, max_in_flight=65))
    wait_until(lambda: threading.active_count() <= num_threads)


def test_a_server_that_is_not_there_is_missed_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    num_threads = threading.active_count()
    with pytest.raises(StreamError) as missed:
        VideoStream(StreamOptions(server=address, connect_timeout_s=0.1))
    assert missed.value.code == grpc.StatusCode.UNAVAILABLE
    assert str(missed.value) == (f"no server answers at {address}: start one with 'python -m serving.server BUNDLE'")
    wait_until(lambda: threading.active_count() <= num_threads)


def test_what_was_answered_before_the_server_ended_the_stream_is_kept(toy_bundle: Bundle) -> None:
    limits = replace(LIMITS, max_consecutive_errors=2)
    answers = []
    with serve_beside(served_model(toy_bundle), limits) as server:
        with (  # noqa: PT012  # what came before counts
            VideoStream(options(server)) as stream,
            pytest.raises(StreamError, match="2 frames in a row had no result") as ended,
        ):
            for answer in stream.segment(frames(10, STEP_POISON, STEP_POISON)):
                answers.append(answer)  # noqa: PERF402  # a list that fails keeps nothing
        assert stream.summary == pb.StreamSummary(num_frames=3, num_results=1, num_errors=2, num_key_frames=1)
    assert ended.value.code == grpc.StatusCode.INTERNAL
    assert labels(answers) == [20, None, None]


def test_a_server_that_dies_ends_the_stream_in_one_sentence(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server:

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            server.process.kill()
            server.process.wait()
            while True:
                yield toy_frame(20)

        with pytest.raises(StreamError) as ended:
            list(stream_video(source(), options(server, max_in_flight=2)))
    assert ended.value.code == grpc.StatusCode.UNAVAILABLE
    assert str(ended.value).startswith("the server ended the stream with UNAVAILABLE: ")
    assert "\n" not in str(ended.value)


def test_a_server_that_shuts_down_is_noticed(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server, VideoStream(options(server)) as stream:

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            server.process.terminate()
            wait_until(lambda: bool(stream.notices))
            yield toy_frame(20)

        assert labels(stream.segment(source())) == [20, 30]
        (notice,) = stream.notices
        assert (notice.kind, notice.grace_ms) == (pb.NOTICE_KIND_DRAINING, 10_000)
