"""AdvEnt and what it shares with DA-VSN."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from training.data.clip import Clip, LabelledClip
from training.methods.adversarial import (
    Domain,
    discriminator_loss,
    domain_loss,
    self_information,
    weight_similarity,
)
from training.methods.method import Method
from training.models.discriminator import Discriminator

Small = Callable[..., Method[Any]]  # Any: methods of either source


def test_self_information_by_hand() -> None:
    # p = 1/2, 1/4, 1/8, 1/8: -p log2 p = 1/2, 1/2, 3/8, 3/8, over log2 4.
    p = torch.tensor([0.5, 0.25, 0.125, 0.125]).view(1, 4, 1, 1)
    torch.testing.assert_close(self_information(p).flatten(), torch.tensor([0.25, 0.25, 0.1875, 0.1875]))
    assert not self_information(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).any()
    assert self_information(torch.full((1, 6, 1, 1), 1 / 6)).sum().item() == pytest.approx(1)


def test_domain_losses_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)])  # it says target with probability 1/2 and 3/4
    assert domain_loss(logits, Domain.TARGET).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert domain_loss(logits, Domain.SOURCE).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_a_discriminator_learns_from_both_domains_and_tells_neither_map() -> None:
    maps = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).requires_grad_()
    scale = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(scale.weight, math.log(3))  # it knows both domains, with probability 3/4
    loss = discriminator_loss(scale, maps[:1], maps[1:])
    assert loss.item() == pytest.approx(math.log(4 / 3))
    torch.autograd.backward(loss)
    assert maps.grad is None
    assert scale.weight.grad is not None


def test_weights_are_two_alike_none_opposed_and_the_other_network_is_left_alone() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    assert weight_similarity(first, second).item() == pytest.approx(2)
    with torch.no_grad():
        second.weight.neg_()
    similarity = weight_similarity(first, second)
    assert similarity.item() == pytest.approx(1)  # the mean of 0 for the weights and 2 for the biases
    torch.autograd.backward(similarity)
    assert second.weight.grad is None
    assert first.weight.grad is not None


def test_the_discriminator_is_the_papers() -> None:
    with torch.device("meta"):
        network = Discriminator(15, 64)
        assert network(torch.empty(1, 15, 512, 1024)).shape == (1, 1, 16, 32)
    channels = [(each.in_channels, each.out_channels) for each in network if isinstance(each, nn.Conv2d)]
    assert channels == [(15, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert all(
        (each.kernel_size, each.stride, each.padding) == ((4, 4), (2, 2), (1, 1))
        for each in network
        if isinstance(each, nn.Conv2d)
    )


@pytest.mark.parametrize(("stage", "levels"), [("one", ["main", "auxiliary"]), ("two", ["main"])])
def test_each_classifier_has_a_discriminator_which_the_segmenter_is_to_fool(
    stage: str, levels: list[str], small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("advent", stage)
    networks = method.networks(4)
    method.optimizers(networks)
    for level in levels:  # each says source, with probability 3/4, whatever it sees
        last = list(networks[f"{level}_discriminator"].children())[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.get_parameter("bias"), -math.log(3))
    first, *others = method.updates(networks, source, target)
    expected = {"main_adversarial": 0.001 * math.log(4 / 3), "auxiliary_adversarial": 0.0002 * math.log(4 / 3)}
    assert first.network == "segmenter"
    assert set(first.losses) == {"source", *(f"{level}_adversarial" for level in levels)}
    for level in levels:
        assert first.losses[f"{level}_adversarial"].item() == pytest.approx(expected[f"{level}_adversarial"])
    assert [update.network for update in others] == [f"{level}_discriminator" for level in levels]
    for update in others:  # right about the source, wrong about the target
        (loss,) = update.losses.values()
        assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_the_adversarial_loss_alone_reaches_the_segmenter(small: Small, source: LabelledClip, target: Clip) -> None:
    method = small("advent")
    networks = method.networks(4)
    update = next(iter(method.updates(networks, source, target)))
    weights = list(networks["segmenter"].parameters())
    gradients = torch.autograd.grad(update.losses["auxiliary_adversarial"], weights, allow_unused=True)
    reached = {
        name.split(".")[1]
        for (name, _), each in zip(networks["segmenter"].named_parameters(), gradients, strict=True)
        if each is not None and bool(each.any())
    }
    assert reached == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer5"}  # not behind its own classifier
