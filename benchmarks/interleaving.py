"""Times several things in turns, so that whatever else a machine does hits all of them alike.

In each round each thing is run for its share of the time, and at least once. A ratio of two things is the median over
rounds of the ratio in the round, for neighbours in time share their noise.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)
Clock = Literal["wall", "cpu"]
PERCENTILES = (50, 90, 99)
WARM_UP = 2  # runs that are not timed
Name = TypeVar("Name")


class Run(NamedTuple):
    """How long one run took, in seconds."""

    wall: float
    cpu: float  # of all threads of this process


@dataclass(frozen=True)
class Times:
    """Of one thing."""

    rounds: Sequence[Sequence[Run]]

    def num_runs(self) -> int:
        """In all rounds."""
        return sum(map(len, self.rounds))

    def percentiles_ms(self, clock: Clock) -> dict[str, float]:
        """Over all runs, by name: p50, p90, p99."""
        milliseconds = [1e3 * getattr(run, clock) for runs in self.rounds for run in runs]
        return {f"p{rank}": round(float(np.percentile(milliseconds, rank)), 3) for rank in PERCENTILES}

    def by_round_ms(self, clock: Clock) -> NDArray[np.float64]:
        """The median of each round, (rounds,)."""
        return np.array([1e3 * np.median([getattr(run, clock) for run in runs]) for runs in self.rounds])


def interleaved(things: Mapping[Name, Callable[[], object]], rounds: int, seconds: float) -> dict[Name, Times]:
    """Runs all things in turns.

    Args:
        things: by name.
        rounds: in which each thing has its turn.
        seconds: that each thing is run for, in all rounds together; longer if one run per round takes longer.
    """
    for run in things.values():
        for _ in range(WARM_UP):
            run()
    times: dict[Name, list[list[Run]]] = {name: [] for name in things}
    for index in range(rounds):
        logger.info("round %d of %d", index + 1, rounds)  # no bar: the thread that draws it would be timed too
        for name in things if index % 2 == 0 else reversed(list(things)):
            times[name].append(_for_some_time(things[name], seconds / rounds))
    return {name: Times(of_rounds) for name, of_rounds in times.items()}


def _for_some_time(run: Callable[[], object], seconds: float) -> list[Run]:
    runs: list[Run] = []
    ends_at = time.perf_counter() + seconds
    while not runs or time.perf_counter() < ends_at:
        began, began_cpu = time.perf_counter(), time.process_time()
        run()
        runs.append(Run(time.perf_counter() - began, time.process_time() - began_cpu))
    return runs


def amortized(
    key_ms: NDArray[np.float64], step_ms: NDArray[np.float64], key_frame_interval: int
) -> NDArray[np.float64]:
    """Time per frame where each frame is a step and every `key_frame_interval`-th renews the key."""
    return step_ms + key_ms / key_frame_interval


def median_ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> float:
    """The median over rounds of the ratio in the round."""
    return float(np.median(numerator / denominator))
