"""How accuracy falls as key frames become rare.

A stream with key-frame interval N answers each frame from the state that exists, and renews the state after every Nth
frame (training/streaming.py). Which frames are key frames is chance to a labelled frame: its key-frame age, the number
of frames since the key frame it is answered from, is 1, 2, ..., N equally often. So for interval N

    the confusion matrix is the sum of those at ages 1, ..., N of the labelled frame, which ends each clip;
    temporal consistency is the mean over the same N streams, each comparing the labelled frame with the one before:
        ages a + 1 and a where no key frame lies between them, ages 1 and N where the frame before is the key frame.

An answer depends on nothing but the key frame and the frames since. So one run per age serves all intervals, and a
clip needs max(N) + 2 frames: the labelled one, and the oldest key frame of the one before. For the largest N it costs
(N + 1)(N + 2) / 2 steps of the cheap branch and N + 1 key frames.

Interval 1 is the papers' evaluation of pairs (only that a pair answers its first frame from itself when it comes to
consistency). But a longer clip of the embedded world ends with a later frame, and videos too short for the largest
interval drop out: compare intervals within one sweep.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.data import DataConfig
from training.data.labelled_dataset import LabelledDataset
from training.models.video_segmenter import VideoSegmenter
from training.progress import with_progress
from training.protocols import PROTOCOLS, confusion_of, empty_confusion, open_labelled
from training.temporal_consistency import agreement, flow_to_previous


class IntervalEvaluation(NamedTuple):
    """What was counted at one key-frame interval."""

    interval: int  # frames from one key frame to the next
    confusions: dict[str, Tensor]  # of each protocol: (C, C) int64, summed over key-frame ages
    temporal_consistency: float  # percent, mean over key-frame ages


class Answers(NamedTuple):
    """The scores (1, C, h, w) of the last two frames of a clip; position a - 1 has those at key-frame age a."""

    last: list[Tensor]
    before: list[Tensor]


def open_for_sweep(data: DataConfig, intervals: Sequence[int]) -> LabelledDataset:
    """Opens data in clips that are long enough.

    Raises:
        ValueError: if an interval is not positive, or the data have no such clips.
    """
    if min(intervals) < 1:
        raise ValueError(
            f"a key-frame interval of {min(intervals)} does not exist: choose 1, which is every frame, or more"
        )
    num_frames = max(intervals) + 2
    try:
        return open_labelled(data.with_num_frames(num_frames))
    except ValueError as error:
        raise ValueError(
            f"key-frame interval {max(intervals)} takes clips of {num_frames} frames, which these data do not have"
            f" ({error}): choose smaller --key-frame-intervals"
        ) from error


@torch.no_grad()
def sweep_key_frame_intervals(
    segmenter: VideoSegmenter,
    dataset: LabelledDataset,
    intervals: Sequence[int],
    protocols: Sequence[str],
    device: torch.device,
) -> list[IntervalEvaluation]:
    """Evaluates at every interval; `dataset` comes from `open_for_sweep`."""
    oldest = max(intervals)
    confusions = {name: [empty_confusion(segmenter) for _ in range(oldest)] for name in protocols}  # per age
    agreements: dict[int, list[float]] = {interval: [] for interval in intervals}
    for index in with_progress(range(len(dataset)), "key-frame intervals"):
        clip = dataset[index]
        answers = answers_by_age(segmenter, clip.frames[None].to(device))
        for name in protocols:
            labels = PROTOCOLS[name].labels(dataset, index, clip)
            for age, scores in enumerate(answers.last[:oldest], 1):
                confusions[name][age - 1] += confusion_of(PROTOCOLS[name], scores, labels)
        flow = flow_to_previous(clip.frames[-2:])
        last, before = ([segmenter.upsample(scores).argmax(1)[0].byte().cpu() for scores in frame] for frame in answers)
        following = [agreement(last[age], before[age - 1], flow) for age in range(1, oldest)]  # ages age + 1 and age
        for interval in intervals:
            renewed = agreement(last[0], before[interval - 1], flow)
            agreements[interval].append(sum(following[: interval - 1], renewed) / interval)
    return [
        IntervalEvaluation(
            interval,
            {name: torch.stack(of_age[:interval]).sum(0) for name, of_age in confusions.items()},
            sum(agreements[interval]) / len(dataset),
        )
        for interval in intervals
    ]


def answers_by_age(segmenter: VideoSegmenter, frames: Tensor) -> Answers:
    """The answers to the last two of T frames (1, T, 3, H, W), from every possible key frame before them.

    The last frame has ages 1 to T - 1, the one before 1 to T - 2.
    """
    answers = Answers([], [])
    for age in range(1, frames.shape[1]):
        steps = [step.logits for step in segmenter.propagations(frames[:, -1 - age :])]
        answers.last.append(steps[-1])
        answers.before.extend(steps[-2:-1])
    return answers
