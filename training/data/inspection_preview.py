"""A picture of a data set: what training will see of it, to be looked at before it does."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from training.data.clip import LabelledClip
from training.data.labelled_videos import VideoData, read_clip
from training.label_spaces import LabelSpace

NUM_CLIPS = 4


def preview(data: VideoData, space: LabelSpace) -> Figure:
    """First and last frame and the coloured labels of a few clips that can be read, with the names of the classes."""
    clips = _readable_clips(data)
    has_labels = any(clip.labels for clip in data.clips)
    titles = ("first frame of a clip", "last frame", *(("labels",) if has_labels else ()))
    figure = Figure(figsize=(12, 2.4 * max(len(clips), 1) + 1), layout="constrained")
    for row, (video, clip) in enumerate(clips):
        pictures = (_pixels(clip.frames[0]), _pixels(clip.frames[-1]), space.color_labels(clip.labels[-1].numpy()))
        for column, title in enumerate(titles):
            axes = figure.add_subplot(len(clips), len(titles), row * len(titles) + column + 1)
            axes.imshow(pictures[column])
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(title)
            if column == 0:
                axes.set_ylabel(video[-40:], fontsize="small")
    if has_labels:
        entries = [(entry.name, entry.color) for entry in space.classes] + [("(ignored)", (0, 0, 0))]
        patches = [Patch(color=f"#{r:02x}{g:02x}{b:02x}", label=name) for name, (r, g, b) in entries]
        figure.legend(handles=patches, loc="outside lower center", ncols=8, fontsize="small")
    return figure


def _readable_clips(data: VideoData) -> list[tuple[str, LabelledClip]]:
    clips = []
    for place in np.linspace(0, len(data.clips) - 1, min(NUM_CLIPS, len(data.clips))).round().astype(int):
        try:
            clips.append((data.clips[place].video, read_clip(data.clips[place], data.reading)))
        except ValueError:  # the inspection has said so
            continue
    return clips


def _pixels(frame: Tensor) -> NDArray[np.uint8]:
    return np.asarray((frame.permute(1, 2, 0) * 255).round().byte().numpy())
