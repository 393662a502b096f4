"""The loop: performs the optimizer steps a method asks for. It knows no method.

One iteration draws a source batch and, for methods that read it, a target batch, sets the learning rates, and resumes
the method's generator until it is exhausted; after each yielded `Update` the named network takes one optimizer step.
"""

import contextlib
import itertools
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.data import Dataset

from training.data.augmentation import Augmented
from training.data.clip import Clip
from training.data.loader import batches
from training.data.unlabelled import Unlabelled
from training.journal import Journal
from training.methods.method import Method, Networks, Update
from training.recipe import Recipe
from training.run_directory import (
    Run,
    RunError,
    load_checkpoint,
    load_weights,
    read_run,
    recipe_difference,
    save_checkpoint,
    start_weights,
    write_run_file,
)
from training.stopwatch import Stopwatch

logger = logging.getLogger(__name__)
LOG_EVERY = 20  # iterations between logged losses
NO_TARGET = Clip(torch.empty(0, 0, 3, 0, 0))  # for methods that do not read it


class TrainingError(RuntimeError):
    """Training that cannot go on. The message is one sentence; the last checkpoint is good."""


@dataclass
class State:
    """All that changes while training."""

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
        """Goes back to a checkpoint."""
        checkpoint = load_checkpoint(path)
        self.step = int(checkpoint["step"])
        self.best_score = float(checkpoint["best_score"])
        self.measures = checkpoint["measures"]
        for name, network in self.networks.items():
            load_weights(network, checkpoint["networks"].get(name), f"{path}:{name}")
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(checkpoint["optimizers"][name])
        torch.set_rng_state(checkpoint["rng"])


def train(
    name: str,
    recipe: Recipe,
    folder: Path,
    find_run: Callable[[str], Run],
    device: torch.device,
    resume: bool = False,
    workers: int = 0,
) -> Run:
    """Trains a recipe into a run directory and returns the run.

    Args:
        name: of the recipe.
        folder: must not exist, unless `resume` goes on from the last checkpoint in it.
        find_run: gives the runs `recipe.start_from` names.
        workers: processes that read each domain's data ahead; the order is the same with any number.

    Raises:
        RunError, ValueError: for what the user can mend, before anything is trained.
        TrainingError: when a loss is not finite, or the disk is full. The last checkpoint is good then.
    """
    if folder.exists() and not resume:
        raise RunError(f"{folder} exists: choose another --out, or go on with it by --resume")
    goes_on = resume and (folder / "last.pt").is_file()
    if goes_on:
        _require_same(read_run(folder), name, recipe)
    source, target = _datasets(recipe)
    torch.manual_seed(recipe.seed)
    networks = recipe.method.networks(recipe.source.label_space.num_classes)
    if not goes_on:
        start_weights(networks, recipe, find_run)
    for network in networks.values():
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # channels last: a third faster
    state = State(networks, _optimizers(recipe.method, networks), step=0, best_score=-math.inf, measures={})
    if goes_on:
        state.restore(folder / "last.pt")
        logger.info("going on at step %d of %d", state.step, recipe.steps)

    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        write_run_file(folder, name, recipe)
        _loop(name, recipe, folder, state, source, target, device, workers)
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written at step {state.step} ({error.strerror}): make room and go on by --resume"
        ) from error
    finally:
        if created and not (folder / "last.pt").exists():
            shutil.rmtree(folder)  # nothing worth keeping: do not stand in the way of the next try
    return read_run(folder)


def _require_same(run: Run, name: str, recipe: Recipe) -> None:
    if run.name != name:
        raise RunError(f"{run.folder} is a run of {run.name}, not of {name}: choose another --out")
    if difference := recipe_difference(run, recipe):
        raise RunError(
            f"{run.folder} was trained with {difference}: go on with the same recipe, or choose another --out"
        )


