"""The rows of tables: their systems trained and evaluated, one after the other, with an estimate of the time left.

Systems are evaluated by the protocol of SFC's released code, with the weights of their last step: no target label
chooses anything. Beside as trained, each is evaluated with BatchNorm statistics re-estimated on target frames.
"""

import logging
import time
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Subset

from benchmarks.paper_report import write_tables
from benchmarks.paper_results import Results, find, place, put, write_results
from benchmarks.paper_scales import Setting
from benchmarks.paper_stages import StageFailedError, Workshop, one_sentence
from training.command_line import choose_device
from training.data import DataConfig
from training.data.unlabelled import Unlabelled
from training.evaluation_figures import figures_of
from training.models.video_segmenter import VideoSegmenter
from training.protocols import evaluate_clips, open_labelled
from training.run_directory import Run
from training.target_statistics import with_target_statistics

logger = logging.getLogger(__name__)
PROTOCOL = "sfc"
STATISTICS_BATCH, STATISTICS_CLIPS = 4, 500  # target clips that BatchNorm is re-estimated on: at once, and at most


class Cell(NamedTuple):
    """A system of one seed in one setting."""

    setting: Setting
    seed: int
    system: str


def fill_cells(workshop: Workshop, cells: Iterable[Cell]) -> None:
    """Trains and evaluates what is not yet in the results; writes them and the tables after each cell."""
    todo = list(dict.fromkeys(cells))
    for number, cell in enumerate(todo, 1):
        where = place(cell.setting, cell.seed)
        logger.info(
            "%d of %d: %s, %s, seed %d%s", number, len(todo), cell.system, cell.setting.title, cell.seed,
            time_left(workshop, todo[number - 1 :]),
        )  # fmt: skip
        known = find(workshop.results["cells"], **where, system=cell.system)
        try:
            run = workshop.run_of(*cell)  # though it be known: its run may be another's by now
            if known is None or "error" in known:
                entry = evaluated(run, cell, workshop)
                put(workshop.results["cells"], {**where, "system": cell.system, **entry}, "system")
        except StageFailedError as error:
            put(workshop.results["cells"], {**where, "system": cell.system, "error": str(error)}, "system")
        write_results(workshop.folder, workshop.results)
        write_tables(workshop.folder, workshop.results)


def evaluated(run: Run, cell: Cell, workshop: Workshop) -> Results:
    """A cell of the results.

    Raises:
        StageFailedError: if the run cannot be evaluated.
    """
    started = time.monotonic()
    try:
        device = choose_device(workshop.machine.device)
        recipe = workshop.recipe_of(*cell)
        segmenter = cast("VideoSegmenter", run.networks()["segmenter"]).to(device)
        validation = workshop.target_validation(cell.setting, cell.seed)
        as_trained = measured(segmenter, validation, device)
        moved = with_statistics_of_target(segmenter, recipe.target, device)
        of_target = measured(moved, validation, device)
    except Exception as error:  # like a training, an evaluation must not cost the other rows
        logger.exception("the evaluation of %s failed", run.folder)
        raise StageFailedError(f"the evaluation of {run.name} failed: {one_sentence(error)}") from error
    stages = workshop.stages_of(*cell)
    return {
        "recipe": run.name,
        "commit": run.provenance["commit"],
        "steps": sum(workshop.recipe(stage).steps for stage in stages),  # of all stages, shared or not
        "seconds": round(sum(workshop.seconds_of(stage) or 0.0 for stage in stages), 2),  # of training, likewise
        "evaluation_seconds": round(time.monotonic() - started, 2),
        "as_trained": as_trained,
        "target_statistics": of_target,
    }


def measured(segmenter: VideoSegmenter, data: DataConfig, device: torch.device) -> Results:
    """Mean IoU, IoU of every class and temporal consistency, in percent."""
    figures = figures_of(
        "target", data.label_space, evaluate_clips(segmenter, open_labelled(data), (PROTOCOL,), device)
    )
    protocol = figures["protocols"][PROTOCOL]
    return {
        "miou": protocol["miou"], "iou": protocol["iou"], "temporal_consistency": figures["temporal_consistency"],
    }  # fmt: skip


def with_statistics_of_target(segmenter: VideoSegmenter, target: DataConfig, device: torch.device) -> VideoSegmenter:
    """A copy with BatchNorm statistics of target frames, of whose labels nothing is read."""
    clips = Unlabelled(target.open())
    some = Subset(clips, range(min(STATISTICS_CLIPS, len(clips))))
    return cast("VideoSegmenter", with_target_statistics(segmenter, DataLoader(some, STATISTICS_BATCH), device))


def time_left(workshop: Workshop, cells: Iterable[Cell]) -> str:
    """An estimate by the seconds a step of each recipe took so far; nothing as long as none was taken."""
    results = workshop.results
    seconds = {stage["recipe"]: stage["seconds"] / stage["steps"] for stage in results["stages"]}
    cells = list(cells)
    if not seconds:
        return ""
    total_steps = sum(stage["steps"] for stage in results["stages"])
    usual = sum(stage["seconds"] for stage in results["stages"]) / total_steps  # of recipes that were never run
    stages = dict.fromkeys(stage for cell in cells for stage in workshop.stages_of(*cell))
    left = sum(
        workshop.recipe(stage).steps * seconds.get(stage.name, usual)
        for stage in stages
        if stage not in workshop.runs and stage not in workshop.failures and workshop.seconds_of(stage) is None
    )
    taken = [cell["evaluation_seconds"] for cell in results["cells"] if "evaluation_seconds" in cell]
    if taken:
        places = ({**place(cell.setting, cell.seed), "system": cell.system} for cell in cells)
        left += sum(find(results["cells"], **each) is None for each in places) * sum(taken) / len(taken)
    return f"; about {duration(left)} left"


def duration(seconds: float) -> str:
    """For people."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
