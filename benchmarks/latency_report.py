"""What the latency benchmark says: tables, a plot, and whether the goals are met."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from matplotlib.figure import Figure

INT8_OVER_FP32 = 3.0  # how many times as fast int8 should be, against ONNX Runtime's fp32, each graph
MAX_MIOU_LOSS = 0.5  # points of mean IoU (%)
OVER_OPPONENT = {"5": 2.0, "10": 2.5}  # how many times as fast as the opponent, by key-frame interval
TIMES_FLOOR = 1.5  # of the fastest path, each graph
COLORS = {"fp32": "tab:blue", "int8": "tab:orange"}
MARKERS = "osD^vPX*"  # of networks on runtimes
LINES = ("--", ":", "-.")  # of runtimes, for per-frame networks
NO_ACCURACY = "Networks without accuracy have random weights, or it was not measured when they were exported."


class Goal(NamedTuple):
    """A figure beside what it should be."""

    what: str
    figure: float
    wanted: float
    is_met: bool


def goals(sizes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of all networks but the opponents, as far as what was measured can tell."""
    return [goal._asdict() for measured in sizes for goal in _goals(measured)]


def _goals(measured: dict[str, Any]) -> Iterator[Goal]:
    rows = [row for row in measured["networks"] if row["network"] != measured["opponent"]]
    for row in rows:
        name = f"{measured['size']} {row['network']} {row['precision']} {row['runtime']}"
        if row["precision"] == "int8":
            for graph, figures in row["graphs"].items():
                if (ratio := figures.get("times_as_fast_as_onnxruntime_fp32")) is not None:
                    yield _at_least(f"{name}: {graph}, times as fast as ONNX Runtime fp32", ratio, INT8_OVER_FP32)
            if "miou" in row["accuracy"]:
                lost = row["accuracy"]["miou_of_network"] - row["accuracy"]["miou"]
                yield _at_most(f"{name}: points of mIoU lost", lost, MAX_MIOU_LOSS)
        for interval, wanted in OVER_OPPONENT.items():
            if (ratio := row["times_as_fast_as_opponent"].get(interval)) is not None:
                yield _at_least(f"{name}: interval {interval}, times as fast as per frame", ratio, wanted)
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        best = min(own, key=lambda row: list(row["ms_per_frame"].values())[-1])  # of the longest interval
        for graph, figures in best["graphs"].items():
            name = f"{measured['size']} {network} {best['precision']} {best['runtime']}"
            yield _at_most(f"{name}, the fastest: {graph}, times its floor", figures["times_floor"], TIMES_FLOOR)


def _at_least(what: str, figure: float, wanted: float) -> Goal:
    return Goal(what, figure, wanted, figure >= wanted)


def _at_most(what: str, figure: float, wanted: float) -> Goal:
    return Goal(what, figure, wanted, figure <= wanted)


