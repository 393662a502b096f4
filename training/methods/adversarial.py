"""What the adversarial methods share: discriminators tell the domains apart, the segmenter is to confuse them."""

import math
from collections.abc import Iterator
from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from training.methods.method import Networks
from training.methods.optimization import OptimizerSpec, ParameterGroup
from training.models.discriminator import Discriminator

LEVELS = ("main", "auxiliary")  # names of a segmenter's classifiers, in the order of its `Levels`


class Domain(IntEnum):
    """What a discriminator says of a map."""

    SOURCE = 0
    TARGET = 1


def domain_loss(logits: Tensor, domain: Domain) -> Tensor:
    """Binary cross entropy of a discriminator's logits, all of maps of one domain."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(domain)))


def discriminator_loss(discriminator: nn.Module, of_source: Tensor, of_target: Tensor) -> Tensor:
    """Mean of `domain_loss` over both domains' maps (B, C, H, W), through which no gradient passes."""
    on_source = domain_loss(discriminator(of_source.detach()), Domain.SOURCE)
    on_target = domain_loss(discriminator(of_target.detach()), Domain.TARGET)
    return (on_source + on_target) / 2


def discriminator_optimizers(optimizer: OptimizerSpec, networks: Networks) -> dict[str, Optimizer]:
    """An optimizer for each discriminator among a method's networks."""
    return {
        name: optimizer.build([ParameterGroup(list(network.parameters()))])
        for name, network in networks.items()
        if isinstance(network, Discriminator)
    }


def self_information(probabilities: Tensor) -> Tensor:
    """Weighted self-information (B, C, H, W) of class probabilities, -p log p / log C (AdvEnt, Eq. 6).

    Summed over classes it is the entropy, in units of the largest there can be.
    """
    return -probabilities * torch.log2(probabilities + 1e-30) / math.log2(probabilities.shape[1])


def weight_similarity(first: nn.Module, second: nn.Module) -> Tensor:
    """Mean over the weights of two equal networks of 1 + the cosine between them: 2 for twins (DA-VSN).

    Gradient reaches `first` alone.
    """

    def terms() -> Iterator[Tensor]:
        for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
            # A copy: the optimizer may have moved `second` before this one's backward pass reads it.
            yield 1 + F.cosine_similarity(ours.flatten(), theirs.detach().clone().flatten(), dim=0)

    return torch.stack(list(terms())).mean()
