"""The two ways in which the field evaluates; figures of one cannot be compared with those of the other.

    sfc      SFC's released code: frames and labels at the network's input size, scores enlarged to it as in the
             network (align_corners=False); a class that neither occurs nor is predicted counts 0
    advent   ADVENT, and DA-VSN, TPS after it: frames at the network's input size, labels as they are stored, scores
             enlarged to the labels (align_corners=True); a class that neither occurs nor is predicted is left out

Both average over the classes that a label space evaluates. Both read labels of the last frame of a clip, whose first
frame is the key frame: clips of two frames are the papers' evaluation.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import DataConfig
from training.data.clip import LabelledClip
from training.data.labelled_dataset import LabelledDataset
from training.data.video_files import Size
from training.metrics import confusion_matrix
from training.models.video_segmenter import VideoSegmenter
from training.progress import with_progress
from training.temporal_consistency import agreement, flow_to_previous


class Protocol(NamedTuple):
    """What is compared with what, and how the mean is taken."""

    labels: Callable[[LabelledDataset, int, LabelledClip], Tensor]  # (H', W') of a clip: its data set, index and item
    enlarge: Callable[[Tensor, Size], Tensor]  # scores (1, C, h, w) at the size of the labels
    absent_is_zero: bool  # whether a class that neither occurs nor is predicted counts 0 or is left out


def labels_of_network_size(dataset: LabelledDataset, index: int, clip: LabelledClip) -> Tensor:
    """The last frame's labels, resized like the frame."""
    del dataset, index
    return clip.labels[-1]


def labels_as_stored(dataset: LabelledDataset, index: int, clip: LabelledClip) -> Tensor:
    """The last frame's labels, never resized."""
    del clip
    return dataset.native_labels(index)


def enlarge_by_pixel_areas(scores: Tensor, size: Size) -> Tensor:
    """Bilinear, `align_corners=False`: the outlines of the maps coincide."""
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def enlarge_by_pixel_centers(scores: Tensor, size: Size) -> Tensor:
    """Bilinear, `align_corners=True`: the middles of the corner pixels coincide."""
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=True)


PROTOCOLS: dict[str, Protocol] = {
    "sfc": Protocol(labels_of_network_size, enlarge_by_pixel_areas, absent_is_zero=True),
    "advent": Protocol(labels_as_stored, enlarge_by_pixel_centers, absent_is_zero=False),
}


class Evaluation(NamedTuple):
    """What was counted on a data set."""

    confusions: dict[str, Tensor]  # of each protocol: (C, C) int64, true class by predicted class
    temporal_consistency: float  # percent, at the network's size
    num_clips: int


@torch.no_grad()
def evaluate_clips(
    segmenter: VideoSegmenter, dataset: LabelledDataset, protocols: Sequence[str], device: torch.device
) -> Evaluation:
    """Segments every clip from its first frame on, and judges the last frame.

    Raises:
        ValueError: if clips have one frame, which cannot be compared with the one before.
    """
    confusions = {name: empty_confusion(segmenter) for name in protocols}
    agreements = []
    for index in with_progress(range(len(dataset)), "evaluating"):
        clip = dataset[index]
        if len(clip.frames) < 2:
            raise ValueError("clips of one frame have no temporal consistency: use data with at least 2 num_frames")
        frames = clip.frames[None].to(device)
        steps = [step.logits for step in segmenter.propagations(frames)]
        # The first frame of a stream is answered from itself.
        before = steps[-2] if len(steps) > 1 else next(segmenter.propagations(frames[:, :1])).logits
        for name in protocols:
            confusions[name] += confusion_of(PROTOCOLS[name], steps[-1], PROTOCOLS[name].labels(dataset, index, clip))
        labels, previous_labels = (segmenter.upsample(scores).argmax(1)[0] for scores in (steps[-1], before))
        agreements.append(agreement(labels, previous_labels, flow_to_previous(clip.frames[-2:])))
    return Evaluation(confusions, sum(agreements) / len(agreements), len(dataset))


def confusion_of(protocol: Protocol, scores: Tensor, labels: Tensor) -> Tensor:
    """The confusion matrix (C, C), on the CPU, of a frame's scores (1, C, h, w) and its labels (H', W')."""
    height, width = labels.shape
    predictions = protocol.enlarge(scores, (height, width)).argmax(1)[0]
    return confusion_matrix(labels.to(predictions.device), predictions, scores.shape[1]).cpu()


def empty_confusion(segmenter: VideoSegmenter) -> Tensor:
    """A confusion matrix (C, C) of nothing."""
    return torch.zeros(segmenter.num_classes, segmenter.num_classes, dtype=torch.int64)


def open_labelled(data: DataConfig) -> LabelledDataset:
    """Opens data to evaluate on.

    Raises:
        ValueError: if they have no labels, or cannot be read.
    """
    dataset = data.open()
    if not isinstance(dataset, LabelledDataset):
        raise ValueError(f"{type(data).__name__} has no labels to evaluate on: choose a --dataset that has")
    return dataset
