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
