"""Writes videos of the world the way VIPER, Cityscapes and SYNTHIA are stored, to try their loaders without them."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.world.dataset import clip_seed
from training.data.world.materials import Kind
from training.data.world.render import RenderedFrame, render_frames
from training.label_spaces import SYNTHIA_TO_CITYSCAPES, VIPER_TO_CITYSCAPES

JPEG_QUALITY = 95
VIPER_FRAMES = 20  # of a sequence; the lists name every tenth
SNIPPET_FRAMES = 30  # of Cityscapes
LABELLED_FRAME = 19  # of a snippet, from 0
SYNTHIA_FRAMES = 30  # per clip asked for; they follow each other in one drive
CITY = "world"
# What the benchmarks do not train but the data sets label: VIPER calls poles infrastructure and riders persons.
OTHER_IDS = {"viper": {Kind.POLE: 10, Kind.RIDER: 20}, "cityscapes": {Kind.STATIC: 4}, "synthia": {}}


@dataclass(frozen=True)
class Videos:
    """What is rendered."""

    num_clips: int
    size: tuple[int, int]  # height and width in pixels
    look: str
    split: str
    seed: int

    def frames(self, clip: int, num_frames: int) -> Iterator[RenderedFrame]:
        """The frames of one clip."""
        return render_frames(clip_seed(self.seed, self.split, clip), self.look, self.size, num_frames)


def id_table(dataset: str) -> NDArray[np.uint8]:
    """(kinds,) the id that a data set writes for each `Kind`; 0 for what it does not know."""
    table = np.zeros(len(Kind), np.uint8)
    for space in (SYNTHIA_TO_CITYSCAPES, VIPER_TO_CITYSCAPES):
        for entry in space.classes:
            if dataset in (ids := dict(entry.ids)):
                table[Kind[entry.name.upper()]] = ids[dataset][0]
    for kind, number in OTHER_IDS[dataset].items():
        table[kind] = number
    return table


def write_viper(root: Path, videos: Videos) -> Iterator[None]:
    """`SPLIT/{img,cls}/SSS/SSS_FFFFF`, all labelled, and `viper_list/SPLIT.txt`; yields after each frame."""
    lines, table = [], id_table("viper")
    for clip in range(videos.num_clips):
        sequence = f"{clip + 1:03}"
        images, classes = (root / videos.split / name / sequence for name in ("img", "cls"))
        images.mkdir(parents=True)
        classes.mkdir(parents=True)
        for number, rendered in enumerate(videos.frames(clip, VIPER_FRAMES), 1):
            name = f"{sequence}_{number:05}"
            Image.fromarray(rendered.frame).save(images / f"{name}.jpg", quality=JPEG_QUALITY, subsampling=0)
            indexed = Image.fromarray(table[rendered.kinds], "L")
            indexed.putpalette(_viper_palette())  # makes it an indexed image without changing the ids
            indexed.save(classes / f"{name}.png")
            if number % 10 == 0:
                lines.append(f"{sequence}/{name}.jpg")
            yield
    _write_list(root / "viper_list" / f"{videos.split}.txt", lines)


def write_cityscapes(root: Path, videos: Videos) -> Iterator[None]:
    """Snippets of 30 frames, the twentieth labelled, and `city_list/SPLIT.txt`; yields after each frame."""
    lines, table = [], id_table("cityscapes")
    images, labels = (root / name / videos.split / CITY for name in ("leftImg8bit_sequence", "gtFine"))
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for clip in range(videos.num_clips):
        for number, rendered in enumerate(videos.frames(clip, SNIPPET_FRAMES)):
            stem = f"{CITY}_{clip:06}_{number:06}"
            Image.fromarray(rendered.frame).save(images / f"{stem}_leftImg8bit.png")
            if number == LABELLED_FRAME:
                Image.fromarray(table[rendered.kinds]).save(labels / f"{stem}_gtFine_labelIds.png")
                lines.append(f"{videos.split}_{stem}")
            yield
    _write_list(root / "city_list" / f"{videos.split}.txt", lines)


def write_synthia(root: Path, videos: Videos) -> Iterator[None]:
    """One long drive with 16-bit labels of all frames, and `synthia_list/SPLIT.txt`; yields after each frame."""
    lines, table = [], id_table("synthia")
    images, labels = root / "RGB/Stereo_Left/Omni_F", root / "GT/LABELS/Stereo_Left/Omni_F"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number, rendered in enumerate(videos.frames(0, SYNTHIA_FRAMES * videos.num_clips)):
        name = f"{number:06}.png"
        Image.fromarray(rendered.frame).save(images / name)
        ids = table[rendered.kinds]
        channels = np.zeros((*ids.shape, 3), np.uint16)
        channels[..., 2], channels[..., 1] = ids, _instances(rendered.kinds)  # OpenCV orders channels B, G, R
        if not cv2.imwrite(str(labels / name), channels):
            raise OSError(f"cannot write {labels / name}")
        if number:
            lines.append(name)
        yield
    _write_list(root / "synthia_list" / f"{videos.split}.txt", lines)


LAYOUTS: dict[str, tuple[Callable[[Path, Videos], Iterator[None]], int]] = {  # writers, and their frames per clip
    "viper": (write_viper, VIPER_FRAMES),
    "cityscapes": (write_cityscapes, SNIPPET_FRAMES),
    "synthia": (write_synthia, SYNTHIA_FRAMES),
}


def write_layout(folder: Path, layout: str, splits: Sequence[Videos]) -> Iterator[None]:
    """Writes all splits, and makes them visible at once when the last file is written; yields after each frame.

    Raises:
        ValueError: if the folder holds something, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} exists and is not empty: choose another --out")
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.with_name(
            f".{folder.name}-{os.getpid()}"
        )  # no temporary folder, which has a mode of its own
        unfinished.mkdir()
        try:
            for videos in splits:
                yield from LAYOUTS[layout][0](unfinished, videos)
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}): choose another --out") from error


def _write_list(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _viper_palette() -> list[int]:
    palette = np.zeros((256, 3), np.uint8)
    for entry in VIPER_TO_CITYSCAPES.classes:
        palette[list(dict(entry.ids)["viper"])] = entry.color
    return [int(value) for value in palette.ravel()]


def _instances(kinds: NDArray[np.int8]) -> NDArray[np.uint16]:
    """Numbers from 1 of connected cars, persons and riders: enough for a channel that no loader reads."""
    _, components = cv2.connectedComponents(np.isin(kinds, (Kind.CAR, Kind.PERSON, Kind.RIDER)).astype(np.uint8))
    return np.asarray(components, np.uint16)
