"""What a stream gives up to hold its latency objective, and when it takes that back.

One step at a time, in the order of the levels; back in reverse. A level is left upwards when recent latencies are above
the objective, and downwards when they are well below it for longer. If a level that was left downwards has to be taken
again soon, the next attempt waits twice as long: a load that sits between two levels does not make them alternate.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Level(NamedTuple):
    """What is given up."""

    stretch: int  # key-frame intervals are so many times as long
    step_every: int  # only every so many-th frame is looked at
    drops_late: bool  # frames that wait longer than the objective are dropped
    is_allowed_by: str  # the field of `Objective`; empty: always


LEVELS = (
    Level(1, 1, False, ""),
    Level(2, 1, False, ""),
    Level(4, 1, False, ""),
    Level(4, 2, False, "may_skip_steps"),
    Level(4, 4, False, "may_skip_steps"),
    Level(4, 1, True, "may_drop_frames"),  # with as many skipped steps as are allowed
)
SMOOTHING = 0.2  # weight of the newest latency in the running mean
MIN_SAMPLES_UP = 8  # answers at a level before it is left upwards
MIN_SAMPLES_DOWN = 32  # before it is left downwards, at first
MAX_SAMPLES_DOWN = 1024
HEADROOM = 0.6  # of the objective: latencies must be below that to give up less


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a client wants, and what it gives for it."""

    target_ms: float
    max_key_frame_interval: int  # frames; 0: four times as long as without overload
    may_skip_steps: bool
    may_drop_frames: bool


class Elasticity:
    """The level of one stream."""

    def __init__(self, objective: Objective) -> None:
        """Starts with nothing given up."""
        self.objective = objective
        self._allowed = [
            number
            for number, level in enumerate(LEVELS)
            if not level.is_allowed_by or getattr(objective, level.is_allowed_by)
        ]
        self._place = 0  # in the list of allowed levels
        self._mean_ms = 0.0
        self._samples = 0
        self._patience = [MIN_SAMPLES_DOWN] * len(self._allowed)  # before each place is left downwards
        self._is_on_trial = False  # the place above was left downwards, and may have to be taken again

    @property
    def number(self) -> int:
        """Of the level, 0 to 5."""
        return self._allowed[self._place]

    @property
    def level(self) -> Level:
        """What is given up now."""
        level = LEVELS[self.number]
        if level.drops_late and self.objective.may_skip_steps:
            return level._replace(step_every=LEVELS[self.number - 1].step_every)
        return level

    def observe(self, latency_ms: float) -> bool:
        """Takes the latency of a frame that was looked at, or the age of one that was dropped.

        Returns:
            Whether the level has changed.
        """
        self._samples += 1
        weight = max(SMOOTHING, 1 / self._samples)
        self._mean_ms += weight * (latency_ms - self._mean_ms)
        if self._samples >= MIN_SAMPLES_UP and self._mean_ms > self.objective.target_ms:
            if self._place + 1 == len(self._allowed):
                return False
            if self._is_on_trial:
                self._patience[self._place + 1] = min(MAX_SAMPLES_DOWN, 2 * self._patience[self._place + 1])
            self._move(+1)
            return True
        if self._is_on_trial and self._samples >= self._patience[self._place + 1]:  # it lasts
            self._is_on_trial = False
            self._patience[self._place + 1] = MIN_SAMPLES_DOWN
        is_relaxed = self._mean_ms < HEADROOM * self.objective.target_ms
        if self._place and is_relaxed and self._samples >= self._patience[self._place]:
            self._move(-1)
            return True
        return False

    def _move(self, places: int) -> None:
        self._place += places
        self._samples, self._mean_ms = 0, 0.0
        self._is_on_trial = places < 0
