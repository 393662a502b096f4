from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bundle import SIGNALS, Baseline, DomainBaseline, Spread
from serving.key_frames import Adaptive, FixedInterval, Manual
from serving.results import StepResult
from tests.serving.conftest import step_result


def result(age: int) -> StepResult:
    return step_result(key_frame_age=age)


def domain(disagreement: float) -> DomainBaseline:
    means = dict.fromkeys(SIGNALS, 0.5) | {"disagreement": disagreement, "warp_residual": 0.02}
    return DomainBaseline(
        frames=10, clip_frames=11, signals={name: Spread(mean=mean, std=0.1) for name, mean in means.items()}
    )


BASELINE = Baseline(key_frame_interval=5, measured_on="by hand", domains={"target": domain(0.1)})


@pytest.mark.parametrize(
    ("interval", "due"),
    [
        (1, [False, True, True, True, True]),
        (2, [False, False, True, True, True]),
        (4, [False, False, False, False, True]),
    ],
)
def test_a_refresh_is_due_once_the_key_frame_is_as_old_as_the_interval(interval: int, due: list[bool]) -> None:
    assert [FixedInterval(interval).is_due(result(age)) for age in range(5)] == due


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_below_one_is_refused(interval: int) -> None:
    with pytest.raises(ValueError, match=f"the key-frame interval is {interval}: it must be 1 or more frames"):
        FixedInterval(interval)


@pytest.mark.parametrize(("age", "refreshes_key", "is_key"), [(0, False, True), (3, True, True), (3, False, False)])
def test_a_key_frame_is_one_that_leaves_its_own_key_state(age: int, refreshes_key: bool, is_key: bool) -> None:
    answered = StepResult(**(vars(result(age)) | {"refreshes_key": refreshes_key}))
    assert answered.is_key == is_key


# Manual and adaptive


def adaptive(settings: Adaptive, disagreements: list[float], baseline: Baseline | None = BASELINE) -> list[int]:
    """Frames that become key frames, given the disagreement of each frame after the first; the flow explains all."""
    policy, age, keys = settings.policy(baseline), 0, []
    for frame, disagreement in enumerate([0.0, *disagreements]):
        if policy.is_due(replace(result(age), disagreement=disagreement)):
            keys.append(frame)
            age = 0
        age += 1
    return keys


def test_by_hand_no_frame_is_due() -> None:
    assert not any(Manual().is_due(result(age)) for age in (0, 1, 10, 10_000))
    assert not Manual().is_scene_cut(np.zeros((8, 8, 3), np.uint8))


def test_usual_video_has_a_key_frame_as_often_as_staleness_says() -> None:
    """Half the worth of a frame is its disagreement, which is usual; the other half its residual, which is none."""
    assert adaptive(Adaptive(staleness=2.0), [0.1] * 12) == [4, 8, 12]
    assert adaptive(Adaptive(staleness=2.0), [0.2] * 12) == [2, 4, 6, 8, 10, 12]
    assert adaptive(Adaptive(staleness=2.0), [0.05] * 12) == [8]


def test_the_flow_that_does_not_explain_the_frame_makes_stale_too() -> None:
    policy = Adaptive(min_interval=1, staleness=2.0).policy(BASELINE)
    assert [policy.is_due(replace(result(age), warp_residual=0.04)) for age in (1, 2, 3)] == [False, True, True]
    assert [policy.is_due(replace(result(age), warp_residual=0.04)) for age in (1, 2)] == [False, True]


def test_a_scene_at_rest_is_refreshed_once_its_key_frame_is_as_old_as_allowed() -> None:
    assert adaptive(Adaptive(max_interval=7), [0.0] * 20) == [7, 14]


def test_however_stale_a_key_frame_keeps_its_least_interval() -> None:
    assert adaptive(Adaptive(min_interval=3), [1.0] * 10) == [3, 6, 9]


def test_a_frame_that_is_its_own_key_frame_starts_anew() -> None:
    policy = Adaptive(staleness=2.0).policy(BASELINE)
    ages = (1, 2, 3, 0, 1, 2, 3, 4)
    due = [policy.is_due(replace(result(age), disagreement=0.1 if age else 1.0)) for age in ages]
    assert due == [False] * 7 + [True]


