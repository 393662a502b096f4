"""Streams a clip through the served path of a bundle and compares every answer with the torch network.

The path is the one users get: manifest, runtime, engine, state on the device. The clip comes from the embedded world:
a bundle can be verified where the training data are not at hand; a change of scene in it makes the flow large.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from serving.engine import open_engine
from training.data.world.render import render_clip
from training.models.video_segmenter import VideoSegmenter
from training.streaming import stream

NUM_FRAMES = 4  # of each of two scenes
KEY_FRAME_INTERVALS = (1, 3)  # the paper's evaluation, and propagation over several frames
MIN_LABEL_AGREEMENT = 0.999  # share of pixels; float32 leaves a few undecided pixels to rounding
MAX_STATE_DIFFERENCE = 1e-3  # relative to the largest absolute value of the state


class VerificationError(RuntimeError):
    """A bundle whose graphs do not answer like the network they were made from. The message is one sentence."""


def verify(segmenter: VideoSegmenter, folder: Path, sizes: tuple[tuple[int, int], ...]) -> dict[str, JsonValue]:
    """Compares a bundle with the network it was made from, at every frame size (height, width).

    Returns:
        `label_agreement`: share of equal pixels, `max_state_difference`: largest difference of a state tensor,
        relative to the largest absolute value in it; the worst over sizes and key-frame intervals.

    Raises:
        VerificationError: if they differ by more than rounding, or the network's scores are not finite.
    """
    figures = []
    for size in sizes:
        frames = np.concatenate([render_clip(seed, "target", size, NUM_FRAMES).frames for seed in (1, 2)])
        figures += [_compare(segmenter, folder, frames, interval) for interval in KEY_FRAME_INTERVALS]
    agreements, differences = np.array(figures).T
    agreement, difference = float(agreements.min()), float(differences.max())  # NumPy's hand a NaN on, Python's do not
    if not agreement >= MIN_LABEL_AGREEMENT or not difference <= MAX_STATE_DIFFERENCE:  # a NaN fails too
        raise VerificationError(
            f"the graphs do not answer like the network: {100 * agreement:.3f} % of labels agree (at least"
            f" {100 * MIN_LABEL_AGREEMENT} % should), the state differs by {difference:.1e} (at most"
            f" {MAX_STATE_DIFFERENCE:.0e} may); no bundle was written, please report this"
        )
    return {"label_agreement": agreement, "max_state_difference": difference, "frames": 2 * NUM_FRAMES}


def _compare(
    segmenter: VideoSegmenter, folder: Path, frames: NDArray[np.uint8], key_frame_interval: int
) -> tuple[float, float]:
    """Share of equal labels, and the relative difference of the state after the last frame."""
    inputs = [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in frames]
    expected = [_labels(answer.logits) for answer in stream(segmenter, inputs, key_frame_interval)]
    *_, last = stream(segmenter.folded(), inputs, key_frame_interval)  # the state that graphs carry is the folded one
    size = (frames.shape[1], frames.shape[2])
    with (
        open_engine(folder, size=size) as engine,
        engine.open_stream(key_frame_interval=key_frame_interval) as served,
    ):
        answers = [served.submit(frame).result().labels for frame in frames]
        state = served.state()
    equal_pixels = float(np.mean([answer == labels for answer, labels in zip(answers, expected, strict=True)]))
    differences = [
        float(np.abs(state[name] - tensor.numpy()).max() / max(float(tensor.abs().max()), 1e-12))
        for name, tensor in zip(segmenter.folded().state_names, last.state, strict=True)
    ]
    return equal_pixels, float(np.max([0.0, *differences]))


def _labels(logits: Tensor) -> NDArray[np.int64]:
    """Labels (H, W) of one frame."""
    if not bool(logits.isfinite().all()):  # whatever a runtime makes of NaN, it is not the graphs' fault
        raise VerificationError(
            "the network gives scores that are not finite: train it again with a lower learning rate; no bundle was"
            " written"
        )
    return cast("NDArray[np.int64]", logits.argmax(1)[0].numpy())
