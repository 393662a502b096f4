"""How long iterations take, and how much of that they wait for data."""

import contextlib
import time
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
TOLERATED_SHARE = 0.05  # of the time spent waiting, below which nobody need know
TOLERATED_S = 10.0  # seconds spent waiting, likewise


class Stopwatch:
    """Adds up seconds: those of iterations, and the part of them that was spent waiting for data."""

    def __init__(self) -> None:
        """At zero."""
        self.iterations = 0
        self.seconds = {"data": 0.0, "step": 0.0}
        self._reported = 0, dict(self.seconds)

    @contextlib.contextmanager
    def iteration(self) -> Iterator[None]:
        """Times one iteration."""
        began = time.perf_counter()
        yield
        self.seconds["step"] += time.perf_counter() - began
        self.iterations += 1

    def awaited(self, items: Iterator[Item]) -> Iterator[Item]:
        """Endless items; times how long each takes to come."""
        while True:
            began = time.perf_counter()
            item = next(items)
            self.seconds["data"] += time.perf_counter() - began
            yield item

    def report(self) -> dict[str, float]:
        """Mean seconds of the iterations since the last report."""
        (iterations, before), self._reported = self._reported, (self.iterations, dict(self.seconds))
        new = self.iterations - iterations
        return {f"seconds/{part}": round((total - before[part]) / new, 4) for part, total in self.seconds.items()}

    def complaint(self) -> str:
        """A sentence on waiting for data, if it was long; else nothing."""
        waited, total = self.seconds["data"], self.seconds["step"]
        if waited < max(TOLERATED_S, TOLERATED_SHARE * total):
            return ""
        return f"{waited / total:.0%} of the time was spent waiting for data: raise --workers"
