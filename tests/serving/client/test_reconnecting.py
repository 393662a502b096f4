"""Streams that go on after a network that broke, a server that died, and one that shut down."""

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    ConnectionLost,
    Draining,
    Outputs,
    Reconnected,
    Retry,
    SegmentationClient,
    StreamEvent,
)
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from tests.serving.client.streams import (
    EITHER,
    IMPATIENT,
    LOSSLESS,
    ONCE,
    Streamer,
    frames_of,
    label_of,
    options,
    serve_beside,
    stream_blocking,
)
from tests.serving.client.tcp_proxy import proxy_of
from tests.serving.conftest import ServerProcess, open_admin_stub, served_model, start_server, toy_frame

VALUES = [10, 20, 30, 40, 50, 60]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def expected(stream: Streamer, server: str) -> list[int | None]:
    """The labels of an undisturbed stream."""
    undisturbed = stream(server, frames_of(*VALUES))
    assert undisturbed.events == []
    return undisturbed.labels


@EITHER
def test_a_stream_goes_on_with_its_state_when_the_network_breaks(toy_bundle: Bundle, stream: Streamer) -> None:
    """Every frame is answered before the cut, so the toy's totals are those of an undisturbed stream."""
    with serve_beside(served_model(toy_bundle)) as server, proxy_of(server.address) as proxy:
        num_answers = 0

        def source() -> Iterator[NDArray[np.uint8]]:
            for index, value in enumerate(VALUES):
                while num_answers < index:
                    time.sleep(0.001)
                if index in (2, 4):
                    proxy.cut()
                yield toy_frame(value)

        def count(_: object) -> None:
            nonlocal num_answers
            num_answers += 1

        streamed = stream(proxy.address, source(), on_answer=count)
        assert streamed.error is None
        assert streamed.labels == expected(stream, server.address)
    assert streamed.sequences == list(range(6))
    reconnections = [event for event in streamed.events if isinstance(event, Reconnected)]
    assert [event.has_state for event in reconnections] == [True, True]
    assert (streamed.totals.frames, streamed.totals.key_frames, streamed.totals.reconnects) == (6, 1, 2)


@EITHER
@pytest.mark.parametrize("encoding", ["png", "delta-rle"])
def test_frames_under_way_when_the_network_breaks_have_one_answer_each(
    toy_bundle: Bundle, stream: Streamer, encoding: str
) -> None:
    """What is answered twice by the server counts twice in the toy's total: its labels only tell that they decode."""
    with serve_beside(served_model(toy_bundle)) as server, proxy_of(server.address) as proxy:

        def source() -> Iterator[NDArray[np.uint8]]:
            for index in range(60):
                if index % 15 == 10:
                    proxy.cut()
                yield toy_frame(1 + index)

        outputs = Outputs(label_encoding=encoding)  # type: ignore[arg-type]  # one of them
        streamed = stream(proxy.address, source(), options(outputs=outputs))
    assert streamed.error is None
    assert streamed.sequences == list(range(60))
    assert None not in streamed.labels
    assert streamed.totals.frames == streamed.totals.results == 60
    assert streamed.totals.reconnects >= 1


@EITHER
def test_a_server_that_is_killed_and_started_again_goes_on_with_a_key_frame(
    toy_folder: Path, tmp_path: Path, stream: Streamer
) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(start_server(tmp_path / "first", str(toy_folder), port=port))
        num_answers = 0

        def source() -> Iterator[NDArray[np.uint8]]:
            yield from frames_of(*VALUES[:3])
            while num_answers < 3:
                time.sleep(0.001)
            first.process.kill()
            first.process.wait()
            yield from frames_of(*VALUES[3:5])
            stack.enter_context(start_server(tmp_path / "second", str(toy_folder), port=port))
            yield from frames_of(*VALUES[5:])

        def count(_: object) -> None:
            nonlocal num_answers
            num_answers += 1

        streamed = stream(f"127.0.0.1:{port}", source(), on_answer=count)
    assert streamed.error is None
    # totals 10, 10, 30; then from the key frame: 40, 40, 90
    assert streamed.labels == [20, 30, 60, 80, 90, 150]
    assert [event.has_state for event in streamed.events if isinstance(event, Reconnected)] == [False]
    assert streamed.totals.key_frames == 2


