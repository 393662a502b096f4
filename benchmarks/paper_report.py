"""The tables in Markdown: the paper's figures, ours with their spread, and what contradicts the paper with a reason."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.paper_results import Results, find_all
from benchmarks.paper_tables import NUM_CLASSES, TABLES, Row, Table
from benchmarks.paper_verdicts import Place, Verdict, gap_closed, judge, spread, verdicts
from training.run_directory import write_aside

FALLS = (
    ("SegNet, FlowNet of the source", "segnet target, flow source", "segnet source, flow source"),
    ("SegNet, FlowNet of the target", "segnet target, flow target", "segnet source, flow target"),
    ("FlowNet, SegNet of the source", "segnet source, flow target", "segnet source, flow source"),
    ("FlowNet, SegNet of the target", "segnet target, flow target", "segnet target, flow source"),
)
CHOICES = "Checkpoints chosen without labels; mIoU (%) on the frames of the choice:"
OPPOSED = -0.5  # correlation from which on mIoU is said to rise where the error falls


def targets_of(results: Results, classes: str) -> list[str]:
    """The targets that there are results of."""
    return list(dict.fromkeys(cell["target"] for cell in results["cells"] if cell["classes"] == classes))


def report(results: Results) -> str:
    """All tables of the results."""
    parts = [_preamble(results)]
    for number in results["tables"]:
        table = TABLES[number]
        places = (Place(results, table.classes, target) for target in targets_of(results, table.classes))
        parts += [table_text(number, table, place) for place in places]
    parts += [text for text in (figure_2_text(results), figure_5_text(results)) if text]
    if results["failed_figures"]:
        parts.append("\n".join(["Figures that failed:", "", *(f"- {why}" for why in results["failed_figures"])]))
    return "\n\n".join(parts) + "\n"


def write_tables(folder: Path, results: Results) -> None:
    """Puts all tables into the folder as tables.md."""
    text = report(results)
    write_aside(folder / "tables.md", lambda path: path.write_text(text, encoding="utf-8"))


def _preamble(results: Results) -> str:
    scale, seeds = results["scale"], sorted({cell["seed"] for cell in results["cells"]})
    commits = sorted({cell["commit"] for cell in results["cells"] if "commit" in cell})
    several = " (several: rows that differ may be of different code)" if len(commits) > 1 else ""
    on = (
        "the data sets of the paper"
        if results["data"] == "real"
        else f"the embedded world, frames of {scale['size'][0]}x{scale['size'][1]}, {scale['backbone']}"
    )
    lines = [
        "# The paper's tables",
        "",
        f"Scale `{scale['name']}` on {on}; seeds {', '.join(map(str, seeds))}; trained at commit"
        f" {', '.join(commits) or 'unknown'}{several}.",
        "",
        "mIoU in percent on validation clips of the target, by the protocol of SFC's code: mean, and lowest to highest"
        " over seeds. The paper's figures are of real data and larger networks: what can be compared is the"
        " order of rows. Rows in italics are controls, which the paper has not. Of the gap: where a row"
        " stands between source-only as trained (0 %) and target-only (100 %).",
    ]
    if not scale["is_telling"]:
        lines += ["", "**This scale only shows that everything runs. Its figures mean nothing.**"]
    return "\n".join(lines)


def table_text(number: int, table: Table, place: Place) -> str:
    """One table on one target."""
    lines = [
        f"## Table {number}: {table.title}, on {place.target}",
        "",
        f"Here: {_here(place)}.",
        "",
        "| | the paper | as trained | of the gap (%) | with target statistics | of the gap (%) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row_text(row, place) for row in table.rows]
    failed = [f"- {row.title}: {error}" for row in table.rows for error in place.errors(row.system)]
    if failed:
        lines += ["", "Rows that failed:", *dict.fromkeys(failed)]
    found = list(verdicts(table, place))
    if found:
        lines += ["", *_verdict_lines(found)]
    if choices := list(_choice_lines(table, place)):
        lines += ["", CHOICES, "", *choices]
    return "\n".join(lines)


def _choice_lines(table: Table, place: Place) -> Iterator[str]:
    """What every training that chooses its checkpoint without labels loses by that."""
    where = {"classes": place.classes, "target": place.target}
    found: dict[str, list[Results]] = {}
    for row in table.rows:
        for cell in find_all(place.results["cells"], **where, system=row.system):
            for choice in cell.get("choices", ()):
                found.setdefault(choice["recipe"], []).append(choice)
    for recipe, choices in found.items():
        chosen, last, best = (spread([choice[key] for choice in choices]) for key in ("chosen", "last", "best"))
        yield f"- {recipe}: {chosen}; the last one {last}, the best by labels {best}."


def _here(place: Place) -> str:
    is_real = place.results["data"] == "real"
    where = "the data sets of the paper" if is_real else f"the embedded world, from its source look to {place.target!r}"
    return f"{where}, {NUM_CLASSES[place.classes]} classes"


def _row_text(row: Row, place: Place) -> str:
    title = f"*{row.title}*" if row.is_control else row.title
    cells = [title, "" if row.paper is None else f"{row.paper:g}"]
    for with_statistics in (False, True):
        figures = {} if row.with_statistics and not with_statistics else place.figures(row.system, with_statistics)
        cells += [spread(list(figures.values())), spread(gap_closed(figures, row.of, place), ".0f")]
    return f"| {' | '.join(cells)} |"


def _verdict_lines(found: Sequence[Verdict]) -> list[str]:
    lines = ["| what the paper says or needs | its gain | ours | |", "|---|---|---|---|"]
    lines += [f"| {verdict.claim} | {verdict.paper} | {verdict.ours} | {verdict.word} |" for verdict in found]
    against = [verdict for verdict in found if verdict.reason]
    if against:
        lines += ["", "What contradicts the paper, or is not shown, and the most likely reason:", ""]
        for reason in dict.fromkeys(verdict.reason for verdict in against):
            claims = (f"{verdict.claim} ({verdict.word.strip('*')})" for verdict in against if verdict.reason == reason)
            lines.append(f"- {'; '.join(claims)}. {reason}")
    return lines


def figure_2_text(results: Results) -> str:
    """The falls of both networks."""
    lines = []
    for place, entries in _by_place(results["figure_2"]).items():
        lines += ["", f"Target: {place}. Points lost when one network is trained on the source instead of it:", ""]
        lines += ["| | as trained | with target statistics |", "|---|---|---|"]
        for title, here, there in FALLS:
            cells = (spread(_falls(entries, column, here, there)) for column in ("as_trained", "target_statistics"))
            lines.append(f"| {title} | {' | '.join(cells)} |")
        source, target = (spread([entry["epe"][of]["epe"] for entry in entries], ".3f") for of in ("source", "target"))
        none = spread([entry["epe"]["source"]["epe_of_no_flow"] for entry in entries], ".3f")
        lines += [
            "",
            f"End-point error on the target (quarter-resolution pixels): flow network of the source {source}, of the"
            f" target {target}, no flow {none}.",
            "",
            _contrast(entries),
        ]
    return "\n".join(["## Figure 2: what falls from source to target", *lines]) if lines else ""


def _falls(entries: Sequence[Results], column: str, here: str, there: str) -> list[float]:
    return [entry[column][here] - entry[column][there] for entry in entries]


def _contrast(entries: Sequence[Results]) -> str:
    """Whether segmentation falls more than flow, each beside a partner of the source, and how far it is BatchNorm."""
    (_, *segnet), (_, *flow) = FALLS[0], FALLS[2]
    of_segnet, of_flow = _falls(entries, "as_trained", *segnet), _falls(entries, "as_trained", *flow)
    word = judge([a - b for a, b in zip(of_segnet, of_flow, strict=True)])
    rest, fall = fmean(_falls(entries, "target_statistics", *segnet)), fmean(of_segnet)
    text = (
        f"The paper's contrast, that the segmentation network falls and the flow network hardly does: {word}, as"
        f" trained they lose {fall:.1f} and {fmean(of_flow):.1f} points."
    )
    if fall > 0:
        share = 100 * (fall - rest) / fall
        text += (
            f" With re-estimated BatchNorm statistics {rest:.1f} of the {fall:.1f} remain, so {share:.0f} % of the fall"
            " is statistics."
        )
    return text


def figure_5_text(results: Results) -> str:
    """Whether mIoU rises where the error falls, in both trainings."""
    lines = []
    for place, entries in _by_place(results["figure_5"]).items():
        lines += ["", f"Target: {place}. Correlation of mIoU with the error along the training, by seed:", ""]
        for system in ("sfc-one", "control-one"):
            found = [correlation(entry["curves"][system]) for entry in entries]
            told = ", ".join("undefined" if value is None else f"{value:+.2f}" for value in found)
            known = [value for value in found if value is not None]
            word = "" if not known else _as_in_the_paper(fmean(known))
            lines.append(f"- {'SFC' if system == 'sfc-one' else 'without the flow loss'}: {told}{word}")
    if not lines:
        return ""
    note = (
        "The paper's Fig. 5 shows mIoU rising while the error of the flow that predictions imply falls (correlation"
        " near -1). Where the control shows the same, the error falls because predictions get better, not the reverse."
    )
    return "\n".join(["## Figure 5: mIoU against the flow's error", "", note, *lines])


def _as_in_the_paper(mean: float) -> str:
    return ", as in the paper" if mean < OPPOSED else ", **not as in the paper**"


def correlation(curve: Sequence[dict[str, float]]) -> float | None:
    """Pearson's, of mIoU and error; None where one of them does not change."""
    miou, epe = ([point[key] for point in curve] for key in ("miou", "epe"))
    if len(curve) < 2:
        return None
    mean_miou, mean_epe = fmean(miou), fmean(epe)
    products = sum((a - mean_miou) * (b - mean_epe) for a, b in zip(miou, epe, strict=True))
    squares: float = sum((a - mean_miou) ** 2 for a in miou) * sum((b - mean_epe) ** 2 for b in epe)
    return None if squares == 0 else float(products / squares**0.5)


def _by_place(entries: list[Results]) -> dict[str, list[dict[str, Any]]]:  # Any: of what JSON knows
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in find_all(entries):
        name = f"{entry['target']}, {NUM_CLASSES[entry['classes']]} classes"
        found.setdefault(name, []).append(entry)
    return found
