"""When to refresh a stream's key state."""

from dataclasses import dataclass
from typing import Protocol

from serving.results import StepResult


class KeyFramePolicy(Protocol):
    """Decides, once a frame is answered, whether the key state is refreshed from it. One object per stream."""

    def is_due(self, result: StepResult) -> bool:
        """Whether to refresh after the frame with this result. `result.refreshes_key` is not decided yet."""
        ...


@dataclass(frozen=True)
class FixedInterval:
    """Every `interval`-th frame is a key frame, counted from the first frame or the last forced key frame.

    Interval 1 refreshes after every frame: each frame is then answered from the key state of the frame right before
    it, as in the paper's evaluation.
    """

    interval: int

    def __post_init__(self) -> None:
        """Checks the interval."""
        if self.interval < 1:
            raise ValueError(f"the key-frame interval is {self.interval}: it must be 1 or more frames")

    def is_due(self, result: StepResult) -> bool:
        """Whether the key frame is `interval` frames old. A frame that was encoded first is a key frame already."""
        return result.key_frame_age >= self.interval


@dataclass(frozen=True)
class Manual:
    """Never by itself."""

    def is_due(self, result: StepResult) -> bool:
        """No."""
        return False


@dataclass(frozen=True)
class Adaptive:
    """Stub until the branch of signals is merged."""

    min_interval: int
    max_interval: int
    staleness: float = 1.0

    def is_due(self, result: StepResult) -> bool:
        return result.key_frame_age >= self.max_interval


@dataclass(frozen=True)
class Stretched:
    """Stub until the branch of signals is merged."""

    policy: KeyFramePolicy
    factor: int
    max_interval: int

    def is_due(self, result: StepResult) -> bool:
        return result.key_frame_age >= self.factor and self.policy.is_due(result)
