"""Do the labels of a video stay where they were, or flicker? Told without true labels and without a trained flow.

The figure is the share of pixels whose label agrees with that of the frame before, followed along OpenCV's DIS flow.
Flow errors and true disocclusions count against the segmenter: compare models on the same data, not a figure with 100.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def flow_to_previous(frames: Tensor) -> NDArray[np.float32]:
    """DIS flow (H, W, 2), current to previous, (x, y) in pixels.

    Args:
        frames: (2, 3, H, W), RGB in 0..1: previous, current.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    previous, current = (cv2.cvtColor(pixels(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
    flow = estimator.calc(current, previous, None)  # type: ignore[call-overload]  # the stub misses that None is fine
    return cast("NDArray[np.float32]", flow)


def agreement(labels: Tensor, previous_labels: Tensor, flow: NDArray[np.float32]) -> float:
    """Share of pixels, in percent, that have the label of the place in the previous frame that `flow` points to.

    Args:
        labels: (H, W) predicted classes of the current frame, below 256.
        previous_labels: (H, W) of the frame before.
        flow: (H, W, 2), current to previous, (x, y) in pixels.
    """
    rows, columns = np.indices(labels.shape, np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    followed = cv2.remap(previous_labels.byte().cpu().numpy(), x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return 100 * float((followed == labels.byte().cpu().numpy()).mean())


def pixels(frame: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a frame (3, H, W), RGB in 0..1."""
    return (frame.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
