"""When to refresh a stream's key state.

A policy is asked twice: whether a frame that comes in shows another scene, and so must be its own key frame; and, once
a frame is answered, whether the key state is refreshed from it. One object per stream.

`Adaptive` spends key frames where the past goes bad. No label is needed for that: where what was propagated disagrees
with the answer, and where the flow does not explain the frame, the state loses its worth. Both are measured in units of
what they usually are, by the baseline in the manifest, so thresholds hold for any network; and both are added up since
the last key frame, so a little each frame counts as well as much at once. `staleness` is how many usual frames' worth
may add up: at 5, usual video has a key frame about every 5 frames, a faster one more often, and a scene at rest, whose
flow explains all, less often.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.bundle import Baseline
from serving.results import StepResult
from serving.scene_cuts import SceneCuts

SIGNALS_OF_STALENESS = ("disagreement", "warp_residual")
LEAST_USUAL = 1e-3  # of a signal; networks without a state have none of the first, a video at rest none of the second


class KeyFramePolicy(Protocol):
    """Decides which frames are key frames. One object per stream."""

    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        """Whether a frame (H, W, 3) must be its own key frame. Asked once for every frame, in order, as it comes in."""
        ...

    def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
        """Whether to refresh after the frame with this result. `result.refreshes_key` is not decided yet.

        Args:
            result: of each answered frame in order.
            stretch: factor by which all intervals are longer than the policy says, 1 or more: what an overloaded
                server saves by.
        """
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
        _check_interval("key-frame interval", self.interval)

    def staggered(self, place: int) -> "KeyFramePolicy":
        """For a stream beside others: its first interval is shorter by `place` frames, modulo the interval."""
        head_start = place % self.interval
        return StaggeredInterval(self.interval, head_start) if head_start else self

    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        """No frame is looked at."""
        del frame
        return False

    def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
        """Whether the key frame is `interval` frames old. A frame that was encoded first is a key frame already."""
        return result.key_frame_age >= self.interval * stretch


@dataclass
class StaggeredInterval:
    """`FixedInterval` with a shorter first interval: streams that start together then refresh one after the other."""

    interval: int
    head_start: int  # frames by which the first interval is shorter; 0 afterwards

    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        """No frame is looked at."""
        del frame
        return False

    def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
        """Whether the key frame is `interval` frames old, or about to be for the first time."""
        is_due = result.key_frame_age + self.head_start >= self.interval * stretch and result.key_frame_age > 0
        if is_due:
            self.head_start = 0
        return is_due


@dataclass(frozen=True)
class Manual:
    """The first frame is a key frame, and those that are forced to be."""

    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        """No frame is looked at."""
        del frame
        return False

    def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
        """Never."""
        del result, stretch
        return False


@dataclass(frozen=True)
class Adaptive:
    """Key frames where the state has become stale, and at scene cuts."""

    min_interval: int = 2  # frames from one key frame to the next at least, but for scene cuts
    max_interval: int = 30  # and at most
    staleness: float = 5.0  # usual frames' worth of disagreement and unexplained change that may add up

    def __post_init__(self) -> None:
        """Checks the bounds."""
        _check_interval("least key-frame interval", self.min_interval)
        if self.max_interval < self.min_interval:
            raise ValueError(
                f"the largest key-frame interval is {self.max_interval}: it must be at least the least one, which is"
                f" {self.min_interval} frames"
            )
        if not 0 < self.staleness < float("inf"):
            raise ValueError(f"the staleness is {self.staleness}: it must be more than 0 and finite")

    def policy(self, baseline: Baseline | None) -> "AdaptivePolicy":
        """For one stream of the model with this baseline."""
        return AdaptivePolicy(self, baseline)


class AdaptivePolicy:
    """`Adaptive` on one stream. Without a baseline, what is usual is the mean over the stream so far."""

    def __init__(self, settings: Adaptive, baseline: Baseline | None) -> None:
        """Begins before the first frame."""
        self.settings = settings
        self._cuts = SceneCuts()
        self._staleness = 0.0  # since the last key frame, in usual frames
        domains = {} if baseline is None else baseline.domains
        self._baseline = domains.get("target") or domains.get("source")
        self._sums = dict.fromkeys(SIGNALS_OF_STALENESS, 0.0)  # over the frames of the stream
        self._num_frames = 0

    def is_scene_cut(self, frame: NDArray[np.uint8]) -> bool:
        """Whether its colours say so."""
        return self._cuts.is_cut(frame)

    def is_due(self, result: StepResult, stretch: float = 1.0) -> bool:
        """Whether the state is stale, within the bounds."""
        if result.key_frame_age <= 1:
            self._staleness = 0.0
        if result.key_frame_age == 0:  # it is a key frame, and compares itself with itself
            return False
        self._num_frames += 1
        self._staleness += sum(self._worth(name, getattr(result, name)) for name in SIGNALS_OF_STALENESS) / len(
            SIGNALS_OF_STALENESS
        )
        settings = self.settings
        if result.key_frame_age < settings.min_interval * stretch:
            return False
        is_old = result.key_frame_age >= settings.max_interval * stretch
        return is_old or self._staleness >= settings.staleness * stretch

    def _worth(self, name: str, value: float) -> float:
        """A signal in units of what it usually is."""
        self._sums[name] += value
        usual = self._sums[name] / self._num_frames if self._baseline is None else self._baseline.signals[name].mean
        return value / max(usual, LEAST_USUAL)


def _check_interval(what: str, interval: int) -> None:
    if interval < 1:
        raise ValueError(f"the {what} is {interval}: it must be 1 or more frames")
