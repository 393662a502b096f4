"""The rows of tables: their systems trained and evaluated.

Systems are evaluated by the protocol of SFC's released code, with the weights of their last step: no target label
chooses anything. Beside as trained, each is evaluated with BatchNorm statistics re-estimated on target frames.
"""

import logging
import time
from typing import NamedTuple, cast

import torch
from torch.utils.data import DataLoader, Subset

from benchmarks.paper_results import Results, place
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
from training.validation import WatchedValidation

logger = logging.getLogger(__name__)
PROTOCOL = "sfc"
STATISTICS_BATCH, STATISTICS_CLIPS = 4, 500  # target clips that BatchNorm is re-estimated on: at once, and at most


class Cell(NamedTuple):
    """A system of one seed in one setting."""

    setting: Setting
    seed: int
    system: str
    is_row: bool = True  # of a table; else it is only trained, for a figure

    @property
    def address(self) -> tuple[Setting, int, str]:
        """What a workshop asks for."""
        return self.setting, self.seed, self.system


def attempted(workshop: Workshop, cell: Cell, known: Results | None) -> Results | None:
    """The cell of the results: trained and evaluated now unless it is known, or a sentence that says why not.

    Its run is asked for though it be known: it may be another's by now. None for what is only trained.
    """
    try:
        run = workshop.run_of(*cell.address)
        if not cell.is_row:
            return None
        found = known if known is not None and "error" not in known else evaluated(run, cell, workshop)
    except StageFailedError as error:
        found = {"error": str(error)}
    return {**place(cell.setting, cell.seed), "system": cell.system, **found} if cell.is_row else None


def evaluated(run: Run, cell: Cell, workshop: Workshop) -> Results:
    """A cell of the results.

    Raises:
        StageFailedError: if the run cannot be evaluated.
    """
    started = time.monotonic()
    try:
        device = choose_device(workshop.machine.device)
        recipe = workshop.recipe_of(*cell.address)
        segmenter = cast("VideoSegmenter", run.networks()["segmenter"]).to(device)
        validation = workshop.target_validation(cell.setting, cell.seed)
        as_trained = measured(segmenter, validation, device)
        moved = with_statistics_of_target(segmenter, recipe.target, device)
        of_target = measured(moved, validation, device)
    except Exception as error:  # like a training, an evaluation must not cost the other rows
        logger.exception("the evaluation of %s failed", run.folder)
        raise StageFailedError(f"the evaluation of {run.name} failed: {one_sentence(error)}") from error
    stages = workshop.stages_of(*cell.address)
    return {
        "recipe": run.name,
        "commit": run.provenance["commit"],
        "steps": sum(workshop.recipe(stage).steps for stage in stages),  # of all stages, shared or not
        "seconds": round(sum(workshop.seconds_of(stage) or 0.0 for stage in stages), 2),  # of training, likewise
        "evaluation_seconds": round(time.monotonic() - started, 2),
        "as_trained": as_trained,
        "target_statistics": of_target,
        "choices": [choice for stage in stages if (choice := _choice(workshop.run(stage)))],
    }


def _choice(run: Run) -> Results:
    """How a checkpoint chosen without labels compares with others, mIoU in percent; empty if none was chosen so."""
    validation = run.recipe.validation
    if not isinstance(validation, WatchedValidation):
        return {}
    measures = [
        {name.removeprefix("validation/"): value for name, value in figures.items()}
        for figures in run.figures()
        if "validation/miou" in figures
    ]
    chosen, miou = max(measures, key=validation.score)["miou"], [each["miou"] for each in measures]
    return {"recipe": run.name, "chosen": chosen, "last": miou[-1], "best": max(miou)}


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
