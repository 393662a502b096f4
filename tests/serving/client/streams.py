"""Streams as the tests of the client hold them: either client, one way to use it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.certificates import Certificates
from serving.client import (
    AsyncSegmentationClient,
    FixedKeyFrames,
    FrameAnswer,
    FrameLike,
    Retry,
    SegmentationClient,
    StreamEvent,
    StreamOptions,
    Totals,
)
from serving.clients import Clients
from serving.messages import Limits
from serving.models import ServedModel
from tests.serving.conftest import LIMITS, LocalServer, serve_here, toy_frame

LOSSLESS = StreamOptions(encoding="png", key_frames=FixedKeyFrames(interval=1000))  # no refresh hides the state
IMPATIENT = Retry(connect_s=0.3, outage_s=1.0, first_delay_s=0.02, max_delay_s=0.1)
PATIENT = Retry(outage_s=30.0, max_attempts=1000, first_delay_s=0.02, max_delay_s=0.1)
ONCE = Retry(max_attempts=0)


@dataclass(frozen=True)
class Streamed:
    """What a stream that went to its end, or failed, has left."""

    answers: list[FrameAnswer]
    events: list[StreamEvent]
    totals: Totals
    error: Exception | None

    @property
    def sequences(self) -> list[int]:
        return [answer.sequence for answer in self.answers]

    @property
    def labels(self) -> list[int | None]:
        return [label_of(answer) for answer in self.answers]


class Streamer(Protocol):
    """Streams frames through a server, by the one client or the other."""

    def __call__(
        self,
        server: str,
        frames: Iterable[FrameLike],
        options: StreamOptions = LOSSLESS,
        retry: Retry = PATIENT,
        on_answer: Callable[[FrameAnswer], None] = ...,
    ) -> Streamed: ...


def ignore_answer(answer: FrameAnswer) -> None:
    pass


def stream_blocking(
    server: str,
    frames: Iterable[FrameLike],
    options: StreamOptions = LOSSLESS,
    retry: Retry = PATIENT,
    on_answer: Callable[[FrameAnswer], None] = ignore_answer,
) -> Streamed:
    answers, error = [], None
    with SegmentationClient(server, retry=retry) as client, client.stream(options) as stream:
        try:
            for answer in stream.segment(frames):
                answers.append(answer)
                on_answer(answer)
        except Exception as raised:  # the test looks at it
            error = raised
        return Streamed(answers, stream.events, stream.totals, error)


def stream_async(
    server: str,
    frames: Iterable[FrameLike],
    options: StreamOptions = LOSSLESS,
    retry: Retry = PATIENT,
    on_answer: Callable[[FrameAnswer], None] = ignore_answer,
) -> Streamed:
    async def run() -> Streamed:
        answers, error = [], None
        async with AsyncSegmentationClient(server, retry=retry) as client, client.stream(options) as stream:
            try:
                async for answer in stream.segment(frames):
                    answers.append(answer)
                    await asyncio.to_thread(on_answer, answer)
            except Exception as raised:  # the test looks at it
                error = raised
            return Streamed(answers, stream.events, stream.totals, error)

    return asyncio.run(run())


STREAMERS: dict[str, Streamer] = {"blocking": stream_blocking, "async": stream_async}
EITHER = pytest.mark.parametrize("stream", STREAMERS.values(), ids=STREAMERS.keys())


def options(**fields: object) -> StreamOptions:
    return replace(LOSSLESS, **fields)  # type: ignore[arg-type]  # fields by name


def frames_of(*values: int) -> list[NDArray[np.uint8]]:
    return [toy_frame(value) for value in values]


def label_of(answer: FrameAnswer) -> int | None:
    """That of all pixels."""
    if answer.labels is None:
        return None
    assert answer.labels.dtype == np.uint8
    assert answer.labels.min() == answer.labels.max()
    return int(answer.labels[0, 0])


@contextlib.contextmanager
def serve_beside(
    model: ServedModel,
    limits: Limits = LIMITS,
    *,
    certificates: Certificates | None = None,
    clients: Clients | None = None,
) -> Iterator[LocalServer]:
    """A server on a thread of its own, since some clients block."""
    ready: Future[tuple[LocalServer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        done = asyncio.Event()
        async with serve_here(model, limits=limits, certificates=certificates, clients=clients) as server:
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


async def as_async(frames: Iterable[FrameLike]) -> AsyncIterator[FrameLike]:
    for frame in frames:
        yield frame
