"""A segmenter on a stream of frames, in torch: the semantics that `serving` follows and export is verified against.

Frame t is answered from the state that exists; then, off the critical path, the state is refreshed if the key-frame
interval says so. Interval 1 is thus the paper's evaluation: fusion(warp(reference(t - 1), flow), update(t)).
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from training.models.video_segmenter import KeyState, VideoSegmenter


class StreamedFrame(NamedTuple):
    """The answer to one frame, and what the stream carries on."""

    logits: Tensor  # (B, C, H, W)
    state: KeyState  # after the frame, and after the key refresh if there was one


@torch.no_grad()
def stream(segmenter: VideoSegmenter, frames: Iterable[Tensor], key_frame_interval: int) -> Iterator[StreamedFrame]:
    """Segments the frames (B, 3, H, W) of a video in order. Frames 0, N, 2N, ... leave a new key state."""
    state: KeyState = ()
    previous: Tensor | None = None
    for index, frame in enumerate(frames):
        if previous is None:  # the first frame is its own key frame
            state, previous = segmenter.encode_key(frame), frame
        step = segmenter.propagate(state, previous, frame)
        state = segmenter.encode_key(frame) if index % key_frame_interval == 0 else step.state
        previous = frame
        yield StreamedFrame(segmenter.upsample(step.logits), state)
