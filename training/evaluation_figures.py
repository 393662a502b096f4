"""The figures of an evaluation as JSON for machines and as CSV tables."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from training.key_frame_sweep import IntervalEvaluation
from training.label_spaces import LabelSpace
from training.metrics import mean_iou, per_class_iou
from training.protocols import PROTOCOLS, Evaluation

Figures = dict[str, Any]  # Any: of numbers, strings, lists and dicts, what JSON knows


def figures_of(dataset: str, space: LabelSpace, evaluation: Evaluation) -> Figures:
    """Mean IoU, IoU of every class and confusion matrix by each protocol, and temporal consistency, in percent.

    The IoU of a class that neither occurs nor is predicted is None where it is left out of the mean, 0 where it counts.
    """
    return {
        "dataset": dataset,
        "num_clips": evaluation.num_clips,
        "classes": list(space.names),
        "evaluated": [space.names[train_id] for train_id in space.evaluated],  # what the means are of
        "protocols": {
            name: {**_iou(name, space, confusion), "confusion": confusion.tolist()}  # true class by predicted class
            for name, confusion in evaluation.confusions.items()
        },
        "temporal_consistency": evaluation.temporal_consistency,
    }


def sweep_figures(space: LabelSpace, num_clips: int, sweep: Sequence[IntervalEvaluation]) -> Figures:
    """The same at every key-frame interval, without the confusion matrices."""
    return {
        "num_clips": num_clips,
        "intervals": [
            {
                "interval": at.interval,
                "protocols": {name: _iou(name, space, confusion) for name, confusion in at.confusions.items()},
                "temporal_consistency": at.temporal_consistency,
            }
            for at in sweep
        ],
    }


def _iou(protocol: str, space: LabelSpace, confusion: Tensor) -> Figures:
    absent_is_zero = PROTOCOLS[protocol].absent_is_zero
    iou = per_class_iou(confusion)
    values = (iou.nan_to_num(0.0) if absent_is_zero else iou).tolist()
    return {
        "miou": _number_or_none(mean_iou(confusion, space.evaluated, absent_is_zero)),
        "iou": {name: _number_or_none(value) for name, value in zip(space.names, values, strict=True)},
    }


def _number_or_none(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value


def class_table(figures: Figures) -> str:
    """CSV with a row per class: whether the mean counts it, and its IoU in percent by each protocol."""
    protocols = figures["protocols"]
    header = ("class", "evaluated", *(f"iou_{name}" for name in protocols))
    rows = (
        (name, name in figures["evaluated"], *(protocol["iou"][name] for protocol in protocols.values()))
        for name in figures["classes"]
    )
    return _csv(header, rows)


def interval_table(figures: Figures) -> str:
    """CSV with a row per key-frame interval: temporal consistency, mean IoU and IoU of every class, in percent."""
    intervals = figures["key_frame_intervals"]["intervals"]
    names = ("miou", *(f"iou_{name}" for name in figures["classes"]))
    header = ("interval", "temporal_consistency", *(f"{name}_{key}" for key in figures["protocols"] for name in names))
    rows = (
        (
            at["interval"],
            at["temporal_consistency"],
            *(value for of in at["protocols"].values() for value in (of["miou"], *of["iou"].values())),
        )
        for at in intervals
    )
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # None becomes an empty cell
    return text.getvalue()
