"""Optimizers and learning-rate schedules as values that a recipe can name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import torch
from torch import nn
from torch.optim import Optimizer


class ParameterGroup(NamedTuple):
    """Parameters that are trained alike."""

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0  # on the learning rate
    repeats: int = 1  # how often the official code lists each of them; only `RepeatedSgd` repeats the step


@dataclass(frozen=True)
class OptimizerSpec:
    """Which optimizer, at which learning rate."""

    def build(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """The optimizer of these parameters."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sgd(OptimizerSpec):
    """Stochastic gradient descent with momentum."""

    learning_rate: float = 2.5e-4  # before the schedule; groups such as classifiers multiply it
    momentum: float = 0.9  # share of the last step kept in the next
    weight_decay: float = 5e-4  # L2 penalty, added to the gradient

    def build(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """See `OptimizerSpec.build`."""
        settings = _settings(groups, self.learning_rate)
        return torch.optim.SGD(settings, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class RepeatedSgd(OptimizerSpec):
    """Stochastic gradient descent as the official code runs it: with most backbone tensors listed three times.

    SFC, AdvEnt, DA-VSN and TPS collect parameters per module, children included, so an optimizer that walks its list
    moves a convolution in a bottleneck three times per iteration by the same gradient. The published numbers rest on
    it: the learning rate of the backbone is about three times the nominal one.
    """

    learning_rate: float = 2.5e-4  # before the schedule; groups such as classifiers multiply it
    momentum: float = 0.9  # share of the last step kept in the next
    weight_decay: float = 5e-4  # L2 penalty, added to the gradient

    def build(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """See `OptimizerSpec.build`."""
        return RepeatedMomentum(_settings(groups, self.learning_rate), self.momentum, self.weight_decay)


@dataclass(frozen=True)
class Adam(OptimizerSpec):
    """Adam with coupled weight decay."""

    learning_rate: float = 2e-3  # before the schedule; groups such as classifiers multiply it
    beta1: float = 0.9  # decay of the gradient's mean
    beta2: float = 0.999  # decay of its square's mean
    weight_decay: float = 0.0  # L2 penalty, added to the gradient

    def build(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """See `OptimizerSpec.build`."""
        settings = _settings(groups, self.learning_rate)
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(settings, lr=self.learning_rate, betas=betas, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Clipped(OptimizerSpec):
    """Another optimizer, on gradients whose norm is limited."""

    optimizer: OptimizerSpec = field(default_factory=RepeatedSgd)  # takes the steps
    max_norm: float = 1.0  # largest norm of all gradients together; longer ones are scaled down to it

    def build(self, groups: Sequence[ParameterGroup]) -> Optimizer:
        """See `OptimizerSpec.build`."""
        optimizer = self.optimizer.build(groups)
        parameters = [parameter for group in groups for parameter in group.parameters]

        def clip(*_: object) -> None:
            nn.utils.clip_grad_norm_(parameters, self.max_norm)

        optimizer.register_step_pre_hook(clip)
        return optimizer


OPTIMIZERS: tuple[type[OptimizerSpec], ...] = (Sgd, RepeatedSgd, Adam, Clipped)


def _settings(groups: Sequence[ParameterGroup], learning_rate: float) -> list[dict[str, Any]]:  # Any: as torch takes it
    return [
        {"params": list(group.parameters), "lr": group.factor * learning_rate, "repeats": group.repeats}
        for group in groups
    ]


class RepeatedMomentum(Optimizer):
    """Momentum descent that applies each gradient `repeats` times, a setting of the parameter group."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float, weight_decay: float) -> None:
        """Each group carries "params", "lr" and "repeats"."""
        super().__init__(groups, {"momentum": momentum, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One iteration. Takes no closure: losses belong to the method."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                is_first = "momentum_buffer" not in state
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                for _ in range(group["repeats"]):
                    change = parameter.grad.add(parameter, alpha=group["weight_decay"])
                    # In its first iteration the official optimizer has no buffer yet for any of the repeats.
                    buffer.mul_(0 if is_first else group["momentum"]).add_(change)
                    parameter.sub_(group["lr"] * buffer)
        return None


@dataclass(frozen=True)
class Schedule:
    """How learning rates change during a run."""

    def factor(self, step: int, steps: int) -> float:
        """What every learning rate is multiplied with before step `step` (from 0) of `steps`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate throughout."""

    def factor(self, step: int, steps: int) -> float:
        """See `Schedule.factor`."""
        del step, steps
        return 1.0


@dataclass(frozen=True)
class Poly(Schedule):
    """Polynomial decay to zero, at the end of the run or later."""

    power: float = 0.9  # exponent of the remaining share of the decay
    length: float = 1.0  # of the decay, in lengths of the run; AdvEnt's code stops a decay of 250,000 steps at 120,000

    def factor(self, step: int, steps: int) -> float:
        """See `Schedule.factor`."""
        return float((1 - step / (self.length * steps)) ** self.power)


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A small learning rate first, the full one afterwards."""

    warm_up_steps: int = 1000  # iterations at the small rate
    start_factor: float = 0.1  # the small rate, as a share of the full one
    late: bool = False  # one step at the full rate first, as where the official code sets the rate after the step

    def factor(self, step: int, steps: int) -> float:
        """See `Schedule.factor`."""
        del steps
        return self.start_factor if self.late <= step < self.late + self.warm_up_steps else 1.0


@dataclass(frozen=True)
class StepDecay(Schedule):
    """The full learning rate first, a small one afterwards."""

    at: float = 0.5  # when it falls, as a share of the run
    end_factor: float = 0.1  # the small rate, as a share of the full one

    def factor(self, step: int, steps: int) -> float:
        """See `Schedule.factor`."""
        return 1.0 if step < self.at * steps else self.end_factor


SCHEDULES: tuple[type[Schedule], ...] = (Constant, Poly, WarmUp, StepDecay)
