"""How far streams have moved from what their model knew, told without labels.

A manifest's baseline holds, for frames of the domain that the model was made for, the mean and the standard deviation
of signals that every frame gives. Running means of the same signals are compared with it. What a drift means is for
people to see: night, rain, another lens, or a camera that somebody turned to the wall.

The unit is the standard deviation of frames, not that of a mean of some dozens: the frames of a stream are of one scene
and alike, so what their mean scatters by is the scene, and that does not average out. It is at most the deviation of
frames, so on the domain of the baseline the drift stays about one or below.
"""

from dataclasses import dataclass

from pydantic import JsonValue

from serving.bundle import Baseline, Spread
from serving.results import StepResult

DRIFT_SIGNALS = ("mean_confidence", "mean_entropy", "disagreement")  # not the residual: it is of motion, not of looks
STREAM_MEMORY = 64  # frames that the running means of a stream are of, about: some seconds of video
MODEL_MEMORY = 1024  # frames of all streams together that those of a model are of
MIN_FRAMES = 32  # before there is a drift at all: with 16, one of 40 streams of the domain itself began above 2.5
MIN_DEVIATION = 0.01  # of a baseline, which may be of few scenes: smaller changes are not worth a word


@dataclass(frozen=True)
class SignalDrift:
    """A signal beside its baseline."""

    mean: float  # of recent frames
    baseline: Spread
    deviations: float  # from the baseline's mean to this one, in standard deviations

    def describe(self) -> dict[str, JsonValue]:
        """As JSON."""
        return {"mean": self.mean, "baseline": self.baseline.model_dump(), "deviations": self.deviations}


class DriftMeter:
    """The running signals of a stream, or of all streams of a model."""

    def __init__(self, baseline: Baseline | None, memory: int = STREAM_MEMORY) -> None:
        """Starts without a frame. Without a baseline there is never a drift."""
        domains = {} if baseline is None else baseline.domains
        domain = domains.get("target") or domains.get("source")
        self._baseline = {} if domain is None else {name: domain.signals[name] for name in DRIFT_SIGNALS}
        self._longest_age = 0 if baseline is None else baseline.key_frame_interval
        self._memory = memory
        self._means = dict.fromkeys(self._baseline, 0.0)
        self._num_frames = 0

    @property
    def signals(self) -> dict[str, SignalDrift]:
        """Those that are compared, by name; none before there are `MIN_FRAMES`, or without a baseline."""
        if self._num_frames < MIN_FRAMES:
            return {}
        return {
            name: SignalDrift(mean, spread, (mean - spread.mean) / max(spread.std, MIN_DEVIATION))
            for (name, mean), spread in zip(self._means.items(), self._baseline.values(), strict=True)
        }

    @property
    def drift(self) -> float:
        """The largest distance of a running mean from its baseline, in standard deviations; 0 if none is known.

        Less disagreement than there is no drift: it is of a scene where little moves, or of frequent key frames.
        """
        return max(
            (
                max(0.0, signal.deviations) if name == "disagreement" else abs(signal.deviations)
                for name, signal in self.signals.items()
            ),
            default=0.0,
        )

    def observe(self, result: StepResult) -> float:
        """Takes the signals of a frame and returns the drift with it.

        Frames count as they did for the baseline: none that is its own key frame, and none that is farther from its key
        frame than those were, since all signals change with that age.
        """
        if 0 < result.key_frame_age <= self._longest_age:
            self._num_frames += 1
            weight = max(1 / self._memory, 1 / self._num_frames)
            for name, mean in self._means.items():
                self._means[name] = mean + weight * (getattr(result, name) - mean)
        return self.drift
