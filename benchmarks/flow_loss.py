"""When does SFC's flow loss help? Stage one with and without it, under one change after the other.

Each variant trains SFC and its control, which forwards the same target frames and has no flow loss, from the same
weights on the same batches; the gain is the difference, seed by seed. Writes results.json below --out and a table as
flow_loss.md. The same command goes on where it was interrupted. How to read the table is in benchmarks/README.md.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.flow_loss_gradient import gradient_cosine
from benchmarks.flow_loss_report import Line, report
from benchmarks.flow_loss_variants import GROUNDS, TITLES, systems_of
from benchmarks.paper_filling import fill_cells
from benchmarks.paper_recipes import recipe_name
from benchmarks.paper_results import Results, find, open_results, place, put, write_results
from benchmarks.paper_rows import Cell
from benchmarks.paper_scales import LOOKS, SCALES, ScaleName, Setting
from benchmarks.paper_stages import Stage, StageFailedError, Workshop
from benchmarks.paper_verdicts import Place
from benchmarks.training_step import machine
from training.command_line import Machine, choose_device, logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.run_directory import RunError, commit, versions, write_aside

logger = logging.getLogger(__name__)
WORLD = "as-is"  # the ground that all variants are tried on
BASE = "paper"  # the variant that is tried on every ground


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.flow_loss`."""

    variants: tuple[str, ...] = tuple(TITLES)  # what is changed about the loss, in the world of the tables
    grounds: tuple[str, ...] = tuple(GROUNDS)  # worlds that the paper's loss is tried in
    look: str = LOOKS[-1]  # of the world, the target
    scale: ScaleName = "cpu"  # size of frames, number of clips, length of trainings: see benchmarks.paper
    seeds: int | None = None  # how many, from 0 on; else as many as the scale has
    jobs: int = 2  # trainings side by side, each in a process with its share of the cores
    out: Path = Path("runs/flow_loss")  # folder of results and runs
    machine: Annotated[Machine, tyro.conf.arg(name="")] = field(default_factory=Machine)


def run(options: Options) -> str:
    """Trains, evaluates and writes what is missing; returns the table.

    Raises:
        ValueError: if an option cannot be used, or the folder holds other results.
    """
    _refuse_wrong_calls(options)
    setting = Setting("viper", options.look)
    seeds = range(SCALES[options.scale].seeds if options.seeds is None else options.seeds)
    lines: list[Line] = []
    with logging_to_file(options.out / "flow_loss.log", "a"):
        for ground in options.grounds:
            workshop = _workshop(options, ground)
            variants = options.variants if ground == WORLD else (BASE,)
            pairs = {name: systems_of(name, workshop.recipes_of(setting, workshop.scale, 0)) for name in variants}
            cells = [Cell(setting, seed, system) for seed in seeds for pair in pairs.values() for system in pair]
            fill_cells(workshop, cells, options.jobs, lambda *_: None)
            for name, (sfc, control) in pairs.items():
                cosines = [_cosine(workshop, setting, seed, sfc) for seed in seeds]
                title = TITLES[name] if ground == WORLD else GROUNDS[ground].title
                lines.append(Line(title, Place(workshop.results, "viper", options.look), sfc, control, cosines))
            write_results(workshop.folder, workshop.results)
        text = report(lines, options.look, options.scale, seeds)
        write_aside(options.out / "flow_loss.md", lambda path: path.write_text(text, encoding="utf-8"))
        logger.info("wrote flow_loss.md into %s", options.out)
    return text


def _refuse_wrong_calls(options: Options) -> None:
    for kind, chosen, known in (("variant", options.variants, TITLES), ("ground", options.grounds, GROUNDS)):
        for name in chosen:
            if name not in known:
                raise ValueError(f"there is no {kind} {name!r}: choose among {', '.join(known)}")
    if not options.grounds or (WORLD in options.grounds and not options.variants):
        raise ValueError("there is nothing to try: name --grounds, and --variants for the world of the tables")
    for name, number in (("seeds", options.seeds), ("jobs", options.jobs)):
        if number is not None and number < 1:
            raise ValueError(f"--{name} is {number}: choose at least 1")


def _workshop(options: Options, ground: str) -> Workshop:
    folder, scale = options.out / ground, GROUNDS[ground].scale(SCALES[options.scale])
    results = open_results(folder, options.scale, scale, is_real=False)
    results |= {"machine": machine(choose_device(options.machine.device)), "versions": versions(), "commit": commit()}
    results.setdefault("cosines", [])
    return Workshop(folder, scale, options.machine, results, GROUNDS[ground].recipes_of)


def _cosine(workshop: Workshop, setting: Setting, seed: int, system: str) -> float | None:
    """Of the gradients where a system starts; None if what it starts from could not be trained."""
    known: Results | None = find(workshop.results["cosines"], **place(setting, seed), system=system)
    if known is None:
        stage = Stage(setting, seed, recipe_name("demo", system))
        try:
            cosine = gradient_cosine(
                workshop.recipe(stage),
                lambda name: workshop.needed(stage, name),
                choose_device(workshop.machine.device),
            )
        except StageFailedError:
            return None
        known = {**place(setting, seed), "system": system, "cosine": cosine}
        put(workshop.results["cosines"], known, "system")
    return float(known["cosine"])


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.flow_loss", description=__doc__)
    with user_errors_exit_with_2(RunError, ValueError):
        sys.stdout.write(run(options))


if __name__ == "__main__":
    main()