def tables(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    options, computer = report["options"], report["machine"]
    clock = "time on the processor" if options["clock"] == "cpu" else "time on the clock"
    lines = [
        f"Batch {options['batch']}, {options['threads']} thread(s), {', '.join(report['runtimes'])};"
        f" {computer['device']}, {computer['cores']} cores, load {computer['load_average'][0]}; commit"
        f" {report['commit']}. All of one size ran in turns, in {options['rounds']} rounds. Ratios, floors and ms"
        f" per frame are of {clock}.",
    ]
    for measured in report["sizes"]:
        lines += ["", f"## {measured['size']}", "", *_graph_table(measured), "", *_frame_table(measured), ""]
        products = (
            f"{name} {product['gop_per_s']} ({product['precision']})"
            for name, product in measured["matrix_products"].items()
        )
        lines += [
            f"Matrix products, GOP/s: {', '.join(products)}. The floor of a graph is its operations over the fastest of"
            f" their precision. {NO_ACCURACY}"
        ]
    lines += ["", "## Goals", "", "| what | measured | wanted | met |", "|---|---|---|---|"]
    lines += [
        f"| {goal['what']} | {goal['figure']:.2f} | {goal['wanted']} | {'yes' if goal['is_met'] else 'no'} |"
        for goal in report["goals"]
    ]
    return "\n".join(lines) + "\n"


def _graph_table(measured: dict[str, Any]) -> Iterator[str]:
    yield (
        "| network | runtime | precision | graph | runs | ms p50 | p90 | p99 | processor ms p50 | GFLOP (in int8) |"
        " floor ms | times floor | times as fast as ONNX Runtime fp32 |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    for row in measured["networks"]:
        for graph, figures in row["graphs"].items():
            wall, gflop = figures["wall_ms"], figures["gflop"]
            faster = figures.get("times_as_fast_as_onnxruntime_fp32")
            yield (
                f"| {row['network']} | {row['runtime']} | {row['precision']} | {graph} | {figures['runs']} |"
                f" {wall['p50']:.1f} | {wall['p90']:.1f} | {wall['p99']:.1f} | {figures['cpu_ms']['p50']:.1f} |"
                f" {sum(gflop.values()):.1f} ({gflop.get('int8', 0):.1f}) | {figures['floor_ms']:.1f} |"
                f" {figures['times_floor']:.2f} | {'' if faster is None else f'{faster:.2f}'} |"
            )


def _frame_table(measured: dict[str, Any]) -> Iterator[str]:
    intervals = list(measured["networks"][0]["ms_per_frame"])
    titles = [f"interval {k}" for k in intervals]
    yield (f"| network | runtime | precision | {' | '.join(titles)} | labels equal (%) | mIoU (%) | network's |")
    yield "|---|---|---|" + "---|" * (len(intervals) + 3)
    for row in measured["networks"]:
        cells = [f"{row['ms_per_frame'][k]:.1f} ({row['times_as_fast_as_opponent'][k]:.2f}x)" for k in intervals]
        accuracy = row["accuracy"]
        agreement = f"{100 * accuracy['label_agreement']:.2f}" if "label_agreement" in accuracy else ""
        mious = [f"{accuracy[name]:.1f}" if name in accuracy else "" for name in ("miou", "miou_of_network")]
        yield (
            f"| {row['network']} | {row['runtime']} | {row['precision']} | {' | '.join(cells)} | {agreement} |"
            f" {' | '.join(mious)} |"
        )
    yield ""
    yield (
        "ms per frame with a key frame every so many frames, and in brackets how many times as fast that is as"
        f" {measured['opponent']} in the same runtime and precision."
    )


def draw_plot(report: dict[str, Any]) -> Figure:
    """ms per frame over the key-frame interval, a panel for each size; a per-frame network is a line across."""
    sizes = report["sizes"]
    figure = Figure(figsize=(6.5 * len(sizes), 6.5), layout="constrained")
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    for axes, measured in zip(panels, sizes, strict=True):
        networks = list(dict.fromkeys((row["network"], row["runtime"]) for row in measured["networks"]))
        for row in measured["networks"]:
            label = f"{row['network']}, {row['precision']}, {row['runtime']}"
            color = COLORS[row["precision"]]
            places = range(len(row["ms_per_frame"]))
            milliseconds = list(row["ms_per_frame"].values())
            if "key" in row["graphs"]:
                marker = MARKERS[networks.index((row["network"], row["runtime"])) % len(MARKERS)]
                axes.plot(places, milliseconds, color=color, marker=marker, label=label)
            else:
                runtimes = list(dict.fromkeys(runtime for _, runtime in networks))
                line = LINES[runtimes.index(row["runtime"]) % len(LINES)]
                axes.axhline(milliseconds[0], color=color, linestyle=line, label=label)
        axes.set_xticks(range(len(places)), list(row["ms_per_frame"]))
        axes.set_xlabel("key-frame interval")
        axes.set_ylabel("ms per frame")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.set_title(f"{measured['size']}, batch {report['options']['batch']}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes), fontsize="small")
    return figure
