"""What the accuracy benchmark says: what the adaptive policy saves, tables, and a plot."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

GOAL = 60.0  # percent of the fixed policy's key frames, at most, at equal mean IoU
COMPARED = ("cuts", "adaptive")  # with fixed intervals
NAMES = {
    "fixed": "fixed interval",
    "cuts": "fixed interval and scene cuts",
    "adaptive": "adaptive",
}
COLORS = {"fixed": "tab:gray", "cuts": "tab:blue", "adaptive": "tab:orange"}
MARKERS = {"fixed": "o", "cuts": "s", "adaptive": "D"}
Points = Sequence[dict[str, Any]]


class Share(NamedTuple):
    """How many key frames a policy needs."""

    percent: float
    is_bound: bool  # it needs this many at most: the cheapest setting that was measured has a higher mean IoU


def savings(points: Points, parts: Sequence[Points]) -> list[dict[str, Any]]:
    """For every fixed interval: the key frames that the others need for its mean IoU, in percent of its own.

    `all` is of all frames, `lowest` and `highest` are over the parts. None where no setting of a policy that was
    measured has as high a mean IoU.
    """
    rows: list[dict[str, Any]] = []
    for place, point in enumerate(points):
        if point["policy"] != "fixed":
            continue
        row: dict[str, Any] = {"interval": point["setting"], "miou": point["miou"], "key_share": point["key_share"]}
        for kind in COMPARED:
            share = _relative(points, kind, point)
            of_parts = [_relative(part, kind, part[place]) for part in parts]
            known = [each.percent for each in of_parts if each is not None]
            row[kind] = {
                "all": None if share is None else share.percent,
                "is_bound": share is not None and share.is_bound,
                "lowest": min(known, default=None),
                "highest": max(known, default=None) if len(known) == len(parts) else None,
            }
        rows.append(row)
    return rows


def _relative(points: Points, kind: str, fixed: dict[str, Any]) -> Share | None:
    share = key_share_for(points, kind, fixed["miou"])
    return None if share is None else Share(100 * share.percent / fixed["key_share"], share.is_bound)


def key_share_for(points: Points, kind: str, miou: float) -> Share | None:
    """The share of key frames, in percent of frames, from which on a policy has a mean IoU; None if it never has.

    Between the two points that enclose it the share is interpolated. Where chance makes a curve go up and down, the
    last time it reaches the mean IoU counts.
    """
    curve = sorted((point["key_share"], point["miou"]) for point in points if point["policy"] == kind)
    found = None if not curve or curve[0][1] < miou else Share(curve[0][0], is_bound=True)
    for (share, below), (next_share, above) in pairwise(curve):
        if above < miou:
            found = None
        elif below < miou:
            found = Share(float(share + (next_share - share) * (miou - below) / (above - below)), is_bound=False)
    return found


def tables(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        f"{report['bundle']}, {report['graphs']}, {report['runtime']}; {report['machine']['device']}; commit"
        f" {report['commit']}. Adaptive within {report['bounds']['min_interval']} and"
        f" {report['bounds']['max_interval']} frames.",
    ]
    for group, measured in report["groups"].items():
        lines += ["", f"## {group}, {measured['frames']} frames", ""]
        lines += ["| policy | setting | key frames (%) | mIoU (%) | lowest to highest |", "|---|---|---|---|---|"]
        for place, point in enumerate(measured["points"]):
            spread = [part[place]["miou"] for part in measured["parts"].values()]
            lines.append(
                f"| {NAMES[point['policy']]} | {point['setting']:g} | {point['key_share']:.1f} | {point['miou']:.2f} |"
                f" {min(spread):.2f} to {max(spread):.2f} |"
            )
        lines += [
            "",
            f"Key frames for the mIoU of a fixed interval, in percent of its own (goal: at most {GOAL:.0f}); lowest to"
            f" highest over {', '.join(measured['parts'])}:",
            "",
            "| interval | mIoU (%) | interval and scene cuts | adaptive |",
            "|---|---|---|---|",
        ]
        for row in measured["savings"]:
            cells = (_cell(row[kind]) for kind in COMPARED)
            lines.append(f"| {row['interval']:g} | {row['miou']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(saving: dict[str, Any]) -> str:
    if saving["all"] is None:
        return "not reached"
    if saving["is_bound"] and saving["all"] > 100:
        return "no setting as cheap"
    ends = ("not reached" if end is None else f"{end:.0f}" for end in (saving["lowest"], saving["highest"]))
    return f"{'at most ' if saving['is_bound'] else ''}{saving['all']:.0f} ({' to '.join(ends)})"


def draw_plot(report: dict[str, Any]) -> Figure:
    """Mean IoU over the share of key frames, a panel for each group."""
    groups = report["groups"]
    columns = min(len(groups), 2)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(6.5 * columns, 4.6 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (group, measured) in zip(panels, groups.items(), strict=False):
        for kind, name in NAMES.items():
            points = sorted((p for p in measured["points"] if p["policy"] == kind), key=lambda p: p["key_share"])
            shares, mious = [p["key_share"] for p in points], [p["miou"] for p in points]
            style = "--" if kind == "cuts" else "-"
            axes.plot(shares, mious, style, color=COLORS[kind], marker=MARKERS[kind], markersize=5, label=name)
            if kind == "cuts":
                continue
            for point in points:
                above = kind == "adaptive"
                axes.annotate(
                    f"{point['setting']:g}", (point["key_share"], point["miou"]), color=COLORS[kind], fontsize="small",
                    xytext=(0, 7 if above else -7), textcoords="offset points", ha="center",
                    va="bottom" if above else "top",
                )  # fmt: skip
        axes.set_xscale("log")
        ticks = [3, 5, 10, 20, 50, 100]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.margins(x=0.06, y=0.1)
        axes.set_title(f"{group}, {measured['frames']} frames")
        axes.set_xlabel("key frames (% of frames)")
        axes.set_ylabel("mIoU (%)")
        axes.grid(alpha=0.3, which="both")
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    figure.suptitle("Numbers at the points: interval in frames; staleness of the adaptive policy", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(NAMES))
    return figure
