"""The paper's tables and figures by one command, each method beside the controls that say what its gain is made of.

Every row is trained and evaluated on the embedded world or, when their folders are given, on the data sets of the
paper; stages that rows share are trained once. The same command goes on where it was interrupted, adds tables, figures
and seeds to what the folder holds, and tries again what failed. Writes into --out: results.json, tables.md, plots, and
the run directories below runs/. How to read them is in benchmarks/README.md.
"""

import itertools
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import torch
import tyro
from matplotlib.figure import Figure

from benchmarks.paper_filling import fill_cells
from benchmarks.paper_pictures import class_bars, figure_2, figure_5, frames_and_predictions
from benchmarks.paper_points import FIGURE_SYSTEMS, add_figure
from benchmarks.paper_report import report, write_tables
from benchmarks.paper_results import Results, find_all, open_results, write_results
from benchmarks.paper_rows import Cell
from benchmarks.paper_scales import SCALES, Folders, ScaleName, Setting, settings_of
from benchmarks.paper_stages import Workshop, converted_run
from benchmarks.paper_tables import PICTURED, TABLES, Classes
from benchmarks.paper_verdicts import Place
from benchmarks.training_step import machine
from training.command_line import Machine, choose_device, logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.label_spaces import LABEL_SPACES
from training.models.video_segmenter import VideoSegmenter
from training.protocols import open_labelled
from training.run_directory import RunError, commit, versions, write_aside

