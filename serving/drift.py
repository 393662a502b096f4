"""How far a stream has moved from what its model knew, told without labels.

A manifest's baseline holds, for frames of the domain that the model was made for, the mean and the standard deviation
of signals that every frame gives. A stream's running means are compared with them. What a drift means is for people to
see: night, rain, another lens, or a camera that somebody turned to the wall.
"""

from collections.abc import Mapping

from serving.bundle import Manifest, Spread
from serving.results import StepResult

DRIFT_SIGNALS = ("mean_confidence", "mean_entropy", "disagreement")  # not the residual: it is of motion, not of looks
MEMORY = 64  # frames that a running mean is of, about
MIN_FRAMES = 16  # before there is a drift at all
MIN_DEVIATION = 1e-3  # of a baseline: less would be chance


class DriftMeter:
    """The running signals of one stream."""

    def __init__(self, manifest: Manifest) -> None:
        """Starts without a frame."""
        domains = {} if manifest.baseline is None else manifest.baseline.domains
        domain = domains.get("target") or domains.get("source")
        self._baseline: Mapping[str, Spread] = {} if domain is None else domain.signals
        self._means = dict.fromkeys(DRIFT_SIGNALS, 0.0)
        self._num_frames = 0

    @property
    def drift(self) -> float:
        """The largest distance of a running mean from its baseline, in standard deviations of that; 0 at first."""
        if self._num_frames < MIN_FRAMES or not self._baseline:
            return 0.0
        return max(
            abs(self._means[name] - self._baseline[name].mean) / max(self._baseline[name].std, MIN_DEVIATION)
            for name in DRIFT_SIGNALS
        )

    def observe(self, result: StepResult) -> float:
        """Takes the signals of a frame and returns the drift with it."""
        self._num_frames += 1
        weight = max(1 / MEMORY, 1 / self._num_frames)
        for name in DRIFT_SIGNALS:
            self._means[name] += weight * (getattr(result, name) - self._means[name])
        return self.drift
