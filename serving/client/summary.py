"""The figures of a video that was streamed, on the way and at the end."""

import time
from collections import deque
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from serving.client.answers import FrameAnswer
from serving.client.ledger import Totals
from serving.generated.flowseg.v1 import segmentation_pb2 as pb

MAX_LATENCIES = 100_000  # that percentiles are of, the newest: an hour of a camera
RECENT = 50  # answers that the progress shows the speed of


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a video."""

    frames: int  # that were read from the source
    answered: int  # with labels
    held: int  # of these, with those of an earlier frame
    dropped: int
    errors: int
    key_frames: int
    reconnects: int
    seconds: float
    fps: float  # answered frames per second
    p50_ms: float  # latency of answered frames, from handing them to the connection to having the labels
    p99_ms: float
    model: str  # name@version


class Meter:
    """Takes times."""

    def __init__(self) -> None:
        """Starts the clock."""
        self._started_at = time.perf_counter()
        self._latencies_ms: deque[float] = deque(maxlen=MAX_LATENCIES)
        self._recent: deque[float] = deque(maxlen=RECENT)  # when answers came, in seconds

    def observe(self, answer: FrameAnswer) -> None:
        """Counts an answer."""
        if answer.result is not None:
            self._latencies_ms.append(answer.latency_ms)
            self._recent.append(time.perf_counter())

    def speed(self) -> str:
        """Of the newest answers, for people."""
        if len(self._recent) < 2:
            return ""
        fps = (len(self._recent) - 1) / max(1e-9, self._recent[-1] - self._recent[0])
        return f"{fps:.1f} frames/s, {self._latencies_ms[-1]:.0f} ms"

    def summarize(self, totals: Totals, model: pb.Model) -> Summary:
        """The figures of a stream that is through."""
        seconds = time.perf_counter() - self._started_at
        p50_ms, p99_ms = np.percentile(self._latencies_ms, [50, 99]) if self._latencies_ms else (0.0, 0.0)
        return Summary(
            frames=totals.frames,
            answered=totals.results,
            held=totals.held,
            dropped=totals.dropped,
            errors=totals.errors,
            key_frames=totals.key_frames,
            reconnects=totals.reconnects,
            seconds=round(seconds, 3),
            fps=round(totals.results / seconds, 2),
            p50_ms=round(float(p50_ms), 2),
            p99_ms=round(float(p99_ms), 2),
            model=f"{model.name}@{model.version}",
        )


def show_summary(summary: Summary) -> None:
    """Writes the summary for people."""
    table = Table(show_header=False)
    for name, value in asdict(summary).items():
        table.add_row(name.replace("_", " "), str(value))
    Console().print(table)


def progress_bar(console: Console) -> Progress:
    """A bar with the speed behind it, where somebody looks; tasks need the field `speed`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
