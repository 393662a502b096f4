"""The table of `benchmarks.flow_loss` in Markdown."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.paper_scales import ScaleName
from benchmarks.paper_verdicts import Place, differences, judge, spread


class Line(NamedTuple):
    """A variant."""

    title: str
    place: Place  # where its results are
    sfc: str  # systems
    control: str
    cosines: Sequence[float | None]  # of the gradients, by seed


def report(lines: Sequence[Line], look: str, scale: ScaleName, seeds: Sequence[int]) -> str:
    """All variants with their gains over the control, and whether these hold on every seed."""
    first = next(iter(lines)).place.results
    height, width = first["scale"]["size"]
    text = [
        "# What SFC's flow loss adds, and when",
        "",
        f"Stage one on the embedded world, from its source look to {look!r}: frames of {width}x{height}, scale"
        f" `{scale}`, seeds {', '.join(map(str, seeds))}, commit {first['commit']}. mIoU in percent on validation clips"
        " of the target: mean, and lowest to highest over seeds. Gain: SFC less the same training without flow loss."
        " Cosine: of the flow loss's gradient with that of true labels, where adaptation starts.",
        "",
        "| what is varied | SFC | without flow loss | gain | | gain with target statistics | | cosine |",
        "|---|---|---|---|---|---|---|---|",
        *(_line_text(line) for line in lines),
    ]
    if not first["scale"]["is_telling"]:
        text += ["", "**This scale only shows that everything runs. Its figures mean nothing.**"]
    errors = [f"- {line.title}: {why}" for line in lines for of in line[2:4] for why in line.place.errors(of)]
    if errors:
        text += ["", "What failed:", "", *dict.fromkeys(errors)]
    return "\n".join(text) + "\n"


def _line_text(line: Line) -> str:
    cells = [line.title]
    for with_statistics in (False, True):
        sfc, control = (line.place.figures(system, with_statistics) for system in (line.sfc, line.control))
        if not with_statistics:
            cells += [spread(list(sfc.values())), spread(list(control.values()))]
        gains = differences(sfc, control)
        cells += [spread(gains, "+.2f"), judge(gains) if gains else ""]
    cosines = [cosine for cosine in line.cosines if cosine is not None]
    return f"| {' | '.join([*cells, spread(cosines, '+.3f')])} |"
