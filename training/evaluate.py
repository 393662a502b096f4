"""Evaluates a run: python -m training.evaluate RUN [--dataset NAME --root DIR].

Writes into the run, as evaluation-NAME.*: mean IoU and IoU of every class by the two protocols of the field, the
confusion matrix and temporal consistency (.json, .csv), what it looks like (.png, -confusion.png) and, with
--key-frame-intervals, what rare key frames cost (-intervals.csv, -intervals.png).
"""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from training.command_line import choose_device, logging_to_stderr, user_errors_exit_with_2
from training.data import CityscapesSeq, DataConfig, SynthiaSeq, VideoFolder, Viper, World
from training.evaluation_figures import Figures, class_table, figures_of, interval_table, sweep_figures
from training.evaluation_pictures import confusion_picture, interval_picture, prediction_picture
from training.key_frame_sweep import open_for_sweep, sweep_key_frame_intervals
from training.label_spaces import LABEL_SPACES
from training.models.video_segmenter import VideoSegmenter
from training.protocols import PROTOCOLS, evaluate_clips, open_labelled
from training.run_directory import Run, RunError, read_run, write_aside

logger = logging.getLogger(__name__)
Writers = dict[str, Callable[[Path], object]]  # end of a file's name -> what writes the file


@dataclass(frozen=True)
class Options:
    """Options of `training.evaluate`."""

    run: tyro.conf.Positional[Path]  # run directory written by training.train
    # the run's own (validation), or another; videos are a folder of your own, some of whose frames have labels
    dataset: Literal["validation", "world", "viper", "cityscapes", "synthia", "videos"] = "validation"
    root: Path | None = None  # folder of viper, cityscapes, synthia or videos, which need it
    labels: Path | None = None  # folder that mirrors that of videos with 8-bit images of ids
    # JSON file that names the class of each id in the labels of videos, such as {"0": "road", "255": "ignore"}
    label_map: Path | None = None
    # sfc: labels at the network's size, absent classes count 0; advent: labels as stored, absent classes left out
    protocol: Literal["sfc", "advent", "both"] = "both"
    key_frame_intervals: tuple[int, ...] = ()  # also evaluate with a key frame every so many frames, like 1 2 5 10
    device: str = "auto"  # "cpu", "cuda", ...; "auto" takes a GPU when there is one
    json: bool = False  # print the figures as JSON on stdout instead of a table


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m training.evaluate", description=__doc__)
    with user_errors_exit_with_2(RunError, ValueError):
        run = read_run(options.run)
        figures, writers = evaluate_run(run, options)
        stem = run.folder / f"evaluation-{options.dataset}"
        try:
            for end, write in writers.items():
                write_aside(stem.with_name(stem.name + end), write)
        except OSError as error:
            raise RunError(f"{run.folder} cannot be written ({error.strerror})") from error
        logger.info("wrote %s with %s", stem, ", ".join(writers))
        if options.json:
            sys.stdout.write(_json(figures))
        else:
            _show(figures)


def evaluate_run(run: Run, options: Options) -> tuple[Figures, Writers]:
    """The figures of a run, and what writes them down."""
    device = choose_device(options.device)
    segmenter = run.networks().get("segmenter")
    if not isinstance(segmenter, VideoSegmenter):
        raise RunError(f"{run.folder} trained no segmenter: evaluate a run whose recipe does")
    segmenter.to(device)
    protocols = tuple(PROTOCOLS) if options.protocol == "both" else (options.protocol,)
    intervals = sorted(set(options.key_frame_intervals))
    data = _dataset(options, run)
    space, dataset = data.label_space, open_labelled(data)
    longer = open_for_sweep(data, intervals) if intervals else None  # opened early: what is missing is told at once
    figures = figures_of(options.dataset, space, evaluate_clips(segmenter, dataset, protocols, device))
    pictures = {
        ".png": prediction_picture(segmenter, dataset, space, figures, device),
        "-confusion.png": confusion_picture(figures),
    }
    tables = {".csv": class_table(figures)}
    if longer is not None:
        sweep = sweep_key_frame_intervals(segmenter, longer, intervals, protocols, device)
        figures["key_frame_intervals"] = sweep_figures(space, len(longer), sweep)
        pictures["-intervals.png"] = interval_picture(figures)
        tables["-intervals.csv"] = interval_table(figures)
    writers: Writers = {end: partial(_write_picture, figure) for end, figure in pictures.items()}
    for end, text in {**tables, ".json": _json(figures)}.items():
        writers[end] = partial(_write_text, text)
    return figures, writers


