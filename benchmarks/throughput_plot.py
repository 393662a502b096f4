"""The throughput benchmark as a picture: frames/s and latency over the number of streams."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks.throughput_measurement import BARE, BARE_PER_FRAME, ECHO, LOCKSTEP, OURS

COLORS = {"1": "tab:blue", "5": "tab:orange", "10": "tab:green", "adaptive": "tab:purple"}  # by key frames
OTHER_COLOR = "tab:olive"
PEER_STYLES = (("tab:red", "s"), ("tab:brown", "D"), ("tab:pink", "^"))


def draw_plot(report: Mapping[str, Any]) -> Figure:
    """The bare loops, which have one stream, are lines across."""
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    rate_axes, latency_axes = figure.subplots(1, 2)
    rows = [row for row in report["rows"] if row["in_flight"] != LOCKSTEP and row["contestant"] != ECHO]
    levels = sorted({row["streams"] for row in rows})
    peers = list(report["peers"])
    for contestant, key_frames in dict.fromkeys((row["contestant"], row["key_frames"]) for row in rows):
        phase = OURS if contestant == OURS else contestant
        line = [
            row
            for row in rows
            if (row["phase"], row["contestant"], row["key_frames"]) == (phase, contestant, key_frames)
        ]
        if contestant == OURS:
            color, marker, label = COLORS.get(key_frames, OTHER_COLOR), "o", f"flowseg, key frames {key_frames}"
        else:
            color, marker = PEER_STYLES[peers.index(contestant)]
            label = f"{report['peers'][contestant]['title']}, per frame"
        places = [levels.index(row["streams"]) for row in line]
        rates = [row["frames_per_s"] for row in line]
        medians = [rate["median"] for rate in rates]
        below = [rate["median"] - rate["lowest"] for rate in rates]
        above = [rate["highest"] - rate["median"] for rate in rates]
        rate_axes.errorbar(places, medians, [below, above], color=color, marker=marker, capsize=3, label=label)
        for rank, style in (("p50", "-"), ("p99", ":")):
            latency_axes.plot(places, [row["latency_ms"][rank] for row in line], style, color=color, marker=marker)
    for row in report["rows"]:
        if row["phase"] == OURS and row["contestant"] in (BARE, BARE_PER_FRAME):
            is_per_frame = row["contestant"] == BARE_PER_FRAME
            color = "black" if is_per_frame else COLORS.get(row["key_frames"], OTHER_COLOR)
            label = row["contestant"] if is_per_frame else f"{BARE}, key frames {row['key_frames']}"
            rate_axes.axhline(row["frames_per_s"]["median"], color=color, linestyle="--", linewidth=1, label=label)
    for axes, title in (
        (rate_axes, "frames/s of all streams: median, lowest and highest of the rounds"),
        (latency_axes, "ms from sending a frame to its answer: p50, and p99 dotted"),
    ):
        axes.set_xticks(range(len(levels)), [str(level) for level in levels])
        axes.set_xlabel(f"streams, {report['options']['in_flight']} frames in flight each")
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    rate_axes.set_ylim(bottom=0)
    latency_axes.set_yscale("log")
    computer = report["machine"]
    what = (
        report["network"],
        report["frames"]["size"],
        report["runtime"],
        computer["device"],
        f"{computer['cores']} cores",
    )
    figure.suptitle(", ".join(what), fontsize="medium")
    figure.legend(*rate_axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    return figure
