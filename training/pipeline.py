"""Trains a recipe and all it starts from, in order: python -m training.pipeline viper-accel-sfc --viper DIR ...

Writes a run directory per stage into --out. Finished stages are skipped and an interrupted one is gone on with, so the
same command is right after a power cut. `--list` says what would be done.
"""

import dataclasses
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import tyro
from rich.console import Console
from rich.table import Table

from training.command_line import Machine, logging_to_stderr, user_errors_exit_with_2
from training.data import CityscapesSeq, SynthiaSeq, VideoFolder, Viper, World
from training.distributed import ALONE, Ranks, connected, launched_ranks
from training.label_spaces import LABEL_SPACES
from training.recipe import Recipe
from training.recipes import RECIPES, RECOMMENDED
from training.run_directory import Run, RunError, read_run
from training.train import train_unless_finished
from training.trainer import TrainingError
from training.validation import ConfidenceValidation

logger = logging.getLogger(__name__)
Value = TypeVar("Value")
BenchmarkName = Literal["viper", "synthia"]  # whose classes are used


@dataclass(frozen=True)
class Options:
    """Options of `training.pipeline`."""

    recipe: tyro.conf.Positional[str] = RECOMMENDED  # the last stage; `python -m training.train --help` lists them
    viper: Path | None = None  # folder of VIPER, which holds train/img and train/cls
    synthia: Path | None = None  # folder of SYNTHIA-SEQS-04-DAWN
    cityscapes: Path | None = None  # folder of Cityscapes, which holds leftImg8bit_sequence and gtFine
    videos: Path | None = None  # folder of your own videos: the target, in place of the recipe's
    out: Path = Path("runs/pipeline")  # folder of the run directories, one per stage
    seed: int = 0  # of all stages
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)
    list: bool = False  # only say which stages there are and how far they have come


def stages(name: str) -> Iterator[str]:
    """The recipes and converted runs that a recipe starts from, each after what it starts from, and last itself.

    Raises:
        ValueError: if there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    seen: set[str] = set()

    def visit(stage: str) -> Iterator[str]:
        if stage in seen:
            return
        seen.add(stage)
        for needed in RECIPES[stage].recipe.prerequisites() if stage in RECIPES else ():
            yield from visit(needed)
        yield stage

    yield from visit(name)


def with_roots(value: Value, roots: dict[type, Path]) -> Value:
    """A recipe, or any part of one, whose data sets of these types lie in these folders."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changes: dict[str, Any] = {}  # Any: of any field
    for entry in dataclasses.fields(value):
        changes[entry.name] = with_roots(getattr(value, entry.name), roots)
    if type(value) in roots:
        changes["root"] = roots[type(value)]
    return replace(value, **changes)


def run_pipeline(options: Options, ranks: Ranks = ALONE) -> Run:
    """Trains what is not trained yet and returns the last run.

    Raises:
        ValueError: if there is no such recipe, or a data set's folder is missing.
        RunError: if a run that is no recipe is missing, or one of another recipe is in the way.
        TrainingError: if a training cannot go on.
    """
    order = list(stages(options.recipe))
    converted = [stage for stage in order if stage not in RECIPES]
    for stage in converted:
        if not (options.out / stage).exists():
            raise RunError(
                f"{options.recipe} starts from {options.out / stage}, which is not there: make it of the official file"
                f" with 'python -m training.convert FILE --out {options.out / stage}'"
            )
    for number, stage in enumerate(order, 1):
        logger.info("stage %d of %d: %s", number, len(order), stage)
        if stage not in converted:
            recipe = _recipe(stage, options)
            last = train_unless_finished(stage, recipe, options.out / stage, options.machine, ranks)
    return last


def _recipe(stage: str, options: Options) -> Recipe:
    given = {Viper: options.viper, SynthiaSeq: options.synthia, CityscapesSeq: options.cityscapes}
    recipe = replace(RECIPES[stage].recipe, seed=options.seed)
    if options.videos is not None:
        recipe = with_own_videos(recipe, options.videos)
    return with_roots(recipe, {kind: root for kind, root in given.items() if root is not None})


def with_own_videos(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe that adapts to videos nobody has labelled.

    No label of the target is left to validate with or to choose a checkpoint by, so validation is on the source, and
    the last checkpoint counts; but a recipe that chooses without labels goes on to do so, on the videos.
    """
    source, target = recipe.source, recipe.target
    assert isinstance(target, World | CityscapesSeq)
    (classes,) = (name for name in get_args(BenchmarkName) if LABEL_SPACES[name] == source.label_space)
    own = VideoFolder(root=folder, size=target.size, num_frames=target.num_frames, classes=classes)
    if isinstance(recipe.validation, ConfidenceValidation):
        return replace(recipe, target=own, validation=replace(recipe.validation, data=own))
    held_out = replace(source, split="val") if isinstance(source, World | Viper) else source
    return replace(recipe, target=own, validation=replace(recipe.validation, data=held_out), keep_best=False)


def _show(options: Options) -> None:
    table = Table(title=f"stages of {options.recipe}")
    for column in ("stage", "steps", "state"):
        table.add_column(column)
    for stage in stages(options.recipe):
        folder = options.out / stage
        steps = f"{RECIPES[stage].recipe.steps:,}" if stage in RECIPES else "converted"
        state = "to do"
        if folder.exists():
            state = "finished" if read_run(folder).is_finished() else "begun"
        table.add_row(stage, steps, state)
    Console().print(table)


def main() -> None:
    """Runs the command line."""
    ranks = launched_ranks()
    if ranks.is_first:
        logging_to_stderr()
    with connected(ranks), user_errors_exit_with_2(RunError, TrainingError, ValueError, is_told=ranks.is_first):
        options = tyro.cli(
            Options, prog="python -m training.pipeline", description=__doc__, console_outputs=ranks.is_first
        )
        ranks.together(ranks.device, options.machine.device)
        if options.list:
            ranks.first(_show, options)
            return
        run = run_pipeline(options, ranks)
        if ranks.is_first:
            logger.info("finished: %s", run.folder)
            sys.stdout.write(f"{run.folder}\n")


if __name__ == "__main__":
    main()
