"""Levels as a state machine, and in a simulated overload."""

import itertools
from collections import deque
from dataclasses import replace

import pytest

from serving.elasticity import HEADROOM, LEVELS, MIN_SAMPLES_DOWN, MIN_SAMPLES_UP, Elasticity, Objective

TARGET_MS = 100.0
OBJECTIVE = Objective(target_ms=TARGET_MS, max_key_frame_interval=0, may_skip_steps=True, may_drop_frames=True)


def feed(elasticity: Elasticity, latency_ms: float, times: int) -> list[int]:
    """The numbers of the levels that are taken meanwhile."""
    return [elasticity.number for _ in range(times) if elasticity.observe(latency_ms)]


def test_nothing_is_given_up_while_the_objective_is_held() -> None:
    elasticity = Elasticity(OBJECTIVE)
    assert feed(elasticity, TARGET_MS, 1000) == []
    assert elasticity.level == LEVELS[0]


def test_overload_takes_one_level_after_the_other_and_stays_at_the_last() -> None:
    elasticity = Elasticity(OBJECTIVE)
    assert feed(elasticity, 2 * TARGET_MS, 20 * MIN_SAMPLES_UP) == [1, 2, 3, 4, 5]
    assert elasticity.level.drops_late
    assert elasticity.level.step_every == 4  # what was given up before stays so


def test_what_was_given_up_is_taken_back_in_reverse() -> None:
    elasticity = Elasticity(OBJECTIVE)
    feed(elasticity, 2 * TARGET_MS, 20 * MIN_SAMPLES_UP)
    assert feed(elasticity, TARGET_MS / 10, 20 * MIN_SAMPLES_DOWN) == [4, 3, 2, 1, 0]


def test_latencies_between_headroom_and_target_change_nothing() -> None:
    elasticity = Elasticity(OBJECTIVE)
    assert feed(elasticity, 2 * TARGET_MS, MIN_SAMPLES_UP) == [1]
    assert feed(elasticity, (HEADROOM + 1) / 2 * TARGET_MS, 1000) == []


@pytest.mark.parametrize(
    ("may_skip_steps", "may_drop_frames", "levels"),
    [(False, False, [1, 2]), (True, False, [1, 2, 3, 4]), (False, True, [1, 2, 5])],
)
def test_only_what_is_allowed_is_given_up(may_skip_steps: bool, may_drop_frames: bool, levels: list[int]) -> None:
    elasticity = Elasticity(replace(OBJECTIVE, may_skip_steps=may_skip_steps, may_drop_frames=may_drop_frames))
    assert feed(elasticity, 2 * TARGET_MS, 20 * MIN_SAMPLES_UP) == levels
    assert may_skip_steps or elasticity.level.step_every == 1


def test_one_slow_frame_is_no_overload() -> None:
    elasticity = Elasticity(OBJECTIVE)
    feed(elasticity, TARGET_MS / 2, 100)
    assert feed(elasticity, 2 * TARGET_MS, 1) == []


def test_a_load_between_two_levels_makes_them_alternate_ever_more_rarely() -> None:
    """Level 0 is always too slow here, level 1 always fast."""
    elasticity = Elasticity(OBJECTIVE)
    changes = [
        number
        for number in range(20_000)
        if elasticity.observe(2 * TARGET_MS if elasticity.number == 0 else TARGET_MS / 10)
    ]
    pauses = [later - earlier for earlier, later in itertools.pairwise(changes[1::2])]
    assert pauses[0] >= MIN_SAMPLES_DOWN
    assert all(later >= 1.5 * earlier for earlier, later in itertools.pairwise(pauses[:5]))
    assert len(changes) < 60  # of 20,000 frames


def test_a_simulated_overload_is_held_and_recovered_from() -> None:
    """A camera of 100 frames/s; a step costs 8 ms and a key frame 30 ms, on a device that is shared for a while.

    Frames queue up where the device is busy: without elasticity the queue would grow as long as the load lasts.
    """
    elasticity = Elasticity(OBJECTIVE)
    interval, period_ms = 5, 10.0
    free_at, since_key, held = 0.0, 0, 0
    recent: deque[float] = deque(maxlen=100)
    levels = []
    for frame in range(9000):
        now = frame * period_ms
        slowness = 1.3 if 2000 <= frame < 5000 else 0.5  # of the device
        level = elasticity.level
        if held + 1 < level.step_every:
            held += 1
            continue
        held = 0
        started = max(now, free_at)
        if level.drops_late and started - now > TARGET_MS:
            elasticity.observe(started - now)
            continue
        since_key += 1
        cost = 8 * slowness
        if since_key >= interval * level.stretch:
            since_key, cost = 0, cost + 30 * slowness
        free_at = started + cost
        recent.append(free_at - now)
        elasticity.observe(recent[-1])
        levels.append(elasticity.number)
        if frame == 4999:
            assert sorted(recent)[len(recent) // 2] <= TARGET_MS
    assert max(levels[:1500]) == 0
    assert max(levels) >= 2
    assert elasticity.number == 0
