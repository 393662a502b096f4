"""Gradients computed before the optimizer asks for them, so that no two graphs are in memory at once.

The official code runs backward on the source before it forwards the target. A method yields the losses of both together
and knows no optimizer; it gets the same peak of memory by taking a term's gradient as soon as the term is known. The
gradients are the same numbers, and the sum of losses is differentiated as ever.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def with_early_gradient(loss: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The same loss, its gradient already taken and its graph freed.

    The gradient waits at the loss for backward, which may run once and multiplies it. The loss scaling that float16
    needs would come too late for it; bfloat16 needs none.

    Args:
        loss: A scalar.
        inputs: All tensors that backward should reach: parameters, or scores that go on to other parts of a graph.
    """
    inputs = [tensor for tensor in inputs if tensor.requires_grad]
    if not loss.requires_grad or not torch.is_grad_enabled():
        return loss
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    value: Tensor = _KnownGradient.apply(loss.detach(), gradients, *inputs)  # type: ignore[no-untyped-call]  # torch
    return value


class _KnownGradient(torch.autograd.Function):
    """A number with the gradients it is known to have."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor) -> Tensor:  # Any: torch's
        """Keeps the gradients. Detached: the graph behind `loss` is gone."""
        del inputs
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:  # Any: torch's context is untyped
        """Hands the gradients on; in place, since a second copy of a network's would be the peak of memory."""
        (of_loss,) = output_gradients
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(None if each is None else each.mul_(of_loss) for each in gradients)
