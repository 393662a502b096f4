"""Trains the stages of rows, each once however many rows need it, and goes on where it was interrupted.

Run directories lie in OUT/runs/CLASSES/TARGET/seed-N/RECIPE. Stages that no target frame takes part in are the same for
all looks of the world, so their TARGET is "source". A stage that fails costs the rows that need it: why is kept, and
the next call tries again.
"""

import logging
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.paper_recipes import recipe_name
from benchmarks.paper_results import Results, find, place, put
from benchmarks.paper_scales import LOOKS, Scale, Setting, scaled_recipes
from training.command_line import Machine
from training.data import DataConfig, World
from training.methods.flow_supervision import FlowSupervision
from training.recipe import Recipe
from training.run_directory import RUN_FILE, Run, RunError, read_run, recipe_difference
from training.trainer import train

logger = logging.getLogger(__name__)
REASON_LENGTH = 240  # letters of what is kept of an error

RecipesOf = Callable[[Setting, Scale, int], dict[str, Recipe]]  # by name, for a seed


class StageFailedError(Exception):
    """A stage that could not be trained. The message is one sentence."""


class Stage(NamedTuple):
    """A training."""

    setting: Setting
    seed: int
    name: str  # of the recipe


@dataclass
class Workshop:
    """Where stages are trained."""

    folder: Path  # of all results
    scale: Scale
    machine: Machine
    results: Results  # how long stages took is written here
    recipes_of: RecipesOf = scaled_recipes  # what can be trained
    runs: dict[Stage, Run] = field(default_factory=dict)  # that were asked for
    failures: dict[Stage, str] = field(default_factory=dict)  # why there is no run; one sentence
    recipes: dict[tuple[Setting, int], dict[str, Recipe]] = field(default_factory=dict)
    orders: dict[Stage, tuple[Stage, ...]] = field(default_factory=dict)

    def stages_of(self, setting: Setting, seed: int, system: str) -> tuple[Stage, ...]:
        """The trainings behind a system, each after what it starts from."""
        last = Stage(setting, seed, recipe_name(setting.family, system))
        if last not in self.orders:
            self.orders[last] = tuple(dict.fromkeys(self._shared(stage) for stage in self._order(last)))
        return self.orders[last]

    def converted(self, stage: Stage) -> set[str]:
        """Runs of official weights that a stage starts from."""
        return {name for name in self.recipe(stage).prerequisites() if name not in self._recipes(stage)}

    def recipe(self, stage: Stage) -> Recipe:
        """What a stage trains."""
        return self._recipes(stage)[stage.name]

    def recipe_of(self, setting: Setting, seed: int, system: str) -> Recipe:
        """The last recipe of a system, on this setting's target even if the run is shared with others."""
        return self.recipe(Stage(setting, seed, recipe_name(setting.family, system)))

    def target_validation(self, setting: Setting, seed: int) -> DataConfig:
        """What every system of a setting is judged on; a recipe may choose its checkpoint by other frames."""
        return self.recipe_of(setting, seed, "source-only").validation.data

    def seconds_of(self, stage: Stage) -> float | None:
        """How long it took in this call or an earlier one; None if the results do not say."""
        entry = find(self.results["stages"], **self._place(stage))
        return None if entry is None else float(entry["seconds"])

    def run_of(self, setting: Setting, seed: int, system: str) -> Run:
        """The last run of a system, trained now unless it is there.

        Raises:
            StageFailedError: if it, or one before it, cannot be trained; now or earlier in this call.
        """
        return self.run(self.stages_of(setting, seed, system)[-1])

    def run(self, stage: Stage) -> Run:
        """The run of a stage; see `run_of`."""
        if stage in self.failures:
            raise StageFailedError(self.failures[stage])
        if stage not in self.runs:
            try:
                self.runs[stage] = self._trained(stage)
            except StageFailedError as error:  # of an earlier stage, which is what the user must hear of
                self.failures[stage] = str(error)
                raise
            except Exception as error:  # whatever a method trips over must not cost the other rows
                logger.exception("%s failed", stage.name)
                self.failures[stage] = f"{stage.name} failed: {one_sentence(error)}"
                raise StageFailedError(self.failures[stage]) from error
        return self.runs[stage]

    def _trained(self, stage: Stage) -> Run:
        recipe, folder = self.recipe(stage), self._folder(stage)
        if (folder / RUN_FILE).exists():
            run = read_run(folder)
            if difference := recipe_difference(run, recipe):
                raise RunError(f"{folder} was trained with {difference}: remove it or choose another --out")
            if run.is_finished():
                return run
        before = {needed: self.needed(stage, needed) for needed in recipe.prerequisites()}
        logger.info("%s, %s, seed %d: %d steps", stage.name, stage.setting.title, stage.seed, recipe.steps)
        started = time.monotonic()
        run = train(stage.name, recipe, folder, before.__getitem__, self.machine, resume=folder.exists())
        self._note(stage, round(time.monotonic() - started, 2))
        return run

    def needed(self, stage: Stage, name: str) -> Run:
        """A run that a stage starts from; see `run_of`."""
        if name not in self._recipes(stage):
            return read_run(converted_run(self.folder, name))
        return self.run(self._shared(stage._replace(name=name)))

    def _note(self, stage: Stage, seconds: float) -> None:
        """Of a run that was interrupted this is the last part."""
        entry = {**self._place(stage), "steps": self.recipe(stage).steps, "seconds": seconds}
        put(self.results["stages"], entry, "recipe")

    def _place(self, stage: Stage) -> Results:
        return place(stage.setting, stage.seed) | {"target": self._domain(stage), "recipe": stage.name}

    def _order(self, stage: Stage) -> Iterator[Stage]:
        for needed in self.recipe(stage).prerequisites():
            if needed in self._recipes(stage):
                yield from self._order(stage._replace(name=needed))
        yield stage

    def _recipes(self, stage: Stage) -> dict[str, Recipe]:
        key = stage.setting, stage.seed
        if key not in self.recipes:
            self.recipes[key] = self.recipes_of(stage.setting, self.scale, stage.seed)
        return self.recipes[key]

    def _sees_target(self, stage: Stage) -> bool:
        return any(_reads_target(self.recipe(needed)) for needed in self._order(stage))

    def _shared(self, stage: Stage) -> Stage:
        """The stage in whose place all looks share one, and all classes too if it knows none."""
        if stage.setting.is_real or self._sees_target(stage):
            return stage
        knows_classes = not isinstance(self.recipe(stage).method, FlowSupervision)
        return stage._replace(setting=Setting(stage.setting.classes if knows_classes else "viper", LOOKS[0]))

    def _domain(self, stage: Stage) -> str:
        return stage.setting.target if self._sees_target(stage) else "source"

    def _folder(self, stage: Stage) -> Path:
        return self.folder / "runs" / stage.setting.classes / self._domain(stage) / f"seed-{stage.seed}" / stage.name


def converted_run(folder: Path, name: str) -> Path:
    """Where a run made of official weights is expected."""
    return folder / "runs" / "converted" / name


def one_sentence(error: Exception) -> str:
    """What went wrong, on one line and not too long."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", REASON_LENGTH, placeholder=" ...")


def _reads_target(recipe: Recipe) -> bool:
    chosen_by = [recipe.validation.data] if recipe.keep_best else []
    is_source = all(not isinstance(data, World) or data.look == "source" for data in (recipe.source, *chosen_by))
    return recipe.method.num_target_frames() > 0 or not is_source
