"""Draws the procedural street, or writes videos of it in the layout of a real data set."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from training.command_line import user_errors_exit_with_2
from training.data.world.dataset import MAX_CLIPS, clip_seed
from training.data.world.layouts import LAYOUTS, Videos, write_layout
from training.data.world.preview import draw_preview


@dataclass(frozen=True)
class Options:
    """Give one of --preview and --out."""

    preview: Path | None = None  # picture to draw: clips in all looks, their labels and flow
    out: Path | None = None  # new folder to write videos to
    layout: Literal["viper", "cityscapes", "synthia"] = "viper"  # how --out stores them
    clips: int = 4  # number of videos; of synthia, which is one video: its length in units of 30 frames
    size: str = "64x128"  # height x width of the frames in pixels, multiples of 4
    look: Literal["source", "mid", "target", "abroad"] = "source"  # appearance of the videos of --out
    seed: int = 0  # chooses the streets
    split: tuple[Literal["train", "val"], ...] = ("train",)  # splits to write; they share no street


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "HxW".

    Raises:
        ValueError: if it is no size that can be rendered.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--size {text} does not read HEIGHTxWIDTH: give for instance 64x128")
    height, width = map(int, parts)
    if min(height, width) < 16 or height % 4 or width % 4:
        raise ValueError(f"--size {text} does not work: height and width must be multiples of 4 from 16 up")
    return height, width


def save_preview(options: Options, path: Path) -> None:
    """Draws the picture.

    Raises:
        ValueError: if it cannot be written.
    """
    if path.suffix.lower() not in (".png", ".jpg"):
        raise ValueError(f"{path} is neither .png nor .jpg: choose another name for --preview")
    seeds = [clip_seed(options.seed, options.split[0], clip) for clip in range(options.clips)]
    picture = Image.fromarray(draw_preview(seeds, parse_size(options.size)))
    unfinished = path.with_name(f".{path.stem}-unfinished{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error}): choose another --preview") from error
    finally:
        if path.parent.is_dir():
            unfinished.unlink(missing_ok=True)


def save_layout(options: Options, folder: Path) -> None:
    """Writes the folder.

    Raises:
        ValueError: if it cannot be written.
    """
    size = parse_size(options.size)
    splits = [Videos(options.clips, size, options.look, split, options.seed) for split in dict.fromkeys(options.split)]
    if options.layout == "synthia" and len(splits) > 1:
        raise ValueError("SYNTHIA has no splits: write train and val to different folders")
    total = len(splits) * options.clips * LAYOUTS[options.layout][1]
    with Progress(console=Console(file=sys.stderr), transient=True) as progress:
        for _ in progress.track(write_layout(folder, options.layout, splits), total, description="writing frames"):
            pass


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, prog="python -m training.data.world", description=__doc__)
    with user_errors_exit_with_2(ValueError):
        if not 1 <= options.clips <= MAX_CLIPS or options.seed < 0 or not options.split:
            raise ValueError("--clips must be at least 1, --seed at least 0, and --split name a split")
        match options.preview, options.out:
            case Path() as path, None:
                save_preview(options, path)
            case None, Path() as folder:
                save_layout(options, folder)
            case _:
                raise ValueError("give either --preview PICTURE or --out FOLDER")


if __name__ == "__main__":
    main()
