"""Labelled videos to stream through a bundle, frame by frame: of the embedded world, or of a folder of your own."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.street_videos import KINDS, render_video
from serving.bundle import Bundle
from training.data import VideoFolder
from training.data.labelled_videos import read_clip
from training.label_spaces import LABEL_SPACES, LabelSpace

Size = tuple[int, int]  # height, width in pixels


class LabelledFrame(NamedTuple):
    """A frame of a video; `IGNORE` all over where it has no labels."""

    frame: NDArray[np.uint8]  # (H, W, 3) RGB
    labels: Tensor  # (H, W) int64, train ids or IGNORE


class Footage(NamedTuple):
    """A video that is read when it is asked for."""

    group: str  # figures of one group are those of all its frames together
    part: str  # of the group: how far parts are apart tells what is chance
    num_frames: int
    read: Callable[[], Iterator[LabelledFrame]]


def label_space(bundle: Bundle) -> LabelSpace:
    """The classes of a bundle.

    Raises:
        ValueError: if they are none that labels can be read for.
    """
    names = tuple(info.name for info in bundle.manifest.classes)
    for space in LABEL_SPACES.values():
        if names == space.names:
            return space
    known = ", ".join(space.name for space in LABEL_SPACES.values())
    raise ValueError(
        f"the classes of {bundle.folder} are {', '.join(names)}, and labels are read for {known}: use another bundle"
    )


def world_footage(look: str, size: Size, seeds: Sequence[int], num_videos: int, num_frames: int) -> list[Footage]:
    """Videos of every kind for every seed; see `benchmarks.street_videos`."""

    def reader(seed: int, index: int, kind: int) -> Callable[[], Iterator[LabelledFrame]]:
        def read() -> Iterator[LabelledFrame]:
            video = render_video(seed, index, KINDS[kind], look, size, num_frames)
            for frame, labels in zip(video.frames, video.labels, strict=True):
                yield LabelledFrame(frame, torch.from_numpy(labels).long())

        return read

    return [
        Footage(name, f"seed {seed}", num_frames, reader(seed, index, kind))
        for kind, name in enumerate(KINDS)
        for seed in seeds
        for index in range(num_videos)
    ]


def folder_footage(root: Path, labels: Path, label_map: Path, size: Size, space: LabelSpace) -> list[Footage]:
    """The videos of a folder, all frames in order, those without a label too: the stream needs them.

    Raises:
        ValueError: for what is wrong with the folder or its labels, in one sentence.
    """
    classes: Literal["viper", "synthia"] = "viper" if space == LABEL_SPACES["viper"] else "synthia"
    with_labels = VideoFolder(root, size, 1, labels=labels, label_map=label_map, classes=classes).find()
    all_frames = VideoFolder(root, size, 1, classes=classes).find()
    labelled = {clip.frames[0]: clip for clip in with_labels.clips}
    known = {clip.video for clip in with_labels.clips}
    footage = []
    for video, frames in groupby(all_frames.clips, key=lambda clip: clip.video):
        clips = [labelled.get(clip.frames[0], clip) for clip in frames]

        def read(clips: list = clips) -> Iterator[LabelledFrame]:  # type: ignore[type-arg]  # bound early
            for clip in clips:
                read_frames, read_labels, _ = read_clip(clip, with_labels.reading)
                frame = (255 * read_frames[0].permute(1, 2, 0)).round().byte().numpy()
                yield LabelledFrame(frame, read_labels[0])

        if video in known:
            footage.append(Footage("videos", video, len(clips), read))
    return footage