def _loop(
    name: str,
    recipe: Recipe,
    folder: Path,
    state: State,
    source: Dataset[Any],
    target: Dataset[Clip],
    device: torch.device,
    workers: int,
) -> None:
    journal, stopwatch = Journal(name, folder, recipe.steps), Stopwatch()
    batch_pairs = stopwatch.awaited(_batch_pairs(recipe, source, target, state.step, device, workers))
    with contextlib.closing(journal):
        journal.open(state.step)
        while state.step < recipe.steps:
            with stopwatch.iteration():
                losses = _iteration(recipe, state, batch_pairs, device)
            state.step += 1
            journal.show(state.step, losses)
            if state.step % LOG_EVERY == 0:
                figures = {f"loss/{loss}": value for loss, value in losses.items()}
                journal.record(state.step, figures | stopwatch.report())
            if state.step % recipe.validate_every == 0 or state.step == recipe.steps:
                state.measures = recipe.validation.measure(_evaluating(state.networks), device)
                journal.record(
                    state.step, {f"validation/{measure}": value for measure, value in state.measures.items()}
                )
                _save_validated(folder, state, recipe.validation.score(state.measures))
            elif state.step % recipe.checkpoint_every == 0:
                save_checkpoint(folder / "last.pt", state.checkpoint())
    if complaint := stopwatch.complaint():
        logger.info("%s: %s", name, complaint)


def _batch_pairs(
    recipe: Recipe, source: Dataset[Any], target: Dataset[Clip], step: int, device: torch.device, workers: int
) -> Iterator[tuple[Any, Clip]]:
    """Batches of both domains, in the memory of the machine."""
    pinned = device.type == "cuda"
    source_batches = batches(source, recipe.source_batch, recipe.seed, step, workers, pinned)
    if not recipe.method.reads_target():
        return zip(source_batches, itertools.repeat(NO_TARGET), strict=False)
    target_batches = batches(target, recipe.target_batch, recipe.seed + 1, step, workers, pinned)
    return zip(source_batches, target_batches, strict=True)


def _iteration(
    recipe: Recipe, state: State, batch_pairs: Iterator[tuple[Any, Clip]], device: torch.device
) -> dict[str, float]:
    factor = recipe.method.learning_rate_factor(state.step, recipe.steps)
    for name, optimizer in state.optimizers.items():
        state.networks[name].train()
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
    source, target = next(batch_pairs)
    source = type(source)(*(tensor.to(device, non_blocking=True) for tensor in source))
    target = Clip(target.frames.to(device, non_blocking=True))
    losses: dict[str, float] = {}
    for update in recipe.method.updates(state.networks, source, target):
        losses |= _perform(update, state.optimizers[update.network], state.step)
    return losses


def _perform(update: Update, optimizer: Optimizer, step: int) -> dict[str, float]:
    values = {name: float(loss.detach()) for name, loss in update.losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"loss {name!r} of {update.network!r} is {value} at step {step}: lower the learning rate or look at the"
                " data; the last checkpoint is from before"
            )
    torch.stack(list(update.losses.values())).sum().backward()  # type: ignore[no-untyped-call]  # untyped in torch
    optimizer.step()
    optimizer.zero_grad()  # now, so that the next step's graphs do not grow beside old gradients
    return values


def _save_validated(folder: Path, state: State, score: float) -> None:
    if score > state.best_score:
        state.best_score = score
        save_checkpoint(folder / "best.pt", state.checkpoint())
    save_checkpoint(folder / "last.pt", state.checkpoint())
    logger.info("step %d: %s", state.step, ", ".join(f"{name} {value:.3f}" for name, value in state.measures.items()))


def _datasets(recipe: Recipe) -> tuple[Dataset[Any], Dataset[Clip]]:
    if recipe.source.label_space != recipe.target.label_space:
        raise ValueError(
            f"source has the classes of {recipe.source.label_space.name}, target those of"
            f" {recipe.target.label_space.name}: choose data sets with one label space"
        )
    source = recipe.source.open()
    if recipe.augment_source:
        source = Augmented(source, recipe.seed)
    return source, Unlabelled(recipe.target.open())


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


def _evaluating(networks: Networks) -> Networks:
    for network in networks.values():
        network.eval()
    return networks
