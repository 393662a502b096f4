"""Mean and spread of several demos: python -m benchmarks.demo_seeds RUN [RUN ...] --out benchmarks/results/demo.

Writes OUT.json, with the reports it read, and the table as OUT.md.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.demo_report import ROWS
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.run_directory import write_aside

logger = logging.getLogger(__name__)
COLUMNS = {
    "target_miou": "as trained",
    "target_miou_with_target_statistics": "BatchNorm statistics of the target",
}


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.demo_seeds`."""

    runs: tyro.conf.Positional[tuple[Path, ...]]  # folders of finished demos
    out: Path  # name of the results, without ending


def summarize(reports: Sequence[dict[str, Any]]) -> str:
    """The table of all reports in Markdown: mean and range over seeds of every row.

    Raises:
        ValueError: if two reports are of one seed, or of different commits.
    """
    seeds = [report["seed"] for report in reports]
    commits = {report["commit"] for report in reports}
    if len(set(seeds)) < len(seeds) or len(commits) > 1:
        raise ValueError(f"seeds {seeds} of commits {sorted(commits)}: give demos of one commit and different seeds")
    lines = [
        f"mIoU (%) on the embedded world's target look, seeds {', '.join(map(str, seeds))}: mean (lowest to highest)",
        "",
        f"| segmenter | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for row, description in ROWS.items():
        cells = (_spread([report[column][row] for report in reports if row in report[column]]) for column in COLUMNS)
        lines.append(f"| {description} | {' | '.join(cells)} |")
    differences = {
        column: [report[column]["adapted"] - report[column]["control_without_flow_loss"] for report in reports]
        for column in COLUMNS
    }
    lines += ["", "The flow loss alone (SFC less its control, by seed):"]
    lines += [
        f"- {COLUMNS[column]}: {', '.join(f'{value:+.2f}' for value in values)}"
        for column, values in differences.items()
    ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else ""


def _read(run: Path) -> dict[str, Any]:
    path = run / "report.json"
    if not path.is_file():
        raise ValueError(
            f"{run} is no finished demo: it has no report.json, run 'python -m benchmarks.demo --out {run}'"
        )
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.demo_seeds", description=__doc__)
    with user_errors_exit_with_2(ValueError):
        reports = [_read(run) for run in options.runs]
        table, text = summarize(reports), json.dumps(reports, indent=2) + "\n"
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_aside(options.out.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
        write_aside(options.out.with_suffix(".md"), lambda path: path.write_text(table, encoding="utf-8"))
        logger.info("wrote %s and .md", options.out.with_suffix(".json"))


if __name__ == "__main__":
    main()
