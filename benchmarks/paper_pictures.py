"""The plots of the paper's tables and figures: IoU of every class, frames beside predictions, Fig. 2, Fig. 5."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.paper_report import FALLS
from benchmarks.paper_results import Results, find_all
from benchmarks.paper_tables import Row, Table
from benchmarks.paper_verdicts import Place
from training.data.labelled_dataset import LabelledDataset
from training.label_spaces import LabelSpace
from training.models.video_segmenter import VideoSegmenter
from training.temporal_consistency import pixels

NUM_CLIPS = 4  # in the grid of frames
CLASSES_A_LINE = 8  # of the bars
NAMES = {"sfc-one": "SFC", "control-one": "without the flow loss"}
COLORS = {"sfc-one": "tab:orange", "control-one": "tab:gray"}


def class_bars(number: int, table: Table, place: Place, space: LabelSpace) -> Figure | None:
    """IoU of every class for each row of a table, mean over seeds with lowest and highest; None without figures."""
    rows = [row for row in table.rows if not row.with_statistics and place.figures(row.system)]
    if not rows:
        return None
    names = [space.names[train_id] for train_id in space.evaluated]
    lines = [names[first : first + CLASSES_A_LINE] for first in range(0, len(names), CLASSES_A_LINE)]
    figure = Figure(figsize=(15, 3.4 * len(lines) + 1.6), layout="constrained")
    grid: NDArray[Any] = figure.subplots(len(lines), 1, squeeze=False)  # Any: of axes
    colors = matplotlib.colormaps["tab20"](np.linspace(0, 1, 20))
    width = 0.86 / len(rows)
    for axes, of_line in zip(grid[:, 0], lines, strict=True):
        for index, row in enumerate(rows):
            values = [_ious(place, row.system, name) for name in of_line]
            means = [fmean(of_class) for of_class in values]
            reach = [
                [mean - min(of_class) for mean, of_class in zip(means, values, strict=True)],
                [max(of_class) - mean for mean, of_class in zip(means, values, strict=True)],
            ]
            places = np.arange(len(of_line)) + (index - (len(rows) - 1) / 2) * width
            axes.bar(
                places, means, width, color=colors[index % 20], hatch="///" if row.is_control else "", yerr=reach,
                edgecolor="0.35", linewidth=0.4, error_kw={"elinewidth": 0.8},
            )  # fmt: skip
        axes.set_xticks(range(len(of_line)), of_line)
        axes.set_xlim(-0.5, CLASSES_A_LINE - 0.5)
        axes.set_ylim(0, 100)
        axes.set_ylabel("IoU (%)")
    patches = [_patch(row, colors[index % 20]) for index, row in enumerate(rows)]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(f"Table {number}: IoU of every class on {place.target}, as trained (hatched: controls)")
    return figure


def _patch(row: Row, color: Any) -> Patch:  # Any: a colour
    return Patch(facecolor=color, hatch="///" if row.is_control else "", edgecolor="0.35", label=row.title)


def _ious(place: Place, system: str, name: str) -> list[float]:
    cells = find_all(place.results["cells"], classes=place.classes, target=place.target, system=system)
    return [cell["as_trained"]["iou"][name] or 0.0 for cell in cells if "as_trained" in cell]


@torch.no_grad()
def frames_and_predictions(
    segmenters: dict[str, VideoSegmenter], dataset: LabelledDataset, space: LabelSpace, device: torch.device
) -> Figure:
    """Some validation frames of the target, their labels, and what each segmenter makes of them, by title."""
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_CLIPS, len(dataset))).astype(int)
    titles = ["target frame", "labels", *segmenters]
    height, width = dataset[0].frames.shape[-2:]
    figure = Figure(figsize=(2.4 * len(titles), 2.4 * height / width * len(chosen) + 1.1), layout="constrained")
    grid: NDArray[Any] = figure.subplots(len(chosen), len(titles), squeeze=False)  # Any: of axes
    for axes_row, index in zip(grid, chosen, strict=True):
        clip = dataset[int(index)]
        frames = clip.frames[None].to(device)
        predictions = [segmenter(frames).argmax(1)[0].cpu().numpy() for segmenter in segmenters.values()]
        labels = [clip.labels[-1].numpy(), *predictions]
        for axes, picture in zip(axes_row, [pixels(clip.frames[-1]), *map(space.color_labels, labels)], strict=True):
            axes.imshow(picture)
            axes.set_axis_off()
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize="small")
    patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*entry.color), label=entry.name) for entry in space.classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize="small", frameon=False)
    return figure


def figure_2(entries: Sequence[Results], title: str) -> Figure:
    """How far each network falls on the target when it is trained on the source, as trained and with statistics."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for shift, column, color in ((-0.2, "as_trained", "tab:blue"), (0.2, "target_statistics", "tab:cyan")):
        for index, (_, here, there) in enumerate(FALLS):
            falls = [entry[column][here] - entry[column][there] for entry in entries]
            axes.bar(index + shift, fmean(falls), 0.38, color=color)
            axes.scatter([index + shift] * len(falls), falls, 12, color="black", zorder=3)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(FALLS)), [name.replace(", ", ",\n") for name, _, _ in FALLS])
    axes.set_ylabel("points of mIoU lost on the target\nby training on the source")
    axes.set_title(f"Fig. 2, {title} (dots: seeds)")
    labels = {"tab:blue": "as trained", "tab:cyan": "BatchNorm statistics of the target"}
    axes.legend(handles=[Patch(color=color, label=label) for color, label in labels.items()])
    return figure


def figure_5(entries: Sequence[Results], title: str) -> Figure:
    """mIoU against the error of the implied flow over training: as the paper draws it, and both over steps."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    against, miou, epe = figure.subplots(1, 3)
    for entry in entries:
        for system, curve in entry["curves"].items():
            of = {key: [point[key] for point in curve] for key in ("step", "miou", "epe")}
            style = {"color": COLORS[system], "marker": "o", "markersize": 3.5, "linewidth": 1}
            against.plot(of["epe"], of["miou"], **style)
            against.plot(of["epe"][-1:], of["miou"][-1:], color=COLORS[system], marker="s", markersize=8)
            miou.plot(of["step"], of["miou"], **style)
            epe.plot(of["step"], of["epe"], **style)
    _name_axes(against, "end-point error of the implied flow\n(quarter-resolution pixels)", "mIoU (%)")
    _name_axes(miou, "step of stage one", "mIoU (%)")
    _name_axes(epe, "step of stage one", "end-point error of the implied flow")
    patches = [Patch(color=COLORS[system], label=NAMES[system]) for system in COLORS]
    against.legend(handles=patches, fontsize="small")
    figure.suptitle(f"Fig. 5, {title}: a line is a seed, its square the end of training")
    return figure


def _name_axes(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.ticklabel_format(useOffset=False)
    axes.grid(visible=True, alpha=0.3)
