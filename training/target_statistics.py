"""The control every table carries: BatchNorm statistics re-estimated on target frames, and nothing else changed.

Forwarding unlabelled target frames in training mode moves the running statistics of BatchNorm to the target domain.
Part of what adaptation methods gain is that alone, so it is measured apart.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from training.data.clip import Clip


def with_target_statistics(network: nn.Module, target: Iterable[Clip], device: torch.device) -> nn.Module:
    """A copy whose BatchNorm statistics are the averages over `target`; weights are the same.

    Statistics that no training moves stay as they are too: those of modules that `train` leaves in evaluation mode.

    Args:
        network: takes frames (B, T, 3, H, W).
        target: finite; each batch is forwarded once in training mode.
    """
    network = copy.deepcopy(network).train()
    fixed = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and not module.training]
    before = [copy.deepcopy(norm.state_dict()) for norm in fixed]
    update_bn(target, network, device)
    for norm, state in zip(fixed, before, strict=True):  # which `update_bn` has reset
        norm.load_state_dict(state)
    return network.eval()
