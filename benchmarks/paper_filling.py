"""Fills tables row by row, one after the other or side by side, with an estimate of the time left."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.paper_results import Results, find, place, put, write_results
from benchmarks.paper_rows import Cell, attempted
from benchmarks.paper_stages import Workshop
from benchmarks.paper_workers import Finding, Task, found_side_by_side

logger = logging.getLogger(__name__)
Write = Callable[[Path, Results], None]  # makes tables of results in a folder


def fill_cells(workshop: Workshop, cells: Iterable[Cell], num_processes: int, write: Write) -> None:
    """Trains and evaluates what is not yet in the results; writes them, and what is made of them, after each cell."""
    left = dict.fromkeys(cells)
    tasks = [Task(cell, known(workshop, cell)) for cell in left]
    logger.info("%d trainings with those of figures%s", len(tasks), time_left(workshop, list(left), num_processes))
    findings = found_side_by_side(workshop, tasks, num_processes) if num_processes > 1 else _found(workshop, tasks)
    for number, finding in enumerate(findings, 1):
        _keep(workshop, finding)
        write_results(workshop.folder, workshop.results)
        write(workshop.folder, workshop.results)
        del left[finding.cell]
        setting, seed, system, _ = finding.cell
        logger.info(
            "%d of %d: %s, %s, seed %d%s%s", number, len(tasks), system, setting.title, seed, _outcome(finding),
            time_left(workshop, list(left), num_processes),
        )  # fmt: skip


def known(workshop: Workshop, cell: Cell) -> Results | None:
    """What the results have of a cell."""
    return find(workshop.results["cells"], **place(cell.setting, cell.seed), system=cell.system)


def _found(workshop: Workshop, tasks: Sequence[Task]) -> Iterator[Finding]:
    for task in tasks:
        entry = attempted(workshop, task.cell, task.known)
        yield Finding(task.cell, entry, stages=[], failures={})  # the workshop has them


def _keep(workshop: Workshop, finding: Finding) -> None:
    """Puts into the results what was found. The run, which may be another process's, is the workshop's too."""
    for stage in finding.stages:
        put(workshop.results["stages"], stage, "recipe")
    workshop.failures |= finding.failures
    if finding.entry is not None:
        put(workshop.results["cells"], finding.entry, "system")
        if "error" not in finding.entry:
            workshop.run_of(*finding.cell.address)


def _outcome(finding: Finding) -> str:
    if finding.entry is None:
        return ""
    return " failed" if "error" in finding.entry else f": mIoU {finding.entry['as_trained']['miou']:.1f} %"


def time_left(workshop: Workshop, cells: Sequence[Cell], num_processes: int) -> str:
    """An estimate by the seconds a step of each recipe took so far; nothing as long as none was taken."""
    results = workshop.results
    seconds = {stage["recipe"]: stage["seconds"] / stage["steps"] for stage in results["stages"]}
    if not seconds:
        return ""
    total_steps = sum(stage["steps"] for stage in results["stages"])
    usual = sum(stage["seconds"] for stage in results["stages"]) / total_steps  # of recipes that were never run
    stages = dict.fromkeys(stage for cell in cells for stage in workshop.stages_of(*cell.address))
    left = sum(
        workshop.recipe(stage).steps * seconds.get(stage.name, usual)
        for stage in stages
        if stage not in workshop.runs and stage not in workshop.failures and workshop.seconds_of(stage) is None
    )
    taken = [cell["evaluation_seconds"] for cell in results["cells"] if "evaluation_seconds" in cell]
    if taken:
        left += sum(cell.is_row and known(workshop, cell) is None for cell in cells) * sum(taken) / len(taken)
    return f"; about {duration(left / num_processes)} left"


def duration(seconds: float) -> str:
    """For people."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "a minute"
