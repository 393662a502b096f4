"""What a turn of the throughput benchmark is, and how a process that takes turns is talked to.

A contestant is a process: the bare loop, or a client with the server it loads. It writes a line of JSON once it is
ready. Then each line on its stdin is a turn to take, each line on its stdout what came of it. This module needs the
standard library alone, so that clients of other servers run it in environments of their own.
"""

import asyncio
import base64
import json
import math
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SPREAD = 7  # frames between the places in the video where two streams begin


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What to do for a while: streams that keep frames in flight, the next one sent when one is answered."""

    streams: int  # at a time, each of its own connection or call
    in_flight: int  # frames of one stream without an answer
    seconds: float  # in which answers are counted
    warm_up_s: float  # before that, from when every stream has had its first answer
    key_frames: str  # interval in frames, or "adaptive"; who has no key frames ignores it


class Answer(NamedTuple):
    """What a server sent for a frame."""

    labels: bytes  # a PNG file
    parts_ms: Mapping[str, float] = MappingProxyType({})  # where the server says the time went


class Tally:
    """Counts the answers of a turn, in a window that begins some time after every stream has had its first."""

    def __init__(self, turn: Turn) -> None:
        """Begins the turn."""
        self.turn = turn
        self._awaited = turn.streams  # streams without an answer so far
        self._window_at = math.inf  # seconds, of time.perf_counter
        self._began_cpu = time.process_time()
        self._num_frames = 0  # in all, those before and after the window too
        self._latencies_ms: list[float] = []
        self._parts_ms: dict[str, float] = {}  # sums

    def is_over(self) -> bool:
        """Whether to send nothing more."""
        return time.perf_counter() >= self._window_at + self.turn.seconds

    def count(self, number: int, sent_at: float, answer: Answer) -> None:
        """A stream's frame of a number from 0 up, sent then, is answered now.

        Raises:
            RuntimeError: if the answer is no label map.
        """
        now = time.perf_counter()
        if not answer.labels.startswith(PNG_SIGNATURE):
            raise RuntimeError(f"the server sent no PNG but {answer.labels[:20]!r}")
        self._num_frames += 1
        if number == 0:
            self._awaited -= 1
            if self._awaited == 0:
                self._window_at = now + self.turn.warm_up_s
        if self._window_at <= now < self._window_at + self.turn.seconds:
            self._latencies_ms.append((now - sent_at) * 1e3)
            for name, milliseconds in answer.parts_ms.items():
                self._parts_ms[name] = self._parts_ms.get(name, 0.0) + milliseconds

    def report(self) -> dict[str, Any]:
        """What came of the turn, for JSON."""
        answered = max(1, len(self._latencies_ms))
        return {
            "frames_per_s": len(self._latencies_ms) / self.turn.seconds,
            "latencies_ms": [round(latency, 3) for latency in self._latencies_ms],
            "parts_ms": {name: total / answered for name, total in self._parts_ms.items()},
            "frames": self._num_frames,  # with those outside the window, as processor time is
            "cpu_ms_per_frame": 1e3 * (time.process_time() - self._began_cpu) / max(1, self._num_frames),
        }


class OpenStream(Protocol):
    """A stream of frames to a server that answers in their order."""

    async def send(self, frame: bytes, number: int) -> None:
        """Sends the frame of a number from 0 up."""
        ...

    async def receive(self) -> Answer:
        """Waits for the next answer."""
        ...

    async def close(self) -> None:
        """Ends the stream."""
        ...


def back_and_forth(frames: Sequence[bytes], number: int) -> bytes:
    """The frame of a number from 0 up of a video that is played forth and back, so that no cut is in it."""
    last = max(1, len(frames) - 1)
    place = number % (2 * last)
    return frames[min(place, 2 * last - place, len(frames) - 1)]


async def run_stream(stream: OpenStream, frames: Sequence[bytes], first: int, tally: Tally) -> None:
    """Keeps as many frames in flight as the turn says, until it is over and all are answered."""
    sent_at: deque[float] = deque()
    num_sent = num_answered = 0
    while sent_at or not tally.is_over():
        while len(sent_at) < tally.turn.in_flight and not tally.is_over():
            sent_at.append(time.perf_counter())
            await stream.send(back_and_forth(frames, first + num_sent), num_sent)
            num_sent += 1
        if sent_at:
            answer = await stream.receive()
            tally.count(num_answered, sent_at.popleft(), answer)
            num_answered += 1
    await stream.close()


async def run_streams(streams: Sequence[OpenStream], frames: Sequence[bytes], tally: Tally) -> None:
    """The streams of a turn, each from another place in the video."""
    await asyncio.gather(*(run_stream(stream, frames, SPREAD * index, tally) for index, stream in enumerate(streams)))


async def take_turns(run: Callable[[Turn, Tally], Awaitable[None]], first_answer: bytes = b"") -> None:
    """Says that it is ready, and what a first frame was answered with; then takes turns until stdin ends."""
    say({"ready": True, "labels": base64.b64encode(first_answer).decode()})
    while line := await asyncio.to_thread(sys.stdin.readline):
        turn = Turn(**json.loads(line))
        tally = Tally(turn)
        await run(turn, tally)
        say(tally.report())


def say(document: Mapping[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def as_line(turn: Turn) -> str:
    """A turn as `take_turns` reads it."""
    return json.dumps(asdict(turn)) + "\n"


def read_frames(folder: Path) -> list[bytes]:
    """The encoded frames in a folder, by their names."""
    return [path.read_bytes() for path in sorted(folder.iterdir())]