def _write_picture(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _json(figures: Figures) -> str:
    return json.dumps(figures, indent=2) + "\n"


def _dataset(options: Options, run: Run) -> DataConfig:
    """The run's own validation data, or others with its classes, in pairs as in the paper's evaluation."""
    trained = run.recipe.source.label_space
    classes: Literal["viper", "synthia"] = "synthia" if trained == LABEL_SPACES["synthia"] else "viper"
    data: DataConfig
    if options.dataset != "videos" and (options.labels or options.label_map):
        raise ValueError(f"--dataset {options.dataset} brings its labels: leave out --labels and --label-map")
    match options.dataset, options.root:
        case "validation", None:
            data = run.recipe.validation.data
            if isinstance(data, VideoFolder) and data.labels is None:
                raise ValueError(
                    f"{run.folder} was validated on videos without labels: choose a --dataset that has some"
                )
            return data
        case "world", None:
            data = World(split="val", num_clips=40, classes=classes)
        case "viper", Path() as root:
            data = Viper(root=root, split="val", previous_labels=False)
        case "cityscapes", Path() as root:
            data = CityscapesSeq(root=root, split="val", num_frames=2, classes=classes)
        case "synthia", Path() as root:
            data = SynthiaSeq(root=root, previous_labels=False)
        case "videos", Path() as root:
            if not (options.labels and options.label_map):
                raise ValueError("videos are evaluated where they have labels: give --labels DIR and --label-map FILE")
            size = run.recipe.validation.data.size
            data = VideoFolder(root, size, 2, labels=options.labels, label_map=options.label_map, classes=classes)
        case dataset, None:
            raise ValueError(f"--dataset {dataset} lies in a folder: give --root DIR")
        case dataset, _:
            raise ValueError(f"--dataset {dataset} has no folder: leave out --root")
    if data.label_space != trained:
        raise ValueError(
            f"{options.dataset} has the classes of {data.label_space.name}, the run was trained on those of"
            f" {trained.name}: choose another --dataset"
        )
    return data


def _show(figures: Figures) -> None:
    protocols = figures["protocols"]
    table = Table(title=f"{figures['dataset']}, {figures['num_clips']} clips: IoU (%)")
    table.add_column("class")
    for name in protocols:
        table.add_column(name, justify="right")
    for name in figures["classes"]:
        mark = "" if name in figures["evaluated"] else " (not in the mean)"
        table.add_row(name + mark, *(_cell(protocol["iou"][name]) for protocol in protocols.values()))
    table.add_section()
    table.add_row("mIoU", *(_cell(protocol["miou"]) for protocol in protocols.values()), style="bold")
    console = Console()
    console.print(table)
    console.print(f"temporal consistency {figures['temporal_consistency']:.1f} %")
    if "key_frame_intervals" in figures:
        console.print(_interval_table(figures))


def _interval_table(figures: Figures) -> Table:
    table = Table(title=f"key-frame intervals, {figures['key_frame_intervals']['num_clips']} clips")
    for title in ("interval (frames)", *(f"mIoU {name} (%)" for name in figures["protocols"]), "consistency (%)"):
        table.add_column(title, justify="right")
    for at in figures["key_frame_intervals"]["intervals"]:
        miou = (_cell(protocol["miou"]) for protocol in at["protocols"].values())
        table.add_row(str(at["interval"]), *miou, _cell(at["temporal_consistency"]))
    return table


def _cell(value: float | None) -> str:
    return "absent" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
