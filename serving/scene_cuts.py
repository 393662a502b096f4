"""Where a video shows another scene: frames whose colours differ from those before by far more than they did lately.

The histogram of a frame does not mind what moves within it, unlike a small picture of it. On the embedded world's
drives of 96x192 pixels the mean difference of 16x32 thumbnails is as large while driving fast as at a cut.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 48, 96  # pixels that are looked at, about
BINS = 16  # of each channel
LEAST_DIFFERENCE = 0.06  # of two histograms, 0..1: below it no scene can be another
TIMES_USUAL = 2.0  # how far beyond the largest of the last differences
MEMORY = 8  # differences


class SceneCuts:
    """Looks at the frames of one video in order."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._histogram: NDArray[np.float64] | None = None
        self._differences: deque[float] = deque(maxlen=MEMORY)

    def is_cut(self, frame: NDArray[np.uint8]) -> bool:
        """Whether a frame (H, W, 3) shows another scene than the one before. The first one does not.

        After a cut another one is seen at once only if it is twice as large: flashes do not come through one by one.
        """
        histogram = color_histogram(frame)
        if self._histogram is None:
            self._histogram = histogram
            return False
        difference = float(np.abs(histogram - self._histogram).sum() / 2)
        usual = max(self._differences, default=0.0)
        self._histogram = histogram
        self._differences.append(difference)
        return difference > max(LEAST_DIFFERENCE, TIMES_USUAL * usual)


def color_histogram(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of a grid of pixels of a frame (H, W, 3) by brightness of each channel, (3 * BINS,); they sum up to 1."""
    height, width, _ = frame.shape
    grid = frame[:: max(height // ROWS, 1), :: max(width // COLUMNS, 1)] // (256 // BINS)
    places = grid.reshape(-1, 3) + np.arange(3, dtype=np.uint8) * BINS
    return np.bincount(places.ravel(), minlength=3 * BINS) / places.size