def test_without_a_baseline_usual_is_what_the_stream_has_shown() -> None:
    assert adaptive(Adaptive(staleness=2.0), [0.3] * 12, None) == [4, 8, 12]
    assert adaptive(Adaptive(staleness=2.0), [0.3] * 4 + [0.9] * 4, None)[:2] == [4, 7]  # 0.9 is 2.5, 2.1 and 1.9 usual


def test_the_target_is_what_is_usual_and_the_source_where_there_is_no_target() -> None:
    source = Baseline(key_frame_interval=5, measured_on="", domains={"source": domain(0.4)})
    both = Baseline(key_frame_interval=5, measured_on="", domains={"source": domain(0.4), "target": domain(0.1)})
    assert adaptive(Adaptive(staleness=2.0), [0.4] * 8, source) == [4, 8]
    assert adaptive(Adaptive(staleness=2.0), [0.4] * 8, both) == [2, 4, 6, 8]


def test_a_network_without_a_state_is_not_refreshed_for_what_it_never_has() -> None:
    zero = Baseline(key_frame_interval=5, measured_on="", domains={"target": domain(0.0)})
    assert adaptive(Adaptive(max_interval=30), [0.0] * 40, zero) == [30]


@given(
    signals=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60),
    min_interval=st.integers(1, 6),
    longer_by=st.integers(0, 12),
    staleness=st.floats(0.01, 20),
    stretch=st.floats(1, 4),
    has_baseline=st.booleans(),
)
def test_the_bounds_hold_whatever_the_signals_are(
    signals: list[tuple[float, float]],
    min_interval: int,
    longer_by: int,
    staleness: float,
    stretch: float,
    has_baseline: bool,
) -> None:
    settings = Adaptive(min_interval, min_interval + longer_by, staleness)
    policy, age = settings.policy(BASELINE if has_baseline else None), 0
    for disagreement, residual in signals:
        answered = replace(result(age), disagreement=disagreement, warp_residual=residual)
        is_due = policy.is_due(answered, stretch)
        assert not is_due or age >= min_interval * stretch
        assert is_due or age < (min_interval + longer_by) * stretch
        age = 1 if is_due else age + 1


def test_a_stretched_policy_takes_as_many_times_as_long() -> None:
    assert [FixedInterval(3).is_due(result(age), 2.0) for age in range(8)] == [False] * 6 + [True] * 2
    policy = Adaptive(staleness=2.0).policy(BASELINE)
    due = [policy.is_due(replace(result(age), disagreement=0.1), 2.0) for age in range(1, 9)]
    assert due == [False] * 7 + [True]


def test_an_adaptive_policy_looks_for_scene_cuts_and_a_fixed_one_does_not() -> None:
    dark, bright = (np.full((96, 192, 3), value, np.uint8) for value in (20, 220))
    policy = Adaptive().policy(BASELINE)
    assert [policy.is_scene_cut(frame) for frame in (dark, dark, bright, bright)] == [False, False, True, False]
    assert not any(FixedInterval(5).is_scene_cut(frame) for frame in (dark, bright))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_interval": 0}, "the least key-frame interval is 0: it must be 1 or more frames"),
        ({"min_interval": 9, "max_interval": 8}, "the largest key-frame interval is 8: it must be at least the least"),
        ({"staleness": 0.0}, "the staleness is 0.0: it must be more than 0 and finite"),
        ({"staleness": float("nan")}, "the staleness is nan"),
        ({"staleness": float("inf")}, "the staleness is inf"),
    ],
)
def test_bounds_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptive(**fields)


def test_streams_that_start_together_refresh_one_after_the_other_and_no_later_than_the_interval() -> None:
    refreshes = []
    for place in range(5):
        policy, age, refreshed = FixedInterval(4).staggered(place), 0, []
        for frame in range(13):
            is_due = policy.is_due(result(age))
            refreshed += [frame] if is_due else []
            age = 1 if is_due else age + 1
        refreshes.append(refreshed)
    assert refreshes == [[4, 8, 12], [3, 7, 11], [2, 6, 10], [1, 5, 9], [4, 8, 12]]
