"""The loop: performs the optimizer steps a method asks for. It knows no method.

One iteration draws a source batch and, for methods that read it, a target batch, sets the learning rates, and resumes
the method's generator until it is exhausted; after each yielded `Update` the named network takes one optimizer step.
"""

import contextlib
import itertools
import logging
import math
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import Dataset

from training.acceleration import accelerate, require_compiler
from training.command_line import Machine
from training.data.augmentation import Augmented
from training.data.clip import Clip
from training.data.loader import batches
from training.data.unlabelled import Unlabelled
from training.distributed import ALONE, Ranks
from training.journal import Journal
from training.methods.method import Method, Networks, Update
from training.recipe import Recipe
from training.run_directory import (
    Run,
    RunError,
    read_run,
    recipe_difference,
    save_checkpoint,
    write_run_file,
)
from training.state import State, initial_state
from training.stopwatch import Stopwatch

logger = logging.getLogger(__name__)
Item = TypeVar("Item", bound=tuple[Any, ...])
LOG_EVERY = 20  # iterations between logged losses
NO_TARGET = Clip(torch.empty(0, 0, 3, 0, 0))  # for methods that do not read it


class TrainingError(RuntimeError):
    """Training that cannot go on. The message is one sentence; the last checkpoint is good."""


def train(
    name: str,
    recipe: Recipe,
    folder: Path,
    find_run: Callable[[str], Run],
    machine: Machine,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """Trains a recipe into a run directory and returns the run.

    Args:
        name: of the recipe.
        folder: must not exist, unless `resume` goes on from the last checkpoint in it.
        find_run: gives the runs `recipe.start_from` names.
        machine: what to train on.
        resume: go on from the last checkpoint.
        ranks: the processes that share each batch. All of them call this and see the same folders.

    Raises:
        RunError, ValueError: for what the user can mend, before anything is trained.
        TrainingError: when a loss is not finite, or the disk is full. The last checkpoint is good then.
    """
    goes_on = ranks.first(_goes_on, name, recipe, folder, resume)
    _require_shares(name, recipe, ranks)
    device = ranks.together(ranks.device, machine.device)
    source, target = ranks.together(_datasets, recipe)
    runs = {} if goes_on else {needed: find_run(needed) for needed in recipe.prerequisites()}
    state = ranks.together(initial_state, recipe, runs, device, folder / "last.pt" if goes_on else None)
    ranks.equalize(state.networks.values())
    ranks.together(_accelerate, name, state, machine, device)
    created = ranks.first(_create, folder)
    try:
        computing = {"precision": machine.precision, "processes": str(ranks.size)}
        ranks.first(write_run_file, folder, name, recipe, computing)
        _loop(name, recipe, folder, state, source, target, device, machine, ranks)
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written at step {state.step} ({error.strerror}): make room and go on by --resume"
        ) from error
    finally:
        if created and ranks.is_first and not (folder / "last.pt").exists():
            shutil.rmtree(folder)  # nothing worth keeping: do not stand in the way of the next try
    return ranks.first(read_run, folder)


def _goes_on(name: str, recipe: Recipe, folder: Path, resume: bool) -> bool:
    """Whether there is a checkpoint of this recipe to go on from."""
    if folder.exists() and not resume:
        raise RunError(f"{folder} exists: choose another --out, or go on with it by --resume")
    if not (resume and (folder / "last.pt").is_file()):
        return False
    run = read_run(folder)
    if run.name != name:
        raise RunError(f"{folder} is a run of {run.name}, not of {name}: choose another --out")
    if difference := recipe_difference(run, recipe):
        raise RunError(f"{folder} was trained with {difference}: go on with the same recipe, or choose another --out")
    return True


def _require_shares(name: str, recipe: Recipe, ranks: Ranks) -> None:
    sizes = {"source": recipe.source_batch, "target": recipe.target_batch if recipe.method.num_target_frames() else 0}
    for domain, size in sizes.items():
        if size % ranks.size:
            raise ValueError(
                f"{name} has {domain} batches of {size}, which {ranks.size} processes cannot share: choose a multiple"
                f" of {ranks.size} by --{domain}-batch, or train it in one process"
            )


def _accelerate(name: str, state: State, machine: Machine, device: torch.device) -> None:
    if machine.compile:
        require_compiler(device)
    num_backbones = sum(
        accelerate(state.networks[trained], machine.precision, machine.compile) for trained in state.optimizers
    )
    if not num_backbones and machine != replace(machine, precision="fp32", compile=False):
        logger.info("%s trains no backbone: --precision and --compile change nothing", name)


def _create(folder: Path) -> bool:
    """Makes a run directory if there is none; whether it did."""
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    return created


