import torch

from training.methods.pseudo_labels import confident_labels, propagated_labels, resize_scores


def test_labels_are_the_likeliest_classes_above_the_threshold() -> None:
    probabilities = torch.tensor([[0.5, 0.2, 0.1], [0.5, 0.8, 0.9]]).view(1, 2, 1, 3)
    assert confident_labels(probabilities, 0.8).tolist() == [[[-1, -1, 1]]]
    assert confident_labels(probabilities, 0.0).tolist() == [[[0, 1, 1]]]


def test_labels_come_from_where_the_flow_points() -> None:
    # Scores of four columns at a size half as large as the flow's, which is one column there.
    scores = torch.eye(4).view(1, 4, 1, 4)
    flow = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 8)
    assert propagated_labels(scores, flow, 0.0).tolist() == [[[1, 2, 3, 3]]]
    assert propagated_labels(scores, -flow, 0.0).tolist() == [[[0, 0, 1, 2]]]


def test_the_threshold_is_of_warped_probabilities() -> None:
    # Between two columns that are each certain, neither class has more than a half.
    scores = 100 * torch.eye(2).view(1, 2, 1, 2)
    flow = torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    assert propagated_labels(scores, flow, 0.9).tolist() == [[[-1, 1]]]


def test_scores_are_resized_between_their_pixels() -> None:
    enlarged = resize_scores(torch.tensor([0.0, 4.0]).view(1, 1, 1, 2), (1, 4))
    assert enlarged.flatten().tolist() == [0, 1, 3, 4]
