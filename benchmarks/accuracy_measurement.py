"""Streams labelled videos through a bundle, each frame to a stream of every key-frame policy, and counts."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from benchmarks.accuracy_report import savings
from benchmarks.footage import Footage, LabelledFrame, label_space
from serving.bundle import Bundle
from serving.engine import Engine
from serving.key_frames import Adaptive, FixedInterval, KeyFramePolicy
from serving.stream import Stream
from training.label_spaces import LabelSpace
from training.metrics import confusion_matrix, mean_iou
from training.progress import with_progress


class Policy(NamedTuple):
    """A policy to measure."""

    kind: Literal["fixed", "cuts", "adaptive"]
    setting: float  # the interval in frames, or the staleness
    settings: FixedInterval | Adaptive

    def of_a_stream(self, bundle: Bundle) -> KeyFramePolicy:
        """A new one: streams share none."""
        settings = self.settings
        return settings if isinstance(settings, FixedInterval) else settings.policy(bundle.manifest.baseline)


class Count(NamedTuple):
    """What a policy did on some footage."""

    num_frames: int
    num_keys: int
    confusion: Tensor  # (C, C) int64

    def plus(self, other: "Count") -> "Count":
        """Of both."""
        confusion = self.confusion + other.confusion
        return Count(self.num_frames + other.num_frames, self.num_keys + other.num_keys, confusion)


Counts = dict[tuple[str, str], list[Count]]  # of every policy, in their order, by group and part


def stream_all(
    engine: Engine, chosen: Sequence[Policy], videos: Sequence[Footage]
) -> dict[tuple[str, str], list[Count]]:
    """Counts of every policy, in their order, by group and part."""
    space = label_space(engine.bundle)
    counts: Counts = defaultdict(lambda: [_nothing(space)] * len(chosen))
    answered = chain.from_iterable(_stream(engine, chosen, video, space) for video in videos)
    for _ in with_progress(range(sum(video.num_frames for video in videos)), "frames through all policies"):
        video, of_frame = next(answered)
        place = (video.group, video.part)
        counts[place] = [count.plus(more) for count, more in zip(counts[place], of_frame, strict=True)]
    return dict(counts)


def _nothing(space: LabelSpace) -> Count:
    return Count(0, 0, torch.zeros(space.num_classes, space.num_classes, dtype=torch.int64))


def _stream(
    engine: Engine, chosen: Sequence[Policy], video: Footage, space: LabelSpace
) -> Iterator[tuple[Footage, list[Count]]]:
    """A video's frames, each through a stream of every policy."""
    with ExitStack() as stack:
        streams = [
            stack.enter_context(engine.open_stream(policy=policy.of_a_stream(engine.bundle))) for policy in chosen
        ]
        for frame in video.read():
            yield video, _answers(streams, frame, space)


def _answers(streams: Sequence[Stream], frame: LabelledFrame, space: LabelSpace) -> list[Count]:
    futures = [stream.submit(frame.frame) for stream in streams]
    results = [future.result() for future in futures]
    return [
        Count(
            1,
            int(result.is_key),
            confusion_matrix(frame.labels, torch.from_numpy(result.labels).long(), space.num_classes),
        )
        for result in results
    ]


def figures(chosen: Sequence[Policy], counts: Counts, space: LabelSpace) -> dict[str, dict[str, Any]]:
    """By group: the points of every policy over all parts, and those of each part."""
    groups: dict[str, dict[str, Any]] = {}
    for group in dict.fromkeys(group for group, _ in counts):
        parts = {part: own for (of_group, part), own in counts.items() if of_group == group}
        total = [_nothing(space)] * len(chosen)
        for own in parts.values():
            total = [count.plus(more) for count, more in zip(total, own, strict=True)]
        points = {part: _points(chosen, own, space) for part, own in parts.items()}
        overall = _points(chosen, total, space)
        groups[group] = {
            "frames": total[0].num_frames, "points": overall, "parts": points,
            "savings": savings(overall, list(points.values())),
        }  # fmt: skip
    return groups


def _points(chosen: Sequence[Policy], counts: Sequence[Count], space: LabelSpace) -> list[dict[str, Any]]:
    return [
        {
            "policy": policy.kind,
            "setting": policy.setting,
            "key_share": 100 * count.num_keys / count.num_frames,  # percent of frames
            "miou": mean_iou(count.confusion, space.evaluated),  # percent
        }
        for policy, count in zip(chosen, counts, strict=True)
    ]
