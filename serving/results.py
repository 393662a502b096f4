"""What the engine answers for a frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class StepTimings:
    """Where a frame spent its time, in milliseconds."""

    queue_ms: float  # between `submit` and the run that answered it, without `key_ms`
    key_ms: float  # in a key run that had to come first: the first frame, or a forced key frame; else 0
    step_ms: float  # in the step run, shared with the rest of its batch


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The segmentation of one frame and how it came about."""

    labels: NDArray[np.uint8]  # (H, W), class indices
    confidence: NDArray[np.uint8]  # (H / 4, W / 4), 255 is certain
    mean_confidence: float  # 0..1
    disagreement: float  # 0..1, between what was propagated from the past and what this frame says
    mean_entropy: float  # 0..1, of the class probabilities
    warp_residual: float  # 0..1, between the frame and the earlier one moved along the flow
    key_frame_age: int  # frames since the key frame behind the state; 0 if the frame itself was encoded first
    refreshes_key: bool  # the state is refreshed from this frame, once it is answered
    batch_size: int  # frames answered in the same step run
    timings: StepTimings

    @property
    def is_key(self) -> bool:
        """Whether the frames after it start from this frame's own key state."""
        return self.key_frame_age == 0 or self.refreshes_key
