"""Which parameters the two stages of SFC train, and which they leave alone."""

from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from training.methods.optimization import ParameterGroup
from training.models.accel import Accel
from training.models.deeplab import DeepLab

HEAD_FACTOR = 10.0  # on the learning rate of classifiers in stage one


def stage_one_groups(segnet: DeepLab) -> list[ParameterGroup]:
    """All of a segmentation network but the scale and shift of its first BatchNorm, which are frozen."""
    segnet.bn1.requires_grad_(False)
    by_repeats: defaultdict[int, list[nn.Parameter]] = defaultdict(list)
    by_repeats[1].extend(segnet.conv1.parameters())
    for layer in (segnet.layer1, segnet.layer2, segnet.layer3, segnet.layer4):
        for parameter, num_holders in _with_num_holders(layer):
            by_repeats[num_holders].append(parameter)
    heads = [*segnet.layer6.parameters(), *(segnet.layer5.parameters() if segnet.auxiliary else ())]
    return [
        *(ParameterGroup(parameters, repeats=repeats) for repeats, parameters in by_repeats.items()),
        ParameterGroup(heads, factor=HEAD_FACTOR),
    ]


def stage_two_groups(accel: Accel) -> list[ParameterGroup]:
    """The merge layer, the flow network and both main classifiers; the rest is frozen ("fixed backbones")."""
    accel.requires_grad_(False)
    trained = (accel.merge, accel.flownet, accel.net_ref.layer6, accel.net_update.layer6)
    for module in trained:
        module.requires_grad_(True)
    return [ParameterGroup([parameter for module in trained for parameter in module.parameters()])]


def freeze_statistics(network: nn.Module) -> None:
    """Makes every BatchNorm use its running statistics and leave them as they are, until the next `train()`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _with_num_holders(module: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Each parameter below `module` with the number of modules that hold it, `module` included.

    The official code lists a parameter once per holder.
    """
    for name, parameter in module.named_parameters():
        yield parameter, name.count(".") + 1
