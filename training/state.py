"""All that changes while training, how it begins, and what a checkpoint keeps of it."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from training.methods.method import Method, Networks
from training.recipe import Recipe
from training.run_directory import Run, RunError, load_checkpoint, load_weights, start_weights

logger = logging.getLogger(__name__)


@dataclass
class State:
    """Networks and optimizers, and how far they have come."""

    networks: Networks
    optimizers: dict[str, Optimizer]
    step: int  # iterations done
    best_score: float  # of the best validation so far
    measures: dict[str, float]  # of the last validation

    def checkpoint(self) -> dict[str, Any]:
        """What it takes to go on from here."""
        return {
            "step": self.step,
            "best_score": self.best_score,
            "measures": self.measures,
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "rng": torch.get_rng_state(),
        }

    def restore(self, path: Path) -> None:
        """Goes back to a checkpoint.

        Raises:
            RunError: if it is damaged, or is not of these networks.
        """
        checkpoint = load_checkpoint(path)
        for name, network in self.networks.items():
            load_weights(network, checkpoint["networks"].get(name), f"{path}:{name}")
        try:
            self.step, self.measures = checkpoint["step"], checkpoint["measures"]
            self.best_score = float(checkpoint["best_score"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(checkpoint["optimizers"][name])
            torch.set_rng_state(checkpoint["rng"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise RunError(
                f"{path} cannot be gone on from ({type(error).__name__}): its optimizers or its state of chance are"
                " damaged, train the run again"
            ) from error


def initial_state(recipe: Recipe, runs: dict[str, Run], device: torch.device, checkpoint: Path | None) -> State:
    """Newly drawn networks with the weights that the recipe starts from, or where a checkpoint left off."""
    torch.manual_seed(recipe.seed)
    networks = recipe.method.networks(recipe.source.label_space.num_classes)
    if checkpoint is None:
        start_weights(networks, recipe, runs.__getitem__)
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # channels last: a third faster
    state = State(networks, _optimizers(recipe.method, networks), step=0, best_score=-math.inf, measures={})
    if checkpoint is not None:
        state.restore(checkpoint)
        logger.info("going on at step %d of %d", state.step, recipe.steps)
    return state


def _optimizers(method: Method[Any], networks: Networks) -> dict[str, Optimizer]:
    optimizers = method.optimizers(networks)
    for name, network in networks.items():
        if name not in optimizers:
            network.requires_grad_(False)
            network.eval()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    return optimizers
