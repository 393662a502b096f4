"""Merged scores of two frames in a row, the backbone run once on the frame that both branches of Accel look at.

SFC's stage two (Gao et al., AAAI 2023) merges frame t from (t - 1, t) and frame t - 1 from (t - 2, t - 1). The
reference network sees t - 1 in the first pair, the update network sees it in the second. The paper fills both from one
run and keeps their backbones fixed, so their features of t - 1 are the same numbers: three of four forward passes are
enough. What the pass left out would have done to the update network's BatchNorm statistics is taken over from the
reference's.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.models.accel import Accel
from training.models.deeplab import DeepLab
from training.models.upsampling import upsample
from training.models.video_segmenter import Levels, VideoSegmenter


def levels_of_last_two(segmenter: VideoSegmenter, frames: Tensor) -> tuple[Levels, Levels]:
    """`level_logits` of the last frame and of the one before, each from its pair.

    Args:
        segmenter: its BatchNorm statistics move as if both pairs were forwarded, the later one first.
        frames: (B, T, 3, H, W), T >= 3.
    """
    if not (isinstance(segmenter, Accel) and _are_twins(segmenter.net_ref, segmenter.net_update)):
        return segmenter.level_logits(frames[:, -2:]), segmenter.level_logits(frames[:, -3:-1])
    before, previous, current = frames[:, -3:].unbind(1)
    old_statistics = [statistic.clone() for _, statistic in _statistics(segmenter.net_ref)]
    shared = segmenter.net_ref.features(previous)[1]
    contributions = [
        statistic - (1 - momentum) * old
        for (momentum, statistic), old in zip(_statistics(segmenter.net_ref), old_statistics, strict=True)
    ]
    of_current = segmenter.propagate((upsample(segmenter.net_ref.layer6(shared), 2),), previous, current)
    _move_statistics(segmenter.net_update, contributions)
    update_scores = segmenter.net_update.layer6(shared)
    of_previous = segmenter.correct(segmenter.encode_key(before), before, previous, update_scores)
    return (of_current.logits,), (of_previous.logits,)


def _are_twins(first: DeepLab, second: DeepLab) -> bool:
    """Whether two networks have the same features of a frame: equal weights, statistics of the batch alone."""
    ours, theirs = dict(_backbone(first)), dict(_backbone(second))
    if not (first.training and second.training and torch.equal(first.conv1.weight, second.conv1.weight)):
        return False
    if not all(norm.training for network in (first, second) for norm in _norms(network)):
        return False
    if {name: weight.shape for name, weight in ours.items()} != {name: weight.shape for name, weight in theirs.items()}:
        return False
    return bool(torch.stack([(weight == theirs[name]).all() for name, weight in ours.items()]).all())


def _backbone(network: DeepLab) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in network.named_parameters() if not name.startswith("layer6."))


def _norms(network: DeepLab) -> Iterator[nn.BatchNorm2d]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def _statistics(network: DeepLab) -> Iterator[tuple[float, Tensor]]:
    """Each running statistic with its momentum: the weight of a new batch."""
    for norm in _norms(network):
        assert norm.momentum is not None
        yield norm.momentum, norm.get_buffer("running_mean")
        yield norm.momentum, norm.get_buffer("running_var")


@torch.no_grad()
def _move_statistics(network: DeepLab, contributions: list[Tensor]) -> None:
    for (momentum, statistic), contribution in zip(_statistics(network), contributions, strict=True):
        statistic.mul_(1 - momentum).add_(contribution)
    for norm in _norms(network):
        norm.get_buffer("num_batches_tracked").add_(1)
