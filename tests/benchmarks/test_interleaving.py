import numpy as np
import pytest

from benchmarks.interleaving import Run, Times, amortized, interleaved, median_ratio


def test_percentiles_are_of_all_runs_and_rounds_have_their_own_medians() -> None:
    rounds = [[Run(i / 1000, i / 2000) for i in range(51)], [Run(i / 1000, i / 2000) for i in range(51, 101)]]
    times = Times(rounds)
    assert times.num_runs() == 101
    assert times.percentiles_ms("wall") == {"p50": 50, "p90": 90, "p99": 99}
    assert times.percentiles_ms("cpu") == {"p50": 25, "p90": 45, "p99": 49.5}
    np.testing.assert_allclose(times.by_round_ms("wall"), [25, 75.5])


def test_a_key_frame_is_paid_for_by_the_frames_up_to_the_next() -> None:
    key, step = np.array([100.0, 200.0]), np.array([10.0, 20.0])
    np.testing.assert_allclose(amortized(key, step, 1), [110, 220])
    np.testing.assert_allclose(amortized(key, step, 5), [30, 60])


def test_a_ratio_is_that_of_neighbours_in_time() -> None:
    """The machine was three times slower in the second round and busy with something else in one run of the third."""
    assert median_ratio(np.array([2.0, 6.0, 9.0]), np.array([1.0, 3.0, 1.0])) == 2


@pytest.mark.parametrize("rounds", [1, 4])
def test_all_have_their_turn_in_each_round(rounds: int) -> None:
    turns: list[str] = []
    times = interleaved(
        {name: lambda name=name: turns.append(name) for name in "ab"},  # type: ignore[misc]  # mypy infers no lambda here
        rounds,
        seconds=1e-9,
    )
    assert turns == ["a", "a", "b", "b", *["a", "b", "b", "a", "a", "b", "b", "a"][: 2 * rounds]]
    assert all(len(each.rounds) == rounds and each.num_runs() == rounds for each in times.values())


def test_what_is_quick_runs_until_its_time_is_over() -> None:
    times = interleaved({"quick": lambda: None}, 2, seconds=0.02)
    assert times["quick"].num_runs() > 20