@EITHER
def test_a_stream_moves_from_a_server_that_drains_to_the_next_one(
    toy_folder: Path, tmp_path: Path, stream: Streamer
) -> None:
    """It takes the answers under way, half-closes, and goes on when the next server is there."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(start_server(tmp_path / "first", str(toy_folder), port=port))
        num_answers = 0

        def count(_: object) -> None:
            nonlocal num_answers
            num_answers += 1

        def source() -> Iterator[NDArray[np.uint8]]:
            yield from frames_of(*VALUES[:3])
            while num_answers < 3:  # what the first server has not read would go to the second
                time.sleep(0.001)
            first.process.terminate()
            assert first.process.wait(20) == 0  # long before its grace of 10 s ends, since the stream lets it go
            stack.enter_context(start_server(tmp_path / "second", str(toy_folder), port=port))
            yield from frames_of(*VALUES[3:])

        started_at = time.monotonic()
        streamed = stream(f"127.0.0.1:{port}", source(), on_answer=count)
        assert time.monotonic() - started_at < 10
    assert streamed.error is None
    assert streamed.labels == [20, 30, 60, 80, 90, 150]
    draining, *_, reconnected = streamed.events
    assert draining == Draining(message="the server shuts down", grace_ms=10_000)
    assert reconnected == Reconnected(has_state=False, num_resent=0)
    assert streamed.totals.frames == 6


@EITHER
def test_a_server_that_does_not_come_back_is_given_up_in_one_sentence(
    toy_folder: Path, tmp_path: Path, stream: Streamer
) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server:

        def source() -> Iterator[NDArray[np.uint8]]:
            yield from frames_of(10, 20)
            server.process.kill()
            server.process.wait()
            while True:
                yield toy_frame(30)

        streamed = stream(server.address, source(), options(max_in_flight=2), IMPATIENT)
    assert isinstance(streamed.error, CallError)
    assert streamed.error.code == grpc.StatusCode.UNAVAILABLE
    sentence = str(streamed.error)
    assert sentence.startswith("the server ended the call with UNAVAILABLE and did not serve in ")
    assert "\n" not in sentence
    assert all(isinstance(event, ConnectionLost) for event in streamed.events)
    assert streamed.sequences == list(range(len(streamed.answers)))


@EITHER
def test_who_wants_no_second_attempt_hears_of_the_first(toy_folder: Path, tmp_path: Path, stream: Streamer) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server:

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            server.process.kill()
            while True:
                yield toy_frame(20)

        streamed = stream(server.address, source(), options(max_in_flight=2), ONCE)
    assert isinstance(streamed.error, CallError)
    assert streamed.events == []
    assert "attempt" not in str(streamed.error)


@EITHER
def test_a_source_that_ends_while_the_server_is_away_needs_no_server(
    toy_folder: Path, tmp_path: Path, stream: Streamer
) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server:
        num_answers = 0

        def source() -> Iterator[NDArray[np.uint8]]:
            yield from frames_of(10, 20)
            while num_answers < 2:
                time.sleep(0.001)
            server.process.kill()
            server.process.wait()

        def count(_: object) -> None:
            nonlocal num_answers
            num_answers += 1

        streamed = stream(server.address, source(), retry=IMPATIENT, on_answer=count)
    assert streamed.error is None
    assert streamed.labels == [20, 30]


class Fickle(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Ends its first calls after two answers with a status, as what stands between client and server may do."""

    def __init__(self, code: grpc.StatusCode, num_broken: int) -> None:
        self._code = code
        self._num_broken = num_broken
        self.calls: list[list[pb.Frame]] = []
        self.tokens: list[str] = []

    def SegmentStream(  # noqa: N802  # the schema's name
        self, request_iterator: Iterator[pb.SegmentStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SegmentStreamResponse]:
        self.tokens.append(next(request_iterator).config.resume_token)
        frames: list[pb.Frame] = []
        self.calls.append(frames)
        number = len(self.calls)
        yield pb.SegmentStreamResponse(started=pb.StreamStarted(resume_token=str(number), resumed=number % 2 == 0))
        for request in request_iterator:
            frames.append(request.frame)
            if number <= self._num_broken and len(frames) > 2:
                context.abort(self._code, "a proxy gave up")
            yield pb.SegmentStreamResponse(result=pb.FrameResult(sequence=request.frame.sequence))
        yield pb.SegmentStreamResponse(summary=pb.StreamSummary())


@EITHER
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED])
def test_what_a_peer_ends_without_a_reason_of_flowseg_goes_on(stream: Streamer, code: grpc.StatusCode) -> None:
    fickle = Fickle(code, num_broken=2)
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(fickle, server)  # type: ignore[no-untyped-call]  # grpcio-tools writes no types for stubs
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        streamed = stream(f"127.0.0.1:{port}", frames_of(*range(8)))
    finally:
        server.stop(0).wait()
    assert streamed.error is None
    assert streamed.sequences == list(range(8))
    assert fickle.tokens == ["", "1", "2"]
    starts = [frames[0].sequence for frames in fickle.calls]
    assert starts[0] == 0
    # Two answers each, of which gRPC may lose some when the call ends behind them; the rest is sent again, in a row.
    assert all(0 <= later - earlier <= 2 for earlier, later in itertools.pairwise(starts))
    for start, frames in zip(starts, fickle.calls, strict=True):
        assert [frame.sequence for frame in frames] == list(range(start, start + len(frames)))
    assert [frames[0].force_key_frame for frames in fickle.calls] == [False, False, True]
    assert not any(frame.force_key_frame for frames in fickle.calls for frame in frames[1:])


