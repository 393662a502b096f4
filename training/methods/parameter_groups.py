"""Which parameters the two stages of SFC train, and which they leave alone."""

from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from training.methods.optimization import ParameterGroup
from training.models.deeplab import DeepLab
from training.models.video_segmenter import VideoSegmenter

HEAD_FACTOR = 10.0  # on the learning rate of classifiers in stage one


def stage_one_groups(segnet: DeepLab, train_bn: bool) -> list[ParameterGroup]:
    """All of a segmentation network but the scale and shift of its first BatchNorm, which are frozen.

    Without `train_bn` those of all others are frozen too.
    """
    for norm in _norms(segnet):
        norm.requires_grad_(train_bn and norm is not segnet.bn1)
    by_repeats: defaultdict[int, list[nn.Parameter]] = defaultdict(list)
    by_repeats[1].extend(segnet.conv1.parameters())
    for layer in (segnet.layer1, segnet.layer2, segnet.layer3, segnet.layer4):
        for parameter, num_holders in _with_num_holders(layer):
            if parameter.requires_grad:
                by_repeats[num_holders].append(parameter)
    heads = [*segnet.layer6.parameters(), *(segnet.layer5.parameters() if segnet.auxiliary else ())]
    return [
        *(ParameterGroup(parameters, repeats=repeats) for repeats, parameters in by_repeats.items()),
        ParameterGroup(heads, factor=HEAD_FACTOR),
    ]


def stage_two_groups(segmenter: VideoSegmenter) -> list[ParameterGroup]:
    """What lies around the residual networks; the rest is frozen ("fixed backbones")."""
    segmenter.requires_grad_(False)
    trained = segmenter.around_backbones()
    for module in trained:
        module.requires_grad_(True)
    return [ParameterGroup([parameter for module in trained for parameter in module.parameters()])]


def freeze_statistics(network: nn.Module) -> None:
    """Makes every BatchNorm use its running statistics and leave them, until the next `train()`."""
    for norm in _norms(network):
        norm.eval()


def freeze_statistics_of_fixed(network: nn.Module) -> None:
    """`freeze_statistics` of every BatchNorm whose scale and shift are not trained."""
    for norm in _norms(network):
        if not norm.weight.requires_grad:
            norm.eval()


def _norms(network: nn.Module) -> Iterator[nn.BatchNorm2d]:
    return (module for module in network.modules() if isinstance(module, nn.BatchNorm2d))


def _with_num_holders(module: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Each parameter below `module` with the number of modules that hold it, `module` included.

    The official code lists a parameter once per holder.
    """
    for name, parameter in module.named_parameters():
        yield parameter, name.count(".") + 1
