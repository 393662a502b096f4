"""Accuracy against key frames spent: fixed intervals as a curve, the adaptive policy as points beside it.

Labelled videos go through the served path of a bundle, each frame to a stream of every policy. Without --videos they
are of the embedded world, in the look that the bundle was adapted to and of streets it has not seen: drives at an even
pace, drives that stop and go, drives with cuts, and lively ones with both. Intervals with scene cuts alone tell how
much of what the adaptive policy gains is the cuts. Mean IoU is over all labelled frames. Writes accuracy.json, tables
as accuracy.md and a plot as accuracy.png.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks.accuracy_measurement import Policy, figures, stream_all
from benchmarks.accuracy_report import draw_plot, tables
from benchmarks.footage import Footage, folder_footage, label_space, world_footage
from benchmarks.training_step import machine
from serving.bundle import Bundle, BundleError, Precision, parse_size
from serving.engine import open_engine
from serving.key_frames import Adaptive, FixedInterval
from serving.runtimes.choice import RuntimeChoice
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.data.world.looks import LOOKS
from training.label_spaces import VIPER_TO_CITYSCAPES, LabelSpace
from training.run_directory import commit, versions, write_aside

logger = logging.getLogger(__name__)
MAX_POLICIES = 64


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.accuracy`."""

    bundle: tyro.conf.Positional[Path]  # folder written by export/to_onnx.py
    videos: str = "world"  # folder of numbered images and video files, or the embedded world
    labels: Path | None = None  # folder that mirrors that of the videos with 8-bit images of ids
    # JSON file that names the class of each id in the labels, such as {"0": "road", "255": "ignore"}
    label_map: Path | None = None
    intervals: str = "1,2,3,5,7,10,15,20"  # comma-separated fixed key-frame intervals in frames
    staleness: str = "1,2,3,5,8,12,20,30"  # comma-separated, of the adaptive policy
    min_interval: int = Adaptive.min_interval  # frames, of the adaptive policy
    max_interval: int = Adaptive.max_interval  # the same
    seeds: str = "0,1,2"  # comma-separated, of the world's streets
    num_videos: int = 2  # of the world, for each seed and kind
    num_frames: int = 200  # of each of them
    look: str = ""  # of the world; empty is the one that the bundle was adapted to
    precision: Precision | Literal["auto"] = "auto"  # of the graphs to run; "auto" is the highest there is
    size: Annotated[str, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = ""  # of the frames in pixels, if there are several
    runtime: RuntimeChoice = "auto"  # that runs the graphs; "auto" is the fastest that is there
    threads: int = 1  # of one run
    json: bool = False  # print the figures as JSON on stdout instead of tables
    out: Path = Path("benchmarks/results")  # folder of the results


def policies(options: Options) -> list[Policy]:
    """All policies to measure.

    Raises:
        ValueError: if one cannot be.
    """
    intervals = sorted(set(whole_numbers("intervals", options.intervals)))
    bounds = (options.min_interval, options.max_interval)
    limits = sorted(set(numbers("staleness", options.staleness)))
    found = [
        *(Policy("fixed", interval, FixedInterval(interval)) for interval in intervals),
        *(Policy("cuts", interval, Adaptive(interval, interval)) for interval in intervals),
        *(Policy("adaptive", staleness, Adaptive(*bounds, staleness)) for staleness in limits),
    ]
    if len(found) > MAX_POLICIES:
        raise ValueError(f"that is {len(found)} policies: choose at most {MAX_POLICIES} by --intervals and --staleness")
    return found


def numbers(option: str, text: str) -> list[float]:
    """Numbers of a comma-separated list.

    Raises:
        ValueError: if it is none.
    """
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--{option} {text!r} is no list of numbers: write for instance 1,2,5") from error


def whole_numbers(option: str, text: str) -> list[int]:
    """The same of whole numbers."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ValueError(f"--{option} {text!r} is no list of whole numbers: write for instance 1,2,5") from error


def footage_of(options: Options, bundle: Bundle, size: tuple[int, int], space: LabelSpace) -> list[Footage]:
    """The videos to stream.

    Raises:
        ValueError: if there are none, or an option does not go with them.
    """
    if options.videos != "world":
        if options.labels is None or options.label_map is None:
            raise ValueError("videos are judged where they have labels: give --labels DIR and --label-map FILE")
        return folder_footage(Path(options.videos), options.labels, options.label_map, size, space)
    if options.labels or options.label_map:
        raise ValueError("the world brings its labels: leave out --labels and --label-map, or give --videos DIR")
    if space != VIPER_TO_CITYSCAPES:
        raise ValueError(f"the world has not the classes of {bundle.folder}: give --videos, --labels and --label-map")
    look = options.look or adapted_to(bundle)
    if look not in LOOKS:
        raise ValueError(f"the world has no look {look!r}: choose one of {', '.join(LOOKS)}")
    seeds = whole_numbers("seeds", options.seeds)
    if min(options.num_videos, options.num_frames) < 1 or options.num_videos > 100 or min(seeds) < 0:
        raise ValueError("--num-frames must be at least 1, --num-videos 1 to 100, and --seeds not negative")
    return world_footage(look, size, seeds, options.num_videos, options.num_frames)


def adapted_to(bundle: Bundle) -> str:
    """The look of the world that a bundle's run had for a target; the world's own target look if it had another."""
    recipe = bundle.manifest.provenance.get("recipe")
    target = recipe.get("target") if isinstance(recipe, dict) else None
    look = target.get("look") if isinstance(target, dict) else None
    return look if isinstance(look, str) else "target"


def run(options: Options) -> dict[str, Any]:
    """Streams, writes the files and returns the report."""
    chosen = policies(options)
    with open_engine(
        options.bundle, precision=options.precision, size=parse_size(options.size) if options.size else None,
        runtime=options.runtime, threads=options.threads, max_streams=len(chosen),
    ) as engine:  # fmt: skip
        space, variant = label_space(engine.bundle), engine.variant
        size = (variant.height, variant.width)
        videos = footage_of(options, engine.bundle, size, space)
        try:
            options.out.mkdir(parents=True, exist_ok=True)  # now, not after minutes
        except OSError as error:
            raise ValueError(f"{options.out} cannot be written ({error.strerror}): choose another --out") from error
        counts = stream_all(engine, chosen, videos)
        manifest = engine.bundle.manifest
        report: dict[str, Any] = {
            "bundle": f"{manifest.name}@{manifest.version}", "graphs": f"{variant.precision} {size[0]}x{size[1]}",
            "runtime": engine.runtime.description,
            "baseline": None if manifest.baseline is None else manifest.baseline.model_dump(),
            "bounds": {"min_interval": options.min_interval, "max_interval": options.max_interval},
            "videos": {"look": options.look or adapted_to(engine.bundle), "seeds": options.seeds,
                       "per_seed_and_kind": options.num_videos, "frames_each": options.num_frames}
                      if options.videos == "world" else {"folder": Path(options.videos).name},
            "machine": machine(torch.device("cpu")), "versions": versions(), "commit": commit(),
            "groups": figures(chosen, counts, space),
        }  # fmt: skip
    text, markdown, figure = json.dumps(report, indent=2) + "\n", tables(report), draw_plot(report)
    write_aside(options.out / "accuracy.json", lambda path: path.write_text(text, encoding="utf-8"))
    write_aside(options.out / "accuracy.md", lambda path: path.write_text(markdown, encoding="utf-8"))
    write_aside(options.out / "accuracy.png", lambda path: figure.savefig(path, format="png", dpi=110))
    logger.info("wrote accuracy.json, .md and .png into %s", options.out)
    return report


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.accuracy", description=__doc__)
    with user_errors_exit_with_2(BundleError, ValueError):
        report = run(options)
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else tables(report))


if __name__ == "__main__":
    main()
