"""The segmentation-to-flow module (SFM) of SFC: the flow that a segmentation of two frames implies.

A flow network sees both frames through one class at a time; the flows of the classes are summed (SFC, Eq. 1):

    SF = sum over c of SFM([P_t^c X_t, P_k^c X_k])

The official code sums the classes that occur when it trains the SFM on labels, and all classes when it adapts with
predictions. The two differ: a class that occurs nowhere adds SFM(0), which biases keep from being zero.
"""

import torch
from torch import Tensor

from training.data.clip import IGNORE
from training.models.optical_flow import FlowNet

PAIRS_PER_PASS = 16  # pairs of masked frames that go through the SFM at once; bounds memory, not the result


def flow_from_labels(
    sfm: FlowNet, current_labels: Tensor, previous_labels: Tensor, current: Tensor, previous: Tensor
) -> Tensor:
    """Flow (B, 2, H / 4, W / 4) summed over the classes that occur in either frame of a sample.

    Args:
        sfm: The flow network that looks at one class at a time.
        current_labels: (B, H, W), class indices, or `IGNORE`; some pixel must have a class.
        previous_labels: (B, H, W).
        current: (B, 3, H, W), RGB in 0..1.
        previous: (B, 3, H, W).
    """
    classes = torch.unique(torch.cat([current_labels, previous_labels]))
    classes = classes[classes != IGNORE]
    current_masks = (current_labels.unsqueeze(1) == classes.view(-1, 1, 1)).to(current.dtype)
    previous_masks = (previous_labels.unsqueeze(1) == classes.view(-1, 1, 1)).to(current.dtype)
    occurs = _occurs(current_masks, previous_masks)
    return _sum_of_flows(sfm, current_masks, previous_masks, current, previous, occurs, classes)


def flow_from_probabilities(
    sfm: FlowNet, current_probabilities: Tensor, previous_probabilities: Tensor, current: Tensor, previous: Tensor
) -> Tensor:
    """Flow (B, 2, H / 4, W / 4) summed over all classes.

    A class whose probability is exactly zero everywhere in both frames, as a sharp softmax leaves many, is not
    computed: it adds SFM(0) and has no gradient.

    Args:
        sfm: The flow network that looks at one class at a time.
        current_probabilities: (B, C, H, W).
        previous_probabilities: (B, C, H, W).
        current: (B, 3, H, W), RGB in 0..1.
        previous: (B, 3, H, W).
    """
    occurs = _occurs(current_probabilities, previous_probabilities)
    classes = torch.arange(occurs.shape[1], device=occurs.device)
    flow = _sum_of_flows(sfm, current_probabilities, previous_probabilities, current, previous, occurs, classes)
    if bool(occurs.all()):
        return flow
    black = torch.zeros_like(current[:1])
    return flow + (~occurs).sum(1).view(-1, 1, 1, 1) * sfm(black, black)


def _occurs(current_masks: Tensor, previous_masks: Tensor) -> Tensor:
    """Whether a class has any pixel in a pair of frames: (B, C) bool."""
    return (current_masks.detach().amax((2, 3)) > 0) | (previous_masks.detach().amax((2, 3)) > 0)


def _sum_of_flows(
    sfm: FlowNet,
    current_masks: Tensor,
    previous_masks: Tensor,
    current: Tensor,
    previous: Tensor,
    chosen: Tensor,
    classes: Tensor,
) -> Tensor:
    """Flow (B, 2, H / 4, W / 4) summed over each sample's `chosen` (B, C) masks; at least one must be chosen.

    `classes` (C,) says which class each mask is of.
    """
    samples, indices = chosen.nonzero(as_tuple=True)
    pairs = zip(torch.split(samples, PAIRS_PER_PASS), torch.split(indices, PAIRS_PER_PASS), strict=True)
    flows = torch.cat(
        [
            sfm.of_class(
                current[sample],
                previous[sample],
                (current_masks[sample, index], previous_masks[sample, index]),
                classes[index],
            )
            for sample, index in pairs
        ]
    )
    return flows.new_zeros(len(current), *flows.shape[1:]).index_add(0, samples, flows)
