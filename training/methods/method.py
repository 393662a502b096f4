"""The seam of all methods: a method is hyperparameters plus a generator of optimizer steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from training.data.clip import Clip, FlowClip, LabelledClip

Source = TypeVar("Source", LabelledClip, FlowClip)
Networks = dict[str, nn.Module]


class Update(NamedTuple):
    """One optimizer step: minimise the sum of `losses` with respect to `network`, and to no other network."""

    network: str  # key of the method's networks and optimizers
    losses: dict[str, Tensor]  # scalars, already weighted; the names become the logged curves


@dataclass(eq=False)
class Method(Generic[Source]):
    """Hyperparameters of one way to train. The trainer performs each yielded step before it resumes the generator.

    Networks that `optimizers` does not name are frozen by the trainer: no gradient, evaluation mode.
    """

    def networks(self, num_classes: int) -> Networks:
        """All networks the method needs, newly initialised, by name."""
        raise NotImplementedError

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """An optimizer for each network that is trained; parameters left out of it must not require gradients."""
        raise NotImplementedError

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """What every learning rate is multiplied with before step `step` (from 0) of `steps`."""
        raise NotImplementedError

    def num_target_frames(self) -> int:
        """How many last frames of a target clip `updates` looks at; at 0 none is read, and it gets one without."""
        raise NotImplementedError

    def updates(self, networks: Networks, source: Source, target: Clip) -> Iterator[Update]:
        """The optimizer steps of one iteration. `target` are the unlabelled frames of the other domain."""
        raise NotImplementedError
