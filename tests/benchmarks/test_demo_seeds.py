from typing import Any

import pytest

from benchmarks.demo_report import ROWS
from benchmarks.demo_seeds import summarize


def report(seed: int, adapted: float, commit: str = "abc") -> dict[str, Any]:
    figures = dict.fromkeys(ROWS, 30.0) | {"adapted": adapted}
    with_statistics = {row: value for row, value in figures.items() if row != "target_only"}
    return {
        "seed": seed,
        "commit": commit,
        "target_miou": figures,
        "target_miou_with_target_statistics": with_statistics,
    }


def test_rows_are_means_with_their_range() -> None:
    table = summarize([report(0, 31.0), report(1, 28.0)])
    assert "| SFC: adapted with the flow loss | 29.5 (28.0 to 31.0) | 29.5 (28.0 to 31.0) |" in table
    assert f"| {ROWS['target_only']} | 30.0 (30.0 to 30.0) |  |" in table
    assert "- as trained: +1.00, -2.00" in table


@pytest.mark.parametrize("second", [report(0, 30.0), report(1, 30.0, commit="def")])
def test_reports_that_cannot_be_compared_are_refused(second: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give demos of one commit and different seeds"):
        summarize([report(0, 30.0), second])
