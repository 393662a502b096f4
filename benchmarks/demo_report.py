"""What the demo says: a sentence, a table, a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from training.data.clip import FlowClip, LabelledClip
from training.data.world.preview import color_flow
from training.label_spaces import LabelSpace
from training.methods.losses import scaled_softmax
from training.models.optical_flow import FlowNet
from training.models.segmentation_to_flow import flow_from_probabilities
from training.models.video_segmenter import VideoSegmenter

SOFTMAX_SCALE = 100.0  # lambda_s of the paper
NOISE = 2.0  # points of mIoU: about the spread over seeds, see benchmarks/results
ROWS = {
    "source_only": "source-only",
    "control_without_flow_loss": "the same training as SFC without the flow loss",
    "adapted": "SFC: adapted with the flow loss",
    "augmented_source": "source-only with random colours, blur and noise",
    "recommended": "recommended: random colours, a mean teacher, source objects in target frames",
    "target_only": "target-only: target labels in random colours, as many steps as the recommended",
}


@dataclass(frozen=True, kw_only=True)
class Pictured:
    """What the picture shows of."""

    clips: list[LabelledClip]  # target, without batch dimension
    flows: list[FlowClip]  # of the same clips
    source_only: VideoSegmenter
    adapted: VideoSegmenter  # by SFC
    recommended: VideoSegmenter
    sfm: FlowNet
    label_space: LabelSpace


def verdict(plain: dict[str, float], with_statistics: dict[str, float]) -> str:
    """How much of the gain each part brings, in a few sentences.

    Args:
        plain: mean IoU on the target in percent, by the rows of the report.
        with_statistics: the same with BatchNorm statistics re-estimated on target frames.
    """
    statistics = with_statistics["source_only"] - plain["source_only"]
    control = plain["control_without_flow_loss"] - plain["source_only"]
    flow_loss = plain["adapted"] - plain["control_without_flow_loss"]
    augmented, recommended = (plain[row] - plain["source_only"] for row in ("augmented_source", "recommended"))
    flow_loss_with_statistics = with_statistics["adapted"] - with_statistics["control_without_flow_loss"]
    return (
        f"Of the {plain['target_only'] - plain['source_only']:.1f} points between source-only and target-only,"
        f" re-estimating BatchNorm statistics on target frames, without any training, closes {statistics:.1f};"
        f" SFC's training without its flow loss closes {control:.1f}; the flow loss changes that by {flow_loss:+.1f}"
        f" ({flow_loss_with_statistics:+.1f} with re-estimated statistics). Random colours of the source close"
        f" {augmented:.1f}, the recommended recipe {recommended:.1f}. One seed: less than {NOISE:.0f} points are noise."
    )


def print_table(report: dict[str, Any]) -> None:
    """The figures on the terminal."""
    console = Console()
    table = Table(title="mIoU on the target domain (%)", title_justify="left")
    table.add_column("segmenter (Accel)")
    table.add_column("as trained", justify="right")
    table.add_column("BatchNorm statistics\nof the target", justify="right")
    with_statistics = report["target_miou_with_target_statistics"]
    for row, description in ROWS.items():
        second = f"{with_statistics[row]:.1f}" if row in with_statistics else ""
        table.add_row(description, f"{report['target_miou'][row]:.1f}", second)
    console.print(table)
    console.print(report["verdict"])
    epe, export, serving = report["flow_epe"], report["export"], report["serving"]
    console.print(
        f"Source-trained FlowNet, end-point error in quarter-resolution pixels: {epe['source']:.2f} on source,"
        f" {epe['target']:.2f} on target."
    )
    console.print(f"Export: {100 * export['label_agreement']:.3f} % of labels equal torch's, through the served path.")
    console.print(
        f"Serving: {serving['answered']} of {serving['frames']} frames answered, {serving['fps']:.0f} frames/s, latency"
        f" {serving['p50_ms']:.0f} ms (median) and {serving['p99_ms']:.0f} ms (99th percentile);"
        f" {100 * serving['label_agreement_with_torch']:.3f} % of labels equal torch's."
    )


@torch.no_grad()
def draw_report(pictured: Pictured, sentence: str) -> Figure:
    """Target frames, labels, three predictions, true flow and the flow that SFC's predictions imply."""
    titles = ("target frame", "labels", "source-only", "SFC", "recommended", "true flow", "flow that SFC's imply")
    rows = len(pictured.clips)
    figure = Figure(figsize=(3 * len(titles), 1.6 * rows + 1.2), layout="constrained")
    grid: NDArray[Any] = figure.subplots(rows, len(titles), squeeze=False)
    for axes_row, clip, flow_clip in zip(grid, pictured.clips, pictured.flows, strict=True):
        pictures = (
            (clip.frames[-1].permute(1, 2, 0) * 255).round().byte().numpy(),
            pictured.label_space.color_labels(clip.labels[-1].numpy()),
            _predict(pictured, pictured.source_only, clip),
            _predict(pictured, pictured.adapted, clip),
            _predict(pictured, pictured.recommended, clip),
            color_flow(flow_clip.flow.permute(1, 2, 0).numpy()),
            color_flow(_implied_flow(pictured, clip)),
        )
        for axes, picture in zip(axes_row, pictures, strict=True):
            axes.imshow(picture, aspect="auto")
            axes.set_axis_off()
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    patches = [
        Patch(color="#{:02x}{:02x}{:02x}".format(*entry.color), label=entry.name)
        for entry in pictured.label_space.classes
    ]
    figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), fontsize="medium", frameon=False)
    figure.supxlabel(sentence, fontsize="medium", wrap=True)
    return figure


def _predict(pictured: Pictured, segmenter: VideoSegmenter, clip: LabelledClip) -> NDArray[np.uint8]:
    return pictured.label_space.color_labels(segmenter(clip.frames[None]).argmax(1)[0].numpy())


def _implied_flow(pictured: Pictured, clip: LabelledClip) -> NDArray[np.float32]:
    """(h, w, 2) in quarter-resolution pixels: the SFM's flow of the adapted predictions of both frames."""
    previous, current = clip.frames[None, -2], clip.frames[None, -1]
    current_probabilities = scaled_softmax(pictured.adapted(clip.frames[None, -2:]), SOFTMAX_SCALE)
    previous_probabilities = scaled_softmax(pictured.adapted(clip.frames[None, -2:-1]), SOFTMAX_SCALE)
    flow = flow_from_probabilities(pictured.sfm, current_probabilities, previous_probabilities, current, previous)
    implied: NDArray[np.float32] = flow[0].permute(1, 2, 0).numpy()
    return implied
