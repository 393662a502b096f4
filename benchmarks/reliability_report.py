"""What a fuzzing found, as a table."""

from collections.abc import Sequence
from typing import Any

HEADER = ("target", "what", "inputs", "refused", "accepted", "unexpected", "inputs/s", "memory grew by, MB")


def markdown(report: dict[str, Any]) -> str:
    """The report of `benchmarks.reliability fuzz` for people."""
    targets = report["targets"]
    rows = [_row(target) for target in targets]
    total = {key: sum(target[key] for target in targets) for key in ("inputs", "refused", "accepted", "unexpected")}
    rows.append(("all", "", *(f"{total[key]:,}" for key in total), "", ""))
    machine = report["machine"]
    lines = [
        "# Fuzzing",
        "",
        f"{total['inputs']:,} malformed inputs, seed {report['options']['seed']}, {total['unexpected']:,} answered"
        f" otherwise than promised. {machine['device']}, {machine['cores']} cores, load {machine['load_average'][0]};"
        f" commit {report['commit']}.",
        "",
        "Refused is with the documented error. Unexpected is any other error, a crash of the process, no answer within"
        f" {report['options']['hang_s']:g} s, or memory that grew by more than {report['memory_bound_mb']} MB.",
        "",
        *_table(HEADER, rows),
    ]
    causes = [(target["name"], cause) for target in targets for cause in target["causes"]]
    if causes:
        cells = [
            (name, cause["kind"], cause["signature"], str(cause["count"]), str(cause["number"]), cause["message"])
            for name, cause in causes
        ]
        lines += ["", "## What was unexpected", ""]
        lines += _table(("target", "kind", "cause", "count", "first input", "message"), cells)
    return "\n".join(lines) + "\n"


def _row(target: dict[str, Any]) -> tuple[str, ...]:
    counts = (target["inputs"], target["refused"], target["accepted"], target["unexpected"])
    rate = target["inputs"] / target["seconds"] if target["seconds"] else 0.0
    return (
        target["name"],
        target["what"],
        *(f"{count:,}" for count in counts),
        f"{rate:,.0f}",
        f"{target['peak_growth_mb']:g}",
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *escaped)]
