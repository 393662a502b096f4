"""Fuzzing of what training reads from disks of others: checkpoints, run.json, label maps, lists, frames, videos."""

import dataclasses
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.reliability_codecs import jpegs, mutate_png, picture, pngs
from benchmarks.reliability_inputs import STRANGE, mutate_bytes, mutate_json
from benchmarks.reliability_target import Subject, Target
from training.checkpoint_file import read_checkpoint_file
from training.data.cityscapes_seq import CityscapesSeq
from training.data.label_map import LabelMap
from training.data.video_decoding import VideoDecoder, VideoFrame, index_videos
from training.data.video_files import read_frame, read_ids, read_ids_of_16_bit
from training.label_spaces import VIPER_TO_CITYSCAPES
from training.recipes import RECIPES
from training.run_directory import RUN_FILE, Run, RunError, read_run, write_run_file

SIZE = (32, 48)  # of frames, height and width


def _saved(document: object, *, is_zip: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(document, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


def _checkpoint() -> dict[str, object]:
    """As a training leaves it, but small."""
    weights = {"conv.weight": torch.ones(2, 3, 3, 3), "bn.running_mean": torch.zeros(2)}
    return {"step": 5, "measures": {"miou": 0.5}, "networks": {"segmenter": weights}, "optimizers": [{"lr": 0.1}]}


def _checkpoints() -> list[bytes]:
    return [_saved(_checkpoint())]


def _official() -> list[bytes]:
    document = {"model": _checkpoint()["networks"], "best": np.float64(0.5)}
    return [_saved(document), _saved(document, is_zip=False)]


def _mutate_checkpoint(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages a part inside the archive, which is then whole again, or the bytes of the file."""
    encoded = chance.choice(seeds)
    if chance.randrange(4) == 0:
        return _saved(_changed_checkpoint(chance), is_zip=encoded.startswith(b"PK"))
    if not encoded.startswith(b"PK") or chance.randrange(3) == 0:
        return mutate_bytes(chance, [encoded])
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(encoded)) as whole, zipfile.ZipFile(file, "w") as damaged:
        names = whole.namelist()
        victim = chance.choice([*names, *(name for name in names if name.endswith("data.pkl"))])
        for name in names:
            content = whole.read(name)
            if name == victim:
                if chance.randrange(10) == 0:
                    continue
                content = mutate_bytes(chance, [content])
            damaged.writestr(name, content)
    return file.getvalue()


def _changed_checkpoint(chance: random.Random) -> object:
    """Whole, with a part that is missing or strange."""
    document = _checkpoint()
    key = chance.choice([*document, "networks"])
    strange = chance.choice((*STRANGE[:12], torch.zeros(2), {"segmenter": 1}, {"segmenter": {"a": torch.ones(1)}}))
    return document | {key: strange} if chance.randrange(3) else {k: v for k, v in document.items() if k != key}


def _open_checkpoint(folder: Path) -> Subject:
    run = Run(folder, "demo", RECIPES["demo-source-only-one"].recipe, {})
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, keep_best=False))

    def feed(content: bytes) -> None:
        """All that later stages ask a run for."""
        (folder / "last.pt").write_bytes(content)
        run.is_finished()
        run.measures()
        run.networks()

    return Subject(feed)


def _open_official(folder: Path) -> Subject:
    path = folder / "official.pth"

    def feed(content: bytes) -> None:
        path.write_bytes(content)
        read_checkpoint_file(path)

    return Subject(feed)


def _run_files() -> list[bytes]:
    documents = []
    with tempfile.TemporaryDirectory() as name:
        for recipe in ("demo", "demo-flow", "demo-source-only-one"):
            write_run_file(Path(name), recipe, RECIPES[recipe].recipe)
            documents.append((Path(name) / RUN_FILE).read_bytes())
    return documents


def _open_run_file(folder: Path) -> Subject:
    def feed(content: bytes) -> None:
        (folder / RUN_FILE).write_bytes(content)
        run = read_run(folder)
        run.checkpoint_path()

    return Subject(feed)


def _label_maps() -> list[bytes]:
    return [json.dumps({"0": "road", "1": "car", "7": None, "255": "ignore"}).encode()]


def _open_label_map(folder: Path) -> Subject:
    path, ids = folder / "map.json", np.array([[0, 1], [7, 255]], np.uint8)

    def feed(content: bytes) -> None:
        path.write_bytes(content)
        LabelMap(path, VIPER_TO_CITYSCAPES).to_train_ids(ids)

    return Subject(feed)


def _lists() -> list[bytes]:
    return [b"val_lindau_000000_000019\nlindau/lindau_000001_000019.png\n"]


def _open_list(folder: Path) -> Subject:
    for name in ("leftImg8bit_sequence", "gtFine"):
        (folder / name / "val" / "lindau").mkdir(parents=True)
    config = CityscapesSeq(folder, "val", size=SIZE, frame_list=folder / "list.txt")

    def feed(content: bytes) -> None:
        (folder / "list.txt").write_bytes(content)
        config.open()

    return Subject(feed)


def _images() -> list[bytes]:
    """In all kinds that a folder of videos may hold."""
    encoded = [cv2.imencode(suffix, picture(1))[1].tobytes() for suffix in (".bmp", ".ppm", ".tiff", ".webp")]
    return [*jpegs(), *pngs(), *encoded]


def _mutate_image(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    is_png = [seed for seed in seeds if seed.startswith(b"\x89PNG")]
    return mutate_png(chance, is_png) if is_png and chance.randrange(2) else mutate_bytes(chance, seeds)


def _open_image(read: Callable[[Path], object], folder: Path) -> Subject:
    path = folder / "frame_0001.png"

    def feed(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    return Subject(feed)


def _labels_of_16_bit() -> list[bytes]:
    return [cv2.imencode(".png", picture(2).astype(np.uint16))[1].tobytes()]


def _read_frame(path: Path) -> object:
    return read_frame(path, SIZE)


def _read_ids(path: Path) -> object:
    return read_ids(path, SIZE)


def _read_deep_ids(path: Path) -> object:
    return read_ids_of_16_bit(path, SIZE)


def _video_files() -> list[bytes]:
    files = []
    with tempfile.TemporaryDirectory() as name:
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
            path = Path(name) / f"video{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (SIZE[1], SIZE[0]))
            for number in range(4):
                writer.write(picture(number))
            writer.release()
            files.append(path.read_bytes())
    return files


def _open_video_file(folder: Path) -> Subject:
    number = iter(range(1 << 62))

    def feed(content: bytes) -> None:
        path = folder / f"{next(number)}.mp4"  # new each time: what was read is remembered by name, time and size
        path.write_bytes(content)
        try:
            indices = index_videos([path])
            decoder = VideoDecoder(indices)
            decoder.read(VideoFrame(path, len(indices[path].checksums) - 1))
        finally:
            path.unlink()

    return Subject(feed)


TRAINING_FILES = (
    Target("checkpoint", "checkpoints of runs", 60, _checkpoints, _open_checkpoint, (RunError,), _mutate_checkpoint),
    Target("official", "checkpoints of others, in both formats", 60, _official, _open_official, (ValueError,),
           _mutate_checkpoint),
    Target("run_json", "run.json", 60, _run_files, _open_run_file, (RunError,), mutate_json),
    Target("label_map", "label maps of data sets", 100, _label_maps, _open_label_map, (ValueError,), mutate_json),
    Target("list", "lists of frames", 60, _lists,
           _open_list, (ValueError,)),
    Target("frame", "frames of data sets", 60, _images, partial(_open_image, _read_frame), (ValueError,),
           _mutate_image),
    Target("ids", "label images of 8 bits", 40, pngs, partial(_open_image, _read_ids), (ValueError,), _mutate_image),
    Target("deep_ids", "label images of 16 bits", 40, _labels_of_16_bit, partial(_open_image, _read_deep_ids),
           (ValueError,), mutate_png),
    Target("video_file", "video files of data sets", 15, _video_files, _open_video_file, (ValueError,)),
)  # fmt: skip
