"""Labelled videos of the embedded world that are longer and livelier than what a segmenter is trained on.

The world's own drives go at an even pace for as long as they last. A camera on a real car stands at lights, starts, and
speeds up; recordings are cut. So a video here is one or several scenes, each a street of the held-out split, and time
may go on by nothing, by one or by two frames of the drive from frame to frame: all stand, drive, or drive fast.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from training.data.world.dataset import clip_seed
from training.data.world.looks import LOOKS
from training.data.world.materials import TRAIN_ID_OF_KIND
from training.data.world.render import build_scene, render_scene

Kind = Literal["steady", "stop-and-go", "cuts", "lively"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PACES = (0, 1, 2)  # frames of the drive from one frame to the next: standing, driving, driving fast
PACE_SHARES = (0.4, 0.4, 0.2)  # of the phases
PHASE_FRAMES = (10, 30)  # fewest and most frames of one pace
SCENE_FRAMES = (15, 60)  # and of one scene


class StreetVideo(NamedTuple):
    """A video with labels of every frame."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    labels: NDArray[np.int8]  # (T, H, W) train ids of VIPER -> Cityscapes, or IGNORE
    cuts: tuple[int, ...]  # the first frame of each scene but the first


def render_video(seed: int, index: int, kind: Kind, look: str, size: tuple[int, int], num_frames: int) -> StreetVideo:
    """Renders a video; the same arguments give the same one everywhere.

    Args:
        seed: chooses the streets, together with `index`.
        index: of the video, below 100.
        kind: `steady` is one drive at an even pace, `stop-and-go` one drive whose pace changes, `cuts` several drives
            at an even pace each, `lively` several whose pace changes.
        look: of the world.
        size: (height, width) in pixels.
        num_frames: T.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, KINDS.index(kind)]))
    lengths = _cut_up(rng, SCENE_FRAMES, num_frames) if kind in ("cuts", "lively") else [num_frames]
    frames, labels = [], []
    for number, length in enumerate(lengths):
        paces = _paces(rng, length) if kind in ("stop-and-go", "lively") else np.ones(length, int)
        moments = np.cumsum(paces) - paces[0]
        place = LOOKS[look].place
        scene = build_scene(clip_seed(seed, "val", 100 * index + number), int(moments[-1]) + 1, place)
        for rendered in render_scene(scene, look, size, moments):
            frames.append(rendered.frame)
            labels.append(TRAIN_ID_OF_KIND[rendered.kinds])
    return StreetVideo(np.stack(frames), np.stack(labels), tuple(int(end) for end in np.cumsum(lengths)[:-1]))


def _paces(rng: np.random.Generator, num_frames: int) -> NDArray[np.int64]:
    """Frames of the drive from the frame before to each frame."""
    phases = _cut_up(rng, PHASE_FRAMES, num_frames)
    return np.repeat(rng.choice(PACES, len(phases), p=PACE_SHARES), phases)


def _cut_up(rng: np.random.Generator, lengths: tuple[int, int], total: int) -> list[int]:
    """Random lengths that sum up to `total`; the last one may be shorter than the others."""
    parts: list[int] = []
    while (rest := total - sum(parts)) > 0:
        parts.append(min(rest, int(rng.integers(lengths[0], lengths[1] + 1))))
    return parts
