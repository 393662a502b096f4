"""The tables in Markdown: the paper's figures, ours with their spread, and what contradicts the paper with a reason.

Verdicts and reasons are computed from the figures of the same seeds, pairwise; nothing here knows what they will be.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.paper_results import Results, find_all
from benchmarks.paper_tables import NUM_CLASSES, TABLES, Claim, Row, Table

SMALL_GAP = 5.0  # points between source-only and target-only below which there is hardly a gap to close
Figures = dict[int, float]  # by seed: mIoU in percent


class Verdict(NamedTuple):
    """What becomes of a claim."""

    claim: str
    paper: str
    ours: str  # gain in points: mean, and lowest to highest over seeds
    word: str
    reason: str  # empty where the claim holds


class Place(NamedTuple):
    """One setting's results."""

    results: Results
    classes: str
    target: str

    def figures(self, system: str, with_statistics: bool = False) -> Figures:
        """By seed, of the seeds that have one."""
        column = "target_statistics" if with_statistics else "as_trained"
        found = find_all(self.results["cells"], classes=self.classes, target=self.target, system=system)
        return {cell["seed"]: cell[column]["miou"] for cell in found if column in cell}

    def errors(self, system: str) -> list[str]:
        """What kept seeds from having one."""
        found = find_all(self.results["cells"], classes=self.classes, target=self.target, system=system)
        return [f"seed {cell['seed']}: {cell['error']}" for cell in found if "error" in cell]


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
        "mIoU in percent on validation clips of the target, by the protocol of SFC's code, of the last checkpoint:"
        " mean, and lowest to highest over seeds. The paper's figures are of real data and larger networks: what can be"
        " compared is the order of rows. Rows in italics are controls, which the paper has not.",
    ]
    if not scale["is_telling"]:
        lines += ["", "**This scale only shows that everything runs. Its figures mean nothing.**"]
    return "\n".join(lines)


def table_text(number: int, table: Table, place: Place) -> str:
    """One table on one target."""
    lines = [
        f"## Table {number}: {table.title}. Target: {place.target}, {NUM_CLASSES[table.classes]} classes",
        "",
        "| | the paper | as trained | with target statistics |",
        "|---|---|---|---|",
    ]
    lines += [_row_text(row, place) for row in table.rows]
    failed = [f"- {row.title}: {error}" for row in table.rows for error in place.errors(row.system)]
    if failed:
        lines += ["", "Rows that failed:", *dict.fromkeys(failed)]
    found = list(verdicts(table, place))
    if found:
        lines += ["", *_verdict_lines(found)]
    return "\n".join(lines)