def _loop(
    name: str,
    recipe: Recipe,
    folder: Path,
    state: State,
    source: Dataset[Any],
    target: Dataset[Clip],
    device: torch.device,
    machine: Machine,
    ranks: Ranks,
) -> None:
    journal, stopwatch = Journal(name, folder, recipe.steps), Stopwatch()
    pairs = stopwatch.awaited(
        ranks.together(_batch_pairs, recipe, source, target, state.step, device, machine.workers, ranks)
    )
    with contextlib.closing(journal):
        ranks.first(journal.open, state.step)
        while state.step < recipe.steps:
            with stopwatch.iteration():
                losses = _iteration(recipe, state, pairs, device, ranks)
            state.step += 1
            if ranks.is_first:
                journal.show(state.step, losses)
            if state.step % LOG_EVERY == 0:
                figures = {f"loss/{loss}": value for loss, value in losses.items()}
                ranks.first(journal.record, state.step, figures | stopwatch.report())
            is_validated = state.step % recipe.validate_every == 0 or state.step == recipe.steps
            if is_validated or state.step % recipe.checkpoint_every == 0:
                ranks.average_statistics(state.networks.values())
                if is_validated:
                    ranks.first(_validate, recipe, folder, state, journal, device)
                ranks.first(save_checkpoint, folder / "last.pt", state.checkpoint())
    if ranks.is_first and (complaint := stopwatch.complaint()):
        logger.info("%s: %s", name, complaint)


def _batch_pairs(
    recipe: Recipe,
    source: Dataset[Any],
    target: Dataset[Clip],
    step: int,
    device: torch.device,
    workers: int,
    ranks: Ranks,
) -> Iterator[tuple[Any, Clip]]:
    """This process's part of the batches of both domains, in the memory of the machine."""

    def batches_of(dataset: Dataset[Item], size: int, seed: int) -> Iterator[Item]:
        return batches(dataset, size, seed, step, workers, device.type == "cuda", ranks.slice_of(size))

    source_batches = batches_of(source, recipe.source_batch, recipe.seed)
    if not recipe.method.num_target_frames():
        return zip(source_batches, itertools.repeat(NO_TARGET), strict=False)
    return zip(source_batches, batches_of(target, recipe.target_batch, recipe.seed + 1), strict=True)


def _iteration(
    recipe: Recipe, state: State, pairs: Iterator[tuple[Any, Clip]], device: torch.device, ranks: Ranks
) -> dict[str, float]:
    """The optimizer steps of one iteration; returns the losses, averaged over processes."""
    factor = recipe.method.learning_rate_factor(state.step, recipe.steps)
    for name, optimizer in state.optimizers.items():
        state.networks[name].train()
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
    updates = _updates(recipe.method, state.networks, pairs, device)
    losses: dict[str, float] = {}
    while differentiated := list(filter(None, ranks.gather(ranks.together(_differentiate_next, updates, state)))):
        network = differentiated[0].network
        ranks.average_gradients(state.networks[network], len(differentiated))
        state.optimizers[network].step()
        state.optimizers[network].zero_grad()  # now, so that the next step's graphs do not grow beside old gradients
        for loss in differentiated[0].losses:
            losses[loss] = statistics.fmean(each.losses[loss] for each in differentiated)
    return losses


def _updates(
    method: Method[Any], networks: Networks, pairs: Iterator[tuple[Any, Clip]], device: torch.device
) -> Iterator[Update]:
    source, target = next(pairs)
    source = type(source)(*(tensor.to(device, non_blocking=True) for tensor in source))
    yield from method.updates(networks, source, Clip(target.frames.to(device, non_blocking=True)))


class Differentiated(NamedTuple):
    """An update whose gradients wait at the parameters."""

    network: str
    losses: dict[str, float]


def _differentiate_next(updates: Iterator[Update], state: State) -> Differentiated | None:
    """None if there is no further update; other processes may have one."""
    update = next(updates, None)
    if update is None:
        return None
    values = {name: float(loss.detach()) for name, loss in update.losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"loss {name!r} of {update.network!r} is {value} at step {state.step}: lower the learning rate or look"
                " at the data; the last checkpoint is from before"
            )
    trained = [parameter for parameter in state.networks[update.network].parameters() if parameter.requires_grad]
    # Of no other network: a discriminator must not learn from what the segmenter is told by it.
    torch.autograd.backward(torch.stack(list(update.losses.values())).sum(), inputs=trained)
    return Differentiated(update.network, values)


def _validate(recipe: Recipe, folder: Path, state: State, journal: Journal, device: torch.device) -> None:
    state.measures = recipe.validation.measure(_evaluating(state.networks), device)
    journal.record(state.step, {f"validation/{measure}": value for measure, value in state.measures.items()})
    logger.info("step %d: %s", state.step, ", ".join(f"{name} {value:.3f}" for name, value in state.measures.items()))
    score = recipe.validation.score(state.measures)
    if score > state.best_score:
        state.best_score = score
        save_checkpoint(folder / "best.pt", state.checkpoint())


def _datasets(recipe: Recipe) -> tuple[Dataset[Any], Dataset[Clip]]:
    if recipe.source.label_space != recipe.target.label_space:
        raise ValueError(
            f"source has the classes of {recipe.source.label_space.name}, target those of"
            f" {recipe.target.label_space.name}: choose data sets with one label space"
        )
    if recipe.target.num_frames < (needed := recipe.method.num_target_frames()):
        raise ValueError(
            f"{type(recipe.method).__name__} looks at {needed} frames of the target, whose clips have"
            f" {recipe.target.num_frames}: choose --target.num-frames {needed}"
        )
    source = recipe.source.open()
    if recipe.augment_source:
        source = Augmented(source, recipe.seed)
    return source, Unlabelled(recipe.target.open())


def _evaluating(networks: Networks) -> Networks:
    for network in networks.values():
        network.eval()
    return networks
