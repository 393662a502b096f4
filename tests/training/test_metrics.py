import math

import pytest
import torch

from training.metrics import confusion_matrix, mean_iou, per_class_iou


def test_the_confusion_matrix_counts_true_against_predicted_and_skips_ignored_pixels() -> None:
    labels = torch.tensor([[0, 0, 1], [2, -1, 1]])
    predictions = torch.tensor([[0, 1, 1], [0, 2, 1]])
    expected = [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion_matrix(labels, predictions, 3).tolist() == expected


def test_iou_is_the_intersection_over_the_union_in_percent() -> None:
    # class 0: 1 hit, 1 missed, 1 false; class 1: 2 hits, 1 false; class 2: 1 missed; class 3 is nowhere
    confusion = torch.tensor([[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    iou = per_class_iou(confusion).tolist()
    assert iou[:3] == [100 / 3, 200 / 3, 0.0]
    assert math.isnan(iou[3])


def test_absent_classes_are_left_out_or_count_as_zero() -> None:
    confusion = torch.tensor([[3, 0, 0], [0, 1, 1], [0, 0, 0]])
    # IoU: 100, 50, 0 (class 2 never occurs but is predicted once)
    assert mean_iou(confusion, [0, 1, 2]) == 50.0
    perfect = torch.diag(torch.tensor([2, 0]))
    assert mean_iou(perfect, [0, 1]) == 100.0
    assert mean_iou(perfect, [0, 1], absent_is_zero=True) == 50.0


def test_only_evaluated_classes_are_averaged_but_all_predictions_count() -> None:
    # class 1 is not evaluated, yet a pixel of class 0 taken for class 1 is a miss of class 0
    confusion = torch.tensor([[1, 1], [0, 4]])
    assert mean_iou(confusion, [0]) == 50.0


def test_both_conventions_of_the_mean_on_one_confusion_by_hand() -> None:
    # IoU: 6 / (8 + 7 - 6), 1 / (3 + 3 - 1), class 2 nowhere, class 3 nowhere and not evaluated
    confusion = torch.tensor([[6, 2, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    present = 100 * 6 / 9 + 100 * 1 / 5
    assert mean_iou(confusion, [0, 1, 2]) == pytest.approx(present / 2)
    assert mean_iou(confusion, [0, 1, 2], absent_is_zero=True) == pytest.approx(present / 3)
    # Class 3 is predicted once and never right: it is 0 by both conventions where it is evaluated.
    assert mean_iou(confusion, [0, 1, 2, 3]) == pytest.approx(present / 3)
    assert mean_iou(confusion, [0, 1, 2, 3], absent_is_zero=True) == pytest.approx(present / 4)


def test_the_mean_over_nothing_is_no_number() -> None:
    assert math.isnan(mean_iou(torch.zeros(2, 2, dtype=torch.int64), [0, 1]))
