"""Trains a recipe: python -m training.train RECIPE [--out DIR] [--field value ...].

Runs that the recipe starts from are looked for beside its own folder, and trained there first if they are missing.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from training.command_line import Machine, choose_device, logging_to_stderr, user_errors_exit_with_2
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


def train_with_prerequisites(name: str, recipe: Recipe, folder: Path, machine: Machine, resume: bool = False) -> Run:
    """Trains a recipe, and before it whatever it starts from that is not trained yet, into sibling folders."""

    def find_run(needed: str) -> Run:
        sibling = folder.parent / needed
        if sibling.exists():
            run = read_run(sibling)
            if run.is_finished():
                return run
        if needed not in RECIPES:
            raise RunError(f"{name} starts from {sibling}, which is no finished run, and no recipe has that name")
        logger.info("%s starts from %s: training that first", name, needed)
        return train_with_prerequisites(needed, RECIPES[needed].recipe, sibling, machine, resume=sibling.exists())

    return train(name, recipe, folder, find_run, choose_device(machine.device), resume, machine.workers)


def train_unless_finished(name: str, recipe: Recipe, folder: Path, machine: Machine) -> Run:
    """The run of a recipe: trained now, gone on with, or as it is if it is finished already.

    Raises:
        RunError: if the folder holds a run of another recipe.
    """
    if not folder.exists():
        return train_with_prerequisites(name, recipe, folder, machine)
    run = read_run(folder)
    if difference := recipe_difference(run, recipe):
        raise RunError(f"{folder} was trained with {difference}: remove it or choose another --out")
    return run if run.is_finished() else train_with_prerequisites(name, recipe, folder, machine, resume=True)


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    commands = {
        name: (described.description, Training(described.recipe, RUNS / name)) for name, described in RECIPES.items()
    }
    name = next(iter(sys.argv[1:]), "")
    with user_errors_exit_with_2(RunError, TrainingError, ValueError):
        if name not in RECIPES and not name.startswith("-"):
            found = f"there is no recipe {name!r}" if name else "no recipe is named"
            raise ValueError(f"{found}: choose one of {', '.join(RECIPES)}")
        options = tyro.extras.overridable_config_cli(commands, prog="python -m training.train", description=__doc__)
        if options.resume and not options.out.exists():
            raise ValueError(f"there is no run at {options.out} to go on with: leave out --resume, or mend --out")
        run = train_with_prerequisites(name, options.recipe, options.out, options.machine, options.resume)
        logger.info("finished: %s", run.folder)


if __name__ == "__main__":
    main()
