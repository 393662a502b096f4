"""What a turn of the throughput benchmark is, and how a process that takes turns is talked to.

A contestant is a process: the bare loop, or a client with the server it loads. It writes a line of JSON once it is
ready. Then each line on its stdin is a turn to take, each line on its stdout what came of it. This module needs the
standard library alone, so that clients of other servers run it in environments of their own.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What to do for a while."""

    streams: int  # at a time, each of its own connection or call
    in_flight: int  # frames of one stream without an answer
    seconds: float  # in which answers are counted
    warm_up_s: float  # before that
    key_frames: str  # interval in frames, or "adaptive"; who has no key frames ignores it


@dataclass
class Tally:
    """The answers of a turn. The clock is that of time.perf_counter."""

    turn: Turn
    began_at: float = field(default_factory=time.perf_counter)
    num_frames: int = 0  # in all, those before and after the window too
    latencies_ms: list[float] = field(default_factory=list)  # of answers in the window
    parts_ms: dict[str, float] = field(default_factory=dict)  # their sums, of answers in the window
    began_cpu: float = field(default_factory=time.process_time)

    def is_over(self) -> bool:
        """Whether to send nothing more."""
        return time.perf_counter() >= self.began_at + self.turn.warm_up_s + self.turn.seconds

    def count(self, sent_at: float, parts_ms: Mapping[str, float] | None = None) -> None:
        """An answer came now to what was sent then; `parts_ms` is where the server says its time went."""
        now = time.perf_counter()
        self.num_frames += 1
        if 0 <= now - self.began_at - self.turn.warm_up_s < self.turn.seconds:
            self.latencies_ms.append((now - sent_at) * 1e3)
            for name, milliseconds in (parts_ms or {}).items():
                self.parts_ms[name] = self.parts_ms.get(name, 0.0) + milliseconds

    def report(self) -> dict[str, Any]:
        """What came of the turn, for JSON."""
        answered = max(1, len(self.latencies_ms))
        return {
            "frames_per_s": len(self.latencies_ms) / self.turn.seconds,
            "latencies_ms": [round(latency, 3) for latency in self.latencies_ms],
            "parts_ms": {name: total / answered for name, total in self.parts_ms.items()},
            "frames": self.num_frames,  # with those outside the window, as processor time is
            "cpu_ms_per_frame": 1e3 * (time.process_time() - self.began_cpu) / max(1, self.num_frames),
        }


class OpenStream(Protocol):
    """A stream of frames to a server that answers in their order."""

    async def send(self, frame: bytes, number: int) -> None:
        """Sends the frame of a number from 0 up."""
        ...

    async def receive(self) -> Mapping[str, float]:
        """Waits for the next answer; returns where the server says its time went, in milliseconds."""
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
    number = 0
    while sent_at or not tally.is_over():
        while len(sent_at) < tally.turn.in_flight and not tally.is_over():
            sent_at.append(time.perf_counter())
            await stream.send(back_and_forth(frames, first + number), number)
            number += 1
        if sent_at:
            parts_ms = await stream.receive()
            tally.count(sent_at.popleft(), parts_ms)
    await stream.close()


async def run_calls(call: Callable[[bytes], Awaitable[None]], frames: Sequence[bytes], first: int, tally: Tally) -> None:
    """The same with a call of its own for each frame."""

    async def one_after_the_other(number: int) -> None:
        while not tally.is_over():
            sent_at = time.perf_counter()
            await call(back_and_forth(frames, first + number))
            tally.count(sent_at)
            number += tally.turn.in_flight

    await asyncio.gather(*(one_after_the_other(number) for number in range(tally.turn.in_flight)))


async def take_turns(run: Callable[[Turn, Tally], Awaitable[None]]) -> None:
    """Says that it is ready, then takes turns until stdin ends."""
    say({"ready": True})
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
