import itertools
import time
from collections.abc import Iterator

import pytest

from training import stopwatch
from training.stopwatch import Stopwatch


def slow_numbers() -> Iterator[int]:
    for number in itertools.count():
        time.sleep(0.02)
        yield number


def watched(num_iterations: int) -> Stopwatch:
    """Iterations that wait for 0.02 s and compute for 0.02 s."""
    watch = Stopwatch()
    items = watch.awaited(slow_numbers())
    for expected in range(num_iterations):
        with watch.iteration():
            assert next(items) == expected
            time.sleep(0.02)
    return watch


def test_waiting_for_data_is_part_of_an_iteration() -> None:
    report = watched(3).report()
    assert 0.02 <= report["seconds/data"] <= report["seconds/step"] - 0.02


def test_a_report_is_of_the_iterations_since_the_last_one() -> None:
    watch = watched(2)
    watch.report()
    with watch.iteration():
        pass
    assert watch.report()["seconds/data"] == 0


def test_only_long_waiting_is_complained_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watched(2).complaint() == ""  # a moment
    monkeypatch.setattr(stopwatch, "TOLERATED_S", 0.01)
    assert "of the time was spent waiting for data: raise --workers" in watched(2).complaint()
    monkeypatch.setattr(stopwatch, "TOLERATED_SHARE", 0.99)
    assert watched(2).complaint() == ""