def test_a_stream_that_its_user_closes_is_closed_for_who_waits_for_answers(toy_bundle: Bundle) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        yield toy_frame(1)
        closing.wait()
        while True:
            yield toy_frame(1)

    async def run(address: str) -> list[StreamEvent]:
        async with AsyncSegmentationClient(address) as client, client.stream(LOSSLESS) as stream:
            closer: list[asyncio.Task[None]] = []
            with pytest.raises(CallError, match="the stream is closed"):  # noqa: PT012  # what it is closed by
                async for _ in stream.segment(endless()):
                    closer.append(asyncio.create_task(close_soon(stream)))  # noqa: PERF401  # it ends by an error
            await asyncio.gather(*closer)
            return stream.events

    async def close_soon(stream: AsyncVideoStream) -> None:
        await asyncio.sleep(0.05)
        await stream.close()
        closing.set()

    closing = threading.Event()
    with serve_beside(served_model(toy_bundle)) as server:
        with SegmentationClient(server.address) as client, client.stream(LOSSLESS) as stream:
            with pytest.raises(CallError, match="the stream is closed"):  # noqa: PT012  # what it is closed by
                for _ in stream.segment(endless()):
                    threading.Timer(0.05, stream.close).start()
            assert stream.events == []
        assert asyncio.run(run(server.address)) == []


def test_a_full_server_is_waited_for_by_those_who_are_patient(toy_bundle: Bundle) -> None:
    with (
        serve_beside(served_model(toy_bundle, max_streams=1)) as server,
        SegmentationClient(server.address, retry=IMPATIENT) as client,
        client.stream(LOSSLESS) as holder,
    ):
        with pytest.raises(CallError) as refused:
            client.stream(LOSSLESS)
        assert refused.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        answers = holder.segment(iter(frames_of(5)))

        def leave(event: object) -> None:
            assert isinstance(event, ConnectionLost)
            for _ in answers:
                pass

        patient = SegmentationClient(server.address, retry=Retry(patience_s=30, first_delay_s=0.01))
        with patient, patient.stream(LOSSLESS, leave) as stream:
            assert [label_of(answer) for answer in stream.segment(frames_of(7))] == [14]
        assert len(stream.events) >= 1


def test_an_administrator_who_closes_a_stream_closes_it(toy_bundle: Bundle) -> None:
    """CANCELLED by a peer is the network's; that with flowseg's reason is meant."""

    async def close_all(address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            admin = open_admin_stub(channel)
            for info in (await admin.ListStreams(pb.ListStreamsRequest())).streams:
                await admin.CloseStream(pb.CloseStreamRequest(stream_id=info.stream_id))

    with serve_beside(served_model(toy_bundle)) as server:

        def source() -> Iterator[NDArray[np.uint8]]:
            yield toy_frame(10)
            asyncio.run(close_all(server.address))
            while True:
                yield toy_frame(20)

        streamed = stream_blocking(server.address, source())
    assert isinstance(streamed.error, CallError)
    assert streamed.error.code == grpc.StatusCode.CANCELLED
    assert streamed.events == []


@EITHER
def test_a_server_that_was_never_there_is_missed(stream: Streamer) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(CallError) as missed:
        stream(address, [], retry=IMPATIENT)
    assert missed.value.code == grpc.StatusCode.UNAVAILABLE
    assert str(missed.value) == f"no server answers at {address}: start one with 'python -m serving.server BUNDLE'"


def test_calls_of_one_message_miss_a_server_too() -> None:
    address = f"127.0.0.1:{free_port()}"
    with SegmentationClient(address) as client:
        for call in (client.models, client.server_info, lambda: client.segment_image(toy_frame(1))):
            with pytest.raises(CallError, match=f"^no server answers at {address}"):
                call()


def test_the_server_is_a_process(toy_server: ServerProcess) -> None:
    assert stream_blocking(toy_server.address, frames_of(*VALUES)).labels == [20, 30, 60, 100, 150, 210]
