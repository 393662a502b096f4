"""Confusion matrices and what is read off them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.data.clip import IGNORE


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Counts of (true class, predicted class) over all labelled pixels.

    Args:
        labels: integers of any shape, train ids or IGNORE.
        predictions: integers of the same shape, in 0..num_classes - 1.

    Returns:
        (num_classes, num_classes) int64.
    """
    known = labels != IGNORE
    pairs = labels[known].long() * num_classes + predictions[known].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class in percent, (C,) float64.

    NaN where a class neither occurs nor is predicted.
    """
    confusion = confusion.double()
    intersection = confusion.diagonal()
    return 100 * intersection / (confusion.sum(0) + confusion.sum(1) - intersection)


def mean_iou(confusion: Tensor, evaluated: Sequence[int], absent_is_zero: bool = False) -> float:
    """Mean IoU in percent over the `evaluated` classes.

    Classes that neither occur nor are predicted are left out, as ADVENT and its successors do, or count as zero
    (`absent_is_zero`), as SFC's released evaluation does.
    """
    iou = per_class_iou(confusion)[list(evaluated)]
    return float(iou.nan_to_num(0.0).mean() if absent_is_zero else iou.nanmean())
