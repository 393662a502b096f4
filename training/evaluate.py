"""Evaluates a run: python -m training.evaluate RUN [--dataset NAME --root DIR].

Writes evaluation-NAME.json and .png into the run: mean IoU by both conventions of the field, IoU of
every class, temporal consistency, and what it looks like.
"""

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import Dataset

from training.command_line import choose_device, logging_to_stderr, user_errors_exit_with_2
from training.data import CityscapesSeq, DataConfig, SynthiaSeq, Viper, World
from training.data.clip import LabelledClip
from training.label_spaces import LABEL_SPACES, LabelSpace
from training.metrics import mean_iou, per_class_iou
from training.models.video_segmenter import VideoSegmenter
from training.run_directory import Run, RunError, read_run, write_aside
from training.validation import segmentation_confusion

logger = logging.getLogger(__name__)
NUM_PICTURED = 4


@dataclass(frozen=True)
class Options:
    """Options of `training.evaluate`."""

    run: tyro.conf.Positional[Path]  # run directory written by training.train
    # the run's own (validation), or another
    dataset: Literal["validation", "world", "viper", "cityscapes", "synthia"] = "validation"
    root: Path | None = None  # folder of viper, cityscapes or synthia, which need it
    device: str = "auto"  # "cpu", "cuda", ...; "auto" takes a GPU when there is one
    json: bool = False  # print the figures as JSON on stdout instead of a table


@torch.no_grad()
def temporal_consistency(segmenter: VideoSegmenter, data: DataConfig, device: torch.device) -> float:
    """Share of pixels, in percent, whose label agrees with that of the frame before, followed along optical flow.

    The flow is OpenCV's DIS, so the figure needs no labels and no trained flow network. Flow errors and true
    disocclusions count against the segmenter: compare models on the same data, not the figure with 100.
    """
    flow_estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dataset = cast("Dataset[LabelledClip]", data.open())
    agreeing, total = 0, 0
    for index in range(len(dataset)):  # type: ignore[arg-type]  # torch's Dataset does not declare its length
        frames = dataset[index].frames[-2:].to(device)
        if len(frames) < 2:
            raise ValueError("clips of one frame have no temporal consistency: use data with at least 2 num_frames")
        labels = segmenter(frames[None]).argmax(1)[0].byte().cpu().numpy()
        previous_labels = segmenter(frames[None, :1]).argmax(1)[0].byte().cpu().numpy()
        previous, current = (cv2.cvtColor(_pixels(frame), cv2.COLOR_RGB2GRAY) for frame in frames)
        followed = _follow(previous_labels, flow_estimator.calc(current, previous, None))  # type: ignore[call-overload]
        agreeing += int((followed == labels).sum())
        total += labels.size
    return 100 * agreeing / total


def evaluation_picture(segmenter: VideoSegmenter, data: DataConfig, confusion: Tensor, device: torch.device) -> Figure:
    """Frames, labels and predictions of a few clips above a bar for every class."""
    dataset = cast("Dataset[LabelledClip]", data.open())
    space = data.label_space
    length = len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare its length
    chosen = np.linspace(0, length - 1, min(NUM_PICTURED, length)).astype(int)
    figure = Figure(figsize=(12, 2.2 * len(chosen) + 3), layout="constrained")
    grid = figure.add_gridspec(len(chosen) + 1, 3)
    for row, index in enumerate(chosen):
        clip = dataset[int(index)]
        with torch.no_grad():
            predictions = segmenter(clip.frames[None].to(device)).argmax(1)[0].cpu().numpy()
        pictures = (
            _pixels(clip.frames[-1]),
            space.color_labels(clip.labels[-1].numpy()),
            space.color_labels(predictions),
        )
        for column, (title, picture) in enumerate(zip(("frame", "labels", "prediction"), pictures, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
    _draw_bars(figure.add_subplot(grid[-1, :]), space, confusion)
    return figure


def _draw_bars(axes: Any, space: LabelSpace, confusion: Tensor) -> None:
    iou = per_class_iou(confusion).nan_to_num(0.0).tolist()
    colors = [tuple(channel / 255 for channel in entry.color) for entry in space.classes]
    axes.bar([entry.name for entry in space.classes], iou, color=colors, edgecolor="0.3")
    axes.set_ylabel("IoU (%)")
    axes.set_ylim(0, 100)
    axes.tick_params(axis="x", rotation=30)


def _pixels(frame: Tensor) -> NDArray[np.uint8]:
    return (frame.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


def _follow(labels: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Labels of the frame before, at the places `flow` (H, W, 2) points to."""
    columns, rows = np.meshgrid(
        np.arange(labels.shape[1], dtype=np.float32), np.arange(labels.shape[0], dtype=np.float32)
    )
    followed = cv2.remap(
        labels, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return cast("NDArray[np.uint8]", followed)


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m training.evaluate", description=__doc__)
    with user_errors_exit_with_2(RunError, ValueError):
        run = read_run(options.run)
        device = choose_device(options.device)
        segmenter = run.networks().get("segmenter")
        if not isinstance(segmenter, VideoSegmenter):
            raise RunError(f"{run.folder} trained no segmenter: evaluate a run whose recipe does")
        segmenter.to(device)
        data = _dataset(options, run)
        confusion = segmentation_confusion(segmenter, data, device)
        iou = per_class_iou(confusion)
        figures = {
            "dataset": options.dataset,
            "miou": mean_iou(confusion, data.label_space.evaluated),
            "miou_absent_is_zero": mean_iou(confusion, data.label_space.evaluated, absent_is_zero=True),
            "iou": {
                entry.name: None if value != value else value  # NaN: the class neither occurs nor is predicted
                for entry, value in zip(data.label_space.classes, iou.tolist(), strict=True)
            },
            "temporal_consistency": temporal_consistency(segmenter, data, device),
        }
        stem = run.folder / f"evaluation-{options.dataset}"
        text = json.dumps(figures, indent=2) + "\n"
        figure = evaluation_picture(segmenter, data, confusion, device)
        try:
            write_aside(stem.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=110))
            write_aside(stem.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{run.folder} cannot be written ({error.strerror})") from error
        logger.info("wrote %s.json and .png", stem)
        if options.json:
            sys.stdout.write(text)
        else:
            _show(figures)


def _dataset(options: Options, run: Run) -> DataConfig:
    """The run's own validation data, or others with its classes, in pairs as in the paper's evaluation."""
    trained = run.recipe.source.label_space
    data: DataConfig
    match options.dataset, options.root:
        case "validation", None:
            return run.recipe.validation.data
        case "world", None:
            data = World(split="val", num_clips=40)
        case "viper", Path() as root:
            data = Viper(root=root, split="val", previous_labels=False)
        case "cityscapes", Path() as root:
            classes: Literal["viper", "synthia"] = "synthia" if trained == LABEL_SPACES["synthia"] else "viper"
            data = CityscapesSeq(root=root, split="val", num_frames=2, classes=classes)
        case "synthia", Path() as root:
            data = SynthiaSeq(root=root, previous_labels=False)
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


def _show(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['dataset']}: mIoU {figures['miou']:.1f} %")
    table.add_column("class")
    table.add_column("IoU (%)", justify="right")
    for name, value in figures["iou"].items():
        table.add_row(name, "absent" if value is None else f"{value:.1f}")
    Console().print(table)
    Console().print(f"temporal consistency {figures['temporal_consistency']:.1f} %")


if __name__ == "__main__":
    main()
