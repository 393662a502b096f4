import gc
import weakref

import torch
from torch import Tensor, nn

from training.methods.early_gradient import with_early_gradient
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig


def test_early_gradients_are_the_gradients() -> None:
    layer, x = nn.Linear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64)
    losses = []
    for early in (False, True):
        layer.zero_grad()
        first, second = layer(x).square().mean(), layer(2 * x).cos().sum()
        if early:
            first = with_early_gradient(first, list(layer.parameters()))
        torch.autograd.backward(0.3 * first + second)
        losses.append((first.detach(), [parameter.grad for parameter in layer.parameters()]))
    torch.testing.assert_close(losses[1], losses[0])


def test_gradients_of_scores_go_on_to_what_made_them() -> None:
    weight = torch.randn(4, dtype=torch.float64, requires_grad=True)
    frozen = torch.ones(4, dtype=torch.float64)
    scores = weight.exp()
    torch.autograd.backward(2 * with_early_gradient((scores * frozen).square().sum(), (scores, frozen)))
    torch.testing.assert_close(weight.grad, 4 * (2 * weight).exp().detach())


def test_what_lies_between_inputs_and_loss_is_freed() -> None:
    weight = torch.randn(4, requires_grad=True)
    between: Tensor | None = weight.exp()
    assert between is not None
    alive = weakref.ref(between.untyped_storage())
    loss = with_early_gradient(between.square().sum(), (weight,))
    del between
    gc.collect()
    assert alive() is None
    assert loss.requires_grad


def test_a_loss_without_gradient_stays_without() -> None:
    constant = torch.ones(())
    assert with_early_gradient(constant, ()) is constant
    weight = torch.ones((), requires_grad=True)
    with torch.no_grad():
        assert not with_early_gradient(2 * weight, (weight,)).requires_grad


def test_a_parameter_that_the_loss_does_not_see_gets_none() -> None:
    used, unused = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    torch.autograd.backward(with_early_gradient(3 * used, (used, unused)))
    assert used.grad == 3
    assert unused.grad is None


def test_autograd_keeps_nothing_of_frozen_backbones() -> None:
    accel = AccelConfig("resnet10_slim", "resnet10_slim", FlowNetSConfig(width=0.25)).build(3)
    accel.net_ref.requires_grad_(False)
    accel.net_ref.layer6.requires_grad_(True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _, deep = accel.net_ref.features(torch.rand(1, 3, 32, 32))
    assert not deep.requires_grad
    assert not kept
