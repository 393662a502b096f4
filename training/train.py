"""Trains a recipe: python -m training.train RECIPE [--out DIR] [--field value ...].

With several GPUs: torchrun --nproc_per_node 2 -m training.train RECIPE --source-batch 2 --target-batch 2

Runs that the recipe starts from are looked for beside its own folder, and trained there first if they are missing.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from training.command_line import Machine, logging_to_stderr, user_errors_exit_with_2
from training.distributed import ALONE, Ranks, connected, launched_ranks
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run_directory import Run, RunError, read_run, recipe_difference
from training.trainer import TrainingError, train

logger = logging.getLogger(__name__)
RUNS = Path("runs/training")  # where runs are written if nobody says otherwise


@dataclass(frozen=True)
class Training:
    """Options of `training.train`."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path  # run directory to write; runs it starts from lie beside it
    resume: bool = False  # go on from the last checkpoint in --out
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)


def train_with_prerequisites(
    name: str, recipe: Recipe, folder: Path, machine: Machine, resume: bool = False, ranks: Ranks = ALONE
) -> Run:
    """Trains a recipe, and before it whatever it starts from that is not trained yet, into sibling folders."""

    def find_run(needed: str) -> Run:
        sibling = folder.parent / needed
        run = ranks.first(_finished_run, sibling)
        if run is not None:
            return run
        if needed not in RECIPES:
            raise RunError(f"{name} starts from {sibling}, which is no finished run, and no recipe has that name")
        logger.info("%s starts from %s: training that first", name, needed)
        is_begun = ranks.first(sibling.exists)
        return train_with_prerequisites(needed, RECIPES[needed].recipe, sibling, machine, is_begun, ranks)

    return train(name, recipe, folder, find_run, machine, resume, ranks)


def train_unless_finished(name: str, recipe: Recipe, folder: Path, machine: Machine, ranks: Ranks = ALONE) -> Run:
    """The run of a recipe: trained now, gone on with, or as it is if it is finished already.

    Raises:
        RunError: if the folder holds a run of another recipe.
    """
    is_begun = ranks.first(_is_begun, recipe, folder)
    run = ranks.first(_finished_run, folder) if is_begun else None
    return run or train_with_prerequisites(name, recipe, folder, machine, is_begun, ranks)


def _is_begun(recipe: Recipe, folder: Path) -> bool:
    if not folder.exists():
        return False
    if difference := recipe_difference(read_run(folder), recipe):
        raise RunError(f"{folder} was trained with {difference}: remove it or choose another --out")
    return True


def _finished_run(folder: Path) -> Run | None:
    if not folder.exists():
        return None
    run = read_run(folder)
    return run if run.is_finished() else None


def main() -> None:
    """Runs the command line."""
    ranks = launched_ranks()
    if ranks.is_first:
        logging_to_stderr()
    commands = {
        name: (described.description, Training(described.recipe, RUNS / name)) for name, described in RECIPES.items()
    }
    name = next(iter(sys.argv[1:]), "")
    with connected(ranks), user_errors_exit_with_2(RunError, TrainingError, ValueError, is_told=ranks.is_first):
        if name not in RECIPES and not name.startswith("-"):
            found = f"there is no recipe {name!r}" if name else "no recipe is named"
            raise ValueError(f"{found}: choose one of {', '.join(RECIPES)}")
        options = tyro.extras.overridable_config_cli(
            commands, prog="python -m training.train", description=__doc__, console_outputs=ranks.is_first
        )
        ranks.first(_require_something_to_go_on_with, options)
        run = train_with_prerequisites(name, options.recipe, options.out, options.machine, options.resume, ranks)
        logger.info("finished: %s", run.folder)


def _require_something_to_go_on_with(options: Training) -> None:
    if options.resume and not options.out.exists():
        raise ValueError(f"there is no run at {options.out} to go on with: leave out --resume, or mend --out")


if __name__ == "__main__":
    main()