def _row_text(row: Row, place: Place) -> str:
    title = f"*{row.title}*" if row.is_control else row.title
    paper = "" if row.paper is None else f"{row.paper:g}"
    moved = spread(list(place.figures(row.system, with_statistics=True).values()))
    plain = "" if row.with_statistics else spread(list(place.figures(row.system).values()))
    return f"| {title} | {paper} | {plain} | {moved} |"


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


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, and lowest to highest where there are several."""
    if not values:
        return ""
    mean = f"{fmean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{form}} to {max(values):{form}})"


def verdicts(table: Table, place: Place) -> Iterator[Verdict]:
    """What becomes of every claim that there are figures for."""
    rows = {row.system: row for row in reversed(table.rows) if not row.with_statistics}
    for claim in table.claims:
        better, worse = place.figures(claim.better), place.figures(claim.worse, claim.worse_with_statistics)
        gains = differences(better, worse)
        if not gains:
            continue
        papers = rows[claim.better].paper, rows[claim.worse].paper
        known = None if claim.is_implied or papers[0] is None or papers[1] is None else papers[0] - papers[1]
        word = judge(gains)
        yield Verdict(
            claim=f"{_name(table, claim.better)} above {_name(table, claim.worse, claim.worse_with_statistics)}",
            paper="implied" if known is None else f"{known:+.1f}",
            ours=spread(gains, "+.2f"),
            word=word,
            reason="" if word == HOLDS else likely_reason(claim, place, gains),
        )


HOLDS, UNSURE, CONTRADICTED = "holds", "**not shown**", "**contradicted**"


def judge(gains: Sequence[float]) -> str:
    """Of at least two seeds: a gain on every one holds, no gain on average contradicts. The rest shows nothing."""
    if len(gains) < 2:
        return UNSURE
    return CONTRADICTED if fmean(gains) <= 0 else HOLDS if min(gains) > 0 else UNSURE


def differences(better: Figures, worse: Figures) -> list[float]:
    """By seed, of the seeds that both have."""
    return [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]


def likely_reason(claim: Claim, place: Place, gains: Sequence[float]) -> str:
    """The first explanation that the figures bear out, in a sentence or two with them."""
    return next(filter(None, _reasons(claim, place, gains)))


def _reasons(claim: Claim, place: Place, gains: Sequence[float]) -> Iterator[str]:
    of = claim.controls
    source = place.figures(of.source_only)
    gap = differences(place.figures(of.target_only), source)
    if gap and fmean(gap) < SMALL_GAP:
        yield (
            f"Between source-only and the step-matched target-only lie {fmean(gap):.1f} points: there is hardly a gap"
            " that adaptation could close. The networks are trained too short or the looks are too much alike."
        )
    yield _batch_norm(claim, place)
    yield _photometric(claim, place)
    yield _harm_without_loss(claim, place, gains)
    if claim.worse not in (of.control, of.source_only):
        with_statistics = differences(place.figures(claim.better, True), place.figures(claim.worse, True))
        if with_statistics and judge(with_statistics) == HOLDS:
            yield (
                f"With target statistics on both rows the order is the paper's ({spread(with_statistics, '+.2f')}):"
                " they differ in how far training moved BatchNorm's statistics, not in what it taught the weights."
            )
    if len(gains) == 1:
        yield "One seed: the difference may be chance. Run more seeds."
    if min(gains) < 0 < max(gains):
        yield "The sign changes from seed to seed: the difference is smaller than what the seed alone does."
    yield "None of the controls explains it: the method does not do here what it does in the paper."


def _batch_norm(claim: Claim, place: Place) -> str:
    """What of the gain over source-only comes without the flow loss."""
    of = claim.controls
    source = place.figures(of.source_only)
    control = differences(place.figures(of.control), source)
    statistics = differences(place.figures(of.source_only, True), source)
    method = differences(place.figures(claim.better), source)
    is_about_loss = claim.worse == of.control or claim.worse_with_statistics
    if not (is_about_loss and control and statistics and method):
        return ""
    by_control, by_statistics, by_method = fmean(control), fmean(statistics), fmean(method)
    if max(by_control, by_statistics) <= 0 or by_method > 2 * max(by_control, by_statistics):
        return ""
    return (
        f"BatchNorm is the confound: over source-only, the same training without the flow loss gains {by_control:+.1f}"
        f" and re-estimating BatchNorm statistics on target frames {by_statistics:+.1f} without any training, the"
        f" method {by_method:+.1f}. Target frames that are forwarded in training mode move the statistics; of the flow"
        f" loss itself is left {by_method - by_control:+.1f}."
    )


def _photometric(claim: Claim, place: Place) -> str:
    """What random colours of the source gain where a method does not gain more."""
    gain = differences(place.figures(claim.controls.augmented), place.figures(claim.controls.source_only))
    if claim.worse != claim.controls.augmented or not gain or fmean(gain) <= 0:
        return ""
    return (
        f"Random colours of the source gain {fmean(gain):+.1f} over source-only without any target frame: what this"
        " target looks different in is mostly photometric, and plain augmentation reaches that."
    )


def _harm_without_loss(claim: Claim, place: Place, gains: Sequence[float]) -> str:
    """Whether the control falls below source-only too where the method does."""
    control = differences(place.figures(claim.controls.control), place.figures(claim.controls.source_only))
    is_method_below = claim.worse == claim.controls.source_only and fmean(gains) <= 0
    if not is_method_below or not control or fmean(control) > 0:
        return ""
    return (
        f"The same training without the flow loss does not gain over source-only either ({fmean(control):+.1f}): what"
        " harms is training on, not the flow loss."
    )


def _name(table: Table, system: str, with_statistics: bool = False) -> str:
    titles = (row.title for row in table.rows if (row.system, row.with_statistics) == (system, with_statistics))
    return next(titles, system)


def figure_2_text(results: Results) -> str:
    """The falls of both networks."""
    lines = []
    for place, entries in _by_place(results["figure_2"]).items():
        lines += [
            "",
            f"Target: {place}. Points lost when one network is trained on the source instead of it:",
            "",
        ]
        lines += ["| | as trained | with target statistics |", "|---|---|---|"]
        for title, here, there in FALLS:
            cells = (
                spread([entry[column][here] - entry[column][there] for entry in entries])
                for column in ("as_trained", "target_statistics")
            )
            lines.append(f"| {title} | {' | '.join(cells)} |")
        errors = (spread([entry["epe"][domain]["epe"] for entry in entries], ".3f") for domain in ("source", "target"))
        source, target = errors
        none = spread([entry["epe"]["source"]["epe_of_no_flow"] for entry in entries], ".3f")
        lines += [
            "",
            f"End-point error on the target (quarter-resolution pixels): flow network of the source {source}, of the"
            f" target {target}, no flow {none}.",
        ]
    return "\n".join(["## Figure 2: what falls from source to target", *lines]) if lines else ""


FALLS = (
    ("SegNet, FlowNet of the source", "segnet target, flow source", "segnet source, flow source"),
    ("SegNet, FlowNet of the target", "segnet target, flow target", "segnet source, flow target"),
    ("FlowNet, SegNet of the source", "segnet source, flow target", "segnet source, flow source"),
    ("FlowNet, SegNet of the target", "segnet target, flow target", "segnet target, flow source"),
)


def figure_5_text(results: Results) -> str:
    """Whether mIoU rises where the error falls, in both trainings."""
    lines = []
    for place, entries in _by_place(results["figure_5"]).items():
        lines += ["", f"Target: {place}. Correlation of mIoU with the error along the training, by seed:", ""]
        for system in ("sfc-one", "control-one"):
            found = [correlation(entry["curves"][system]) for entry in entries]
            told = ", ".join("undefined" if value is None else f"{value:+.2f}" for value in found)
            lines.append(f"- {'SFC' if system == 'sfc-one' else 'without the flow loss'}: {told}")
    if not lines:
        return ""
    note = (
        "The paper's Fig. 5 shows mIoU rising while the error of the flow that predictions imply falls (correlation"
        " near -1). Where the control shows the same, the error falls because predictions get better, not the reverse."
    )
    return "\n".join(["## Figure 5: mIoU against the flow's error", "", note, *lines])


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
