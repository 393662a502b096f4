"""What becomes of the paper's claims here, and why, computed from the figures of a table and its controls.

Figures are compared pairwise, seed by seed; nothing here knows what they will be.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.paper_results import Results, find_all
from benchmarks.paper_tables import Claim, Classes, Controls, Table

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
    classes: Classes
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


def gap_closed(system: Figures, of: Controls, place: Place) -> list[float]:
    """By seed, in percent: where a system stands between source-only (0) and target-only (100), both as trained."""
    floor, ceiling = place.figures(of.source_only), place.figures(of.target_only)
    seeds = [seed for seed in sorted(system.keys() & floor.keys() & ceiling.keys()) if ceiling[seed] > floor[seed]]
    return [100 * (system[seed] - floor[seed]) / (ceiling[seed] - floor[seed]) for seed in seeds]
