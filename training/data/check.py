"""Inspects a data set before a day of training is spent on it: python -m training.data.check NAME --root DIR.

Reads the header of every file that training would need and decodes a sample. Each problem is a sentence that names the
file and what to do. Exit status 0: sound; 1: there are problems; 2: wrong call.
"""

import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.command_line import user_errors_exit_with_2
from training.data import CityscapesSeq, SynthiaSeq, VideoFolder, Viper
from training.data.inspection import NOTHING, Inspection, Problem, inspect, num_steps
from training.data.inspection_preview import preview
from training.data.labelled_videos import VideoData
from training.data.video_files import require_folder

NUM_SHOWN = 5  # problems of a kind

Data = TypeVar("Data", Viper, CityscapesSeq, SynthiaSeq, VideoFolder)


@dataclass(frozen=True)
class Options(Generic[Data]):
    """Options of `training.data.check`."""

    data: Annotated[Data, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]  # the options that training has for it
    sample: int = 300  # clips whose last frame and labels are decoded, spread evenly; of all others headers are read
    preview: Path | None = None  # picture to draw (.png): frames, coloured labels, class names
    json: tyro.conf.FlagCreatePairsOff[bool] = False  # print what was found as JSON on stdout instead of tables


AnyOptions = (
    Annotated[Options[Viper], tyro.conf.subcommand("viper", description=Viper.__doc__)]
    | Annotated[Options[CityscapesSeq], tyro.conf.subcommand("cityscapes", description=CityscapesSeq.__doc__)]
    | Annotated[Options[SynthiaSeq], tyro.conf.subcommand("synthia", description=SynthiaSeq.__doc__)]
    | Annotated[Options[VideoFolder], tyro.conf.subcommand("video-folder", description=VideoFolder.__doc__)]
)


def main() -> None:
    """Runs the command line."""
    with user_errors_exit_with_2(ValueError):
        options: AnyOptions = tyro.cli(AnyOptions, prog="python -m training.data.check", description=__doc__)
        _refuse_wrong_calls(options)
        inspection = _inspect(options)
    if options.json:
        sys.stdout.write(json.dumps(_document(inspection), indent=2) + "\n")
    else:
        _show(inspection)
    raise SystemExit(1 if inspection.problems else 0)


def _refuse_wrong_calls(options: AnyOptions) -> None:
    """What does not exist at all is no finding about the data."""
    data = options.data
    require_folder(data.root, "the data set")
    for option in ("frame_list", "label_map"):
        path = getattr(data, option, None)
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}: mend --{option.replace('_', '-')}")
    if options.sample < 1:
        raise ValueError(f"--sample is {options.sample}: decode at least 1 clip")
    if options.preview is not None and options.preview.suffix.lower() != ".png":
        raise ValueError(f"{options.preview} is no .png: choose another name for --preview")


def _inspect(options: AnyOptions) -> Inspection:
    space = options.data.label_space
    try:
        data = options.data.find()
    except ValueError as error:
        return replace(NOTHING, problems=(Problem("nothing to train on", str(error)),))
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task("reading files", total=num_steps(data, options.sample))
        inspection = inspect(data, space, options.sample, lambda: progress.advance(task))
    if options.preview is not None:
        _save_preview(options.preview, data, options)
    return inspection


def _save_preview(path: Path, data: VideoData, options: AnyOptions) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        preview(data, options.data.label_space).savefig(path, format="png", dpi=110)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error}): choose another --preview") from error


def _document(inspection: Inspection) -> dict[str, Any]:
    problems = [problem._asdict() for problem in inspection.problems]
    return {"is_sound": not problems, **asdict(inspection), "problems": problems}


def _show(inspection: Inspection) -> None:
    console = Console()
    if inspection.num_clips:
        table = Table(show_header=False)
        table.add_row("videos", str(inspection.num_videos))
        table.add_row("clips", str(inspection.num_clips))
        table.add_row("frames", str(inspection.num_frames))
        table.add_row("label files", str(inspection.num_labels))
        sizes = (f"{count} of {size}" for size, count in inspection.frame_sizes.items())
        table.add_row("sizes of frames", ", ".join(sizes) or "none could be read")
        table.add_row("clips decoded", str(inspection.num_read))
        console.print(table)
    if inspection.class_percent:
        table = Table(title="pixels of the labels that were decoded")
        table.add_column("class")
        table.add_column("share (%)", justify="right")
        for name, share in inspection.class_percent.items():
            table.add_row(name, f"{share:.2f}" if share else "none")
        table.add_row("(ignored)", f"{inspection.ignored_percent:.2f}")
        console.print(table)
    by_kind = defaultdict(list)
    for problem in inspection.problems:
        by_kind[problem.kind].append(problem.sentence)
    for kind, sentences in by_kind.items():
        console.print(f"{kind} ({len(sentences)}):", markup=False, highlight=False)
        for sentence in sentences[:NUM_SHOWN]:
            console.print(f"  {sentence}", markup=False, highlight=False, soft_wrap=True)
        if len(sentences) > NUM_SHOWN:
            console.print(f"  and {len(sentences) - NUM_SHOWN} more: --json lists all")
    if not inspection.problems:
        console.print("sound: nothing was found that would stop or spoil a training")


if __name__ == "__main__":
    main()
