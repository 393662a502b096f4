"""What an evaluation looks like: predictions, the confusion matrix, accuracy against the key-frame interval."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from training.data.labelled_dataset import LabelledDataset
from training.evaluation_figures import Figures
from training.label_spaces import LabelSpace
from training.models.video_segmenter import VideoSegmenter
from training.temporal_consistency import pixels

NUM_PICTURED = 4
HATCHES = ("", "///")  # tell the protocols apart where colours tell the classes
MIN_SPAN = 5.0  # percentage points that a curve's axis spans at least, lest noise look like a trend
DARK = 55.0  # percent; cells of more than this carry white text


@torch.no_grad()
def prediction_picture(
    segmenter: VideoSegmenter, dataset: LabelledDataset, space: LabelSpace, figures: Figures, device: torch.device
) -> Figure:
    """Frames, labels and predictions of a few clips above the IoU of every class."""
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_PICTURED, len(dataset))).astype(int)
    figure = Figure(figsize=(12, 2 * len(chosen) + 3), layout="constrained")
    grid = figure.add_gridspec(len(chosen) + 1, 3)
    for row, index in enumerate(chosen):
        clip = dataset[int(index)]
        predictions = segmenter(clip.frames[None].to(device)).argmax(1)[0].cpu().numpy()
        pictures = (
            pixels(clip.frames[-1]),
            space.color_labels(clip.labels[-1].numpy()),
            space.color_labels(predictions),
        )
        for column, (title, picture) in enumerate(zip(("frame", "labels", "prediction"), pictures, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set_axis_off()
            if row == 0:
                axes.set_title(title)
    _draw_bars(figure.add_subplot(grid[-1, :]), space, figures)
    return figure


def _draw_bars(axes: Axes, space: LabelSpace, figures: Figures) -> None:
    protocols = figures["protocols"]
    colors = [tuple(channel / 255 for channel in entry.color) for entry in space.classes]
    width = 0.84 / len(protocols)
    legend = []
    for number, (name, protocol) in enumerate(protocols.items()):
        places = np.arange(space.num_classes) + (number - (len(protocols) - 1) / 2) * width
        values = [value or 0.0 for value in protocol["iou"].values()]
        axes.bar(places, values, width, color=colors, edgecolor="0.6", hatch=HATCHES[number])
        legend.append(
            Patch(facecolor="0.35", edgecolor="0.85", hatch=HATCHES[number], label=_with_miou(name, protocol))
        )
    axes.set_xticks(np.arange(space.num_classes), space.names, rotation=30)
    axes.set_xlim(-0.6, space.num_classes - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel("IoU (%)")
    axes.legend(handles=legend, loc="upper right", ncols=len(legend))


def _with_miou(name: str, protocol: Figures) -> str:
    return f"{name}: mIoU {_percent(protocol['miou'])}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.1f} %"


def confusion_picture(figures: Figures) -> Figure:
    """The confusion matrix of each protocol, every row in percent of the pixels that are truly of its class."""
    protocols, names = figures["protocols"], figures["classes"]
    side = 2.2 + 0.44 * len(names)
    figure = Figure(figsize=(side * len(protocols), side), layout="constrained")
    for number, (name, protocol) in enumerate(protocols.items()):
        axes = figure.add_subplot(1, len(protocols), number + 1)
        _draw_confusion(axes, names, np.array(protocol["confusion"], float))
        axes.set_title(f"{_with_miou(name, protocol)}; rows in percent of the true class")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class, and its share of all labelled pixels")
    return figure


def _draw_confusion(axes: Axes, names: list[str], confusion: Any) -> None:
    of_class = confusion.sum(1, keepdims=True)
    shares = 100 * of_class[:, 0] / max(of_class.sum(), 1)
    percent = np.divide(100 * confusion, of_class, where=of_class > 0, out=np.zeros_like(confusion))
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in zip(*np.nonzero(percent >= 0.5), strict=True):
        value = percent[row, column]
        color = "white" if value > DARK else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(
        places,
        [f"{name}  {share:.1f} %" if share else f"{name}  none" for name, share in zip(names, shares, strict=True)],
    )
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="0.88", linewidth=0.6)
    axes.tick_params(which="minor", length=0)


def interval_picture(figures: Figures) -> Figure:
    """Mean IoU by each protocol, and temporal consistency, against the key-frame interval."""
    evaluated = figures["key_frame_intervals"]["intervals"]
    intervals = [at["interval"] for at in evaluated]
    figure = Figure(figsize=(7, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for name, marker in zip(figures["protocols"], "os", strict=False):
        miou = [at["protocols"][name]["miou"] for at in evaluated]
        above.plot(intervals, [np.nan if value is None else value for value in miou], marker=marker, label=name)
    above.set_ylabel("mIoU (%)")
    above.legend()
    below.plot(intervals, [at["temporal_consistency"] for at in evaluated], marker="D", color="0.35")
    below.set_ylabel("temporal consistency (%)")
    below.set_xlabel("key-frame interval (frames); mean over key-frame ages 1 to the interval")
    below.xaxis.set_major_locator(FixedLocator(intervals))
    below.xaxis.set_minor_locator(NullLocator())
    for axes in (above, below):
        axes.grid(color="0.9")
        low, high = axes.get_ylim()
        margin = max(MIN_SPAN - (high - low), 0.0) / 2
        axes.set_ylim(low - margin, high + margin)
    figure.suptitle(f"{figures['dataset']}: accuracy against the key-frame interval")
    return figure