logger = logging.getLogger(__name__)
FIGURE_CLASSES: Classes = "viper"  # figures are made with the classes of the first table


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.paper`."""

    tables: tuple[int, ...] = tuple(TABLES)  # numbers of the paper's tables
    figures: tuple[int, ...] = (2, 5)  # numbers of the paper's figures
    # smoke: minutes, only shows that everything runs; cpu: hours on two cores; gpu: trainings of real length
    scale: ScaleName = "cpu"
    seeds: int | None = None  # how many, from 0 on, of weights and order of the data; else as many as the scale has
    viper: Path | None = None  # folder of VIPER: tables are made on real data
    synthia: Path | None = None  # folder of SYNTHIA-SEQS-04-DAWN, for table 2
    cityscapes: Path | None = None  # folder of Cityscapes, the target of both
    out: Path = Path("runs/paper")  # folder of results and runs
    jobs: int = 2  # rows trained side by side, each in a process with its share of the cores
    json: bool = False  # print results.json on stdout instead of the tables
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)

    @property
    def folders(self) -> Folders:
        """Of real data."""
        return Folders(self.viper, self.synthia, self.cityscapes)


def run(options: Options) -> Results:
    """Trains, evaluates and writes what is missing; returns all results.

    Raises:
        ValueError: if an option cannot be used, or the folder holds other results.
        RunError: if official weights are missing.
    """
    settings = _settings(options)
    scale = SCALES[options.scale]
    seeds = range(scale.seeds if options.seeds is None else options.seeds)
    device = choose_device(options.machine.device)
    results = open_results(options.out, options.scale, scale, options.folders != Folders())
    workshop = Workshop(options.out, scale, options.machine, results)
    cells = list(_cells(options, settings, seeds))
    for_figures = [
        Cell(setting, seed, system, is_row=False)
        for number in options.figures
        for setting, seed in itertools.product(settings, seeds)
        for system in FIGURE_SYSTEMS[number]
    ]
    _require_official_weights(workshop, [*cells, *for_figures])
    with logging_to_file(options.out / "paper.log", "a"):
        results["tables"] = sorted({*results["tables"], *options.tables})
        results["figures"] = sorted({*results["figures"], *options.figures})
        results |= {"machine": machine(device), "versions": versions(), "commit": commit()}
        fill_cells(workshop, [*cells, *for_figures], options.jobs, write_tables)
        results["failed_figures"] = []
        _fill_figures(workshop, options, settings, seeds)
        write_results(options.out, results)
        write_tables(options.out, results)
        for name, figure in _pictures(workshop, settings, device):
            _save(figure, options.out / f"{name}.png")
        logger.info("wrote results.json, tables.md and plots into %s", options.out)
    return results


def _settings(options: Options) -> tuple[Setting, ...]:
    for kind, chosen, known in (("table", options.tables, TABLES), ("figure", options.figures, FIGURE_SYSTEMS)):
        for number in chosen:
            if number not in known:
                raise ValueError(f"there is no {kind} {number}: choose among {', '.join(map(str, known))}")
    if not options.tables and not options.figures:
        raise ValueError("there is nothing to make: name --tables or --figures")
    if options.seeds is not None and options.seeds < 1:
        raise ValueError(f"--seeds is {options.seeds}: choose at least 1")
    if options.jobs < 1:
        raise ValueError(f"--jobs is {options.jobs}: choose at least 1")
    if 2 in options.figures and options.folders != Folders():
        raise ValueError("figure 2 needs true flow, which the real data sets have not: choose --figures 5")
    return settings_of(_classes(options), options.folders)


def _classes(options: Options) -> list[Classes]:
    classes = [TABLES[number].classes for number in options.tables]
    return [*classes, FIGURE_CLASSES] if options.figures else classes


def _cells(options: Options, settings: tuple[Setting, ...], seeds: range) -> Iterator[Cell]:
    """Everything for the first seed before anything for the next, so that an interruption leaves whole tables."""
    for seed in seeds:
        for number in options.tables:
            for setting in settings:
                if TABLES[number].classes == setting.classes:
                    rows = (row for row in TABLES[number].rows if not (row.is_of_the_world and setting.is_real))
                    yield from (Cell(setting, seed, row.system) for row in rows)


def _require_official_weights(workshop: Workshop, cells: list[Cell]) -> None:
    stages = {stage for cell in cells for stage in workshop.stages_of(*cell.address)}
    for name in sorted({name for stage in stages for name in workshop.converted(stage)}):
        if not (folder := converted_run(workshop.folder, name)).exists():
            raise RunError(
                f"rows start from {folder}, which is not there: make it of the official file with"
                f" 'python -m training.convert FILE --out {folder}'"
            )


def _fill_figures(workshop: Workshop, options: Options, settings: tuple[Setting, ...], seeds: range) -> None:
    for seed in seeds:
        for setting in settings:
            if setting.classes == FIGURE_CLASSES:
                for number in options.figures:
                    if reason := add_figure(workshop, number, setting, seed):
                        workshop.results["failed_figures"].append(f"figure {number}, seed {seed}: {reason}")
                    write_results(workshop.folder, workshop.results)


def _pictures(workshop: Workshop, settings: tuple[Setting, ...], device: torch.device) -> Iterator[tuple[str, Figure]]:
    results = workshop.results
    for setting in settings:
        place = Place(results, setting.classes, setting.target)
        space = LABEL_SPACES[setting.classes]
        for number in results["tables"]:
            if TABLES[number].classes == setting.classes:
                bars = class_bars(number, TABLES[number], place, space)
                if bars is not None:
                    yield f"table-{number}-{setting.target}", bars
        if (grid := _grid(workshop, setting, device)) is not None:
            yield f"frames-{setting.classes}-{setting.target}", grid
        for number, draw in ((2, figure_2), (5, figure_5)):
            where = {"classes": setting.classes, "target": setting.target}
            if entries := find_all(results[f"figure_{number}"], **where):
                yield f"figure-{number}-{setting.target}", draw(entries, setting.title)


def _grid(workshop: Workshop, setting: Setting, device: torch.device) -> Figure | None:
    """Predictions of the first seed of those systems that this call has runs of; None if there are none."""
    segmenters = {}
    for system, title in PICTURED.items():
        stage = workshop.stages_of(setting, 0, system)[-1]
        if stage in workshop.runs:
            segmenters[title] = cast("VideoSegmenter", workshop.runs[stage].networks()["segmenter"]).to(device)
    if not segmenters:
        return None
    data = workshop.target_validation(setting, 0)
    return frames_and_predictions(segmenters, open_labelled(data), data.label_space, device)


def _save(figure: Figure, path: Path) -> None:
    write_aside(path, lambda aside: figure.savefig(aside, format="png", dpi=100))


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.paper", description=__doc__)
    with user_errors_exit_with_2(RunError, ValueError):
        results = run(options)
        sys.stdout.write(json.dumps(results, indent=2) + "\n" if options.json else report(results))


if __name__ == "__main__":
    main()
