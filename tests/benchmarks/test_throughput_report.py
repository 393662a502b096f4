from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.throughput_contestants import LineProcess, ProcessorTime
from benchmarks.throughput_measurement import BARE, BARE_PER_FRAME, OURS, Contest, Result, row, where
from benchmarks.throughput_report import gain_of_key_frames, goals, times_as_fast
from benchmarks.throughput_turns import Turn

Row = dict[str, Any]


def figures(phase: str, contestant: str, streams: int, in_flight: int, rates: list[float], p50: float = 5.0) -> Row:
    return {
        "phase": phase,
        "contestant": contestant,
        "key_frames": "5" if contestant in (OURS, BARE) else "1",
        "streams": streams,
        "in_flight": in_flight,
        "by_round": {"frames_per_s": rates, "p50_ms": [p50] * len(rates)},
    }


def test_goals_are_judged_by_ratios_in_the_same_round() -> None:
    rows = [
        figures(OURS, BARE, 1, 1, [100.0, 200.0, 100.0], p50=5.0),
        figures(OURS, OURS, 1, 1, [90.0, 90.0, 90.0], p50=6.25),
        figures(OURS, OURS, 1, 2, [96.0, 190.0, 99.0]),  # 0.96, 0.95, 0.99 of the bare loop
        figures(OURS, OURS, 16, 2, [192.0, 95.0, 99.0]),  # 2, 0.5 and 1 times one stream
        figures("ray", "ray", 1, 1, [1000.0, 1000.0, 1000.0]),  # in lockstep: not compared
        figures("ray", "ray", 1, 2, [50.0, 40.0, 50.0]),
        figures("ray", "ray", 4, 2, [25.0, 80.0, 25.0]),
        figures("ray", OURS, 1, 2, [150.0, 80.0, 100.0]),  # 3, 1 and 2 times the best of ray
        figures("ray", OURS, 4, 2, [1.0, 1.0, 1.0]),
        figures("triton", "triton", 1, 2, [40.0]),
        figures("triton", OURS, 1, 2, [100.0]),
    ]
    found = {goal["what"].partition(":")[0]: goal for goal in goals(rows)}
    one, lockstep, many, peer = found.values()
    assert (one["figure"], one["is_met"]) == (0.96, False)
    assert (lockstep["figure"], lockstep["is_met"]) == (1.25, True)
    assert (many["figure"], many["is_met"]) == (1.0, True)
    assert (peer["figure"], peer["is_met"]) == (2.0, True)
    assert "(ray)" in peer["what"]  # the best peer is the one that we are the fewest times as fast as
    assert times_as_fast(rows, "triton") == 2.5


def test_what_key_frames_gain_is_told_apart_from_what_the_server_does() -> None:
    per_frame = figures(OURS, BARE_PER_FRAME, 1, 1, [50.0, 20.0, 30.0])
    assert gain_of_key_frames([figures(OURS, BARE, 1, 1, [100.0, 30.0, 90.0]), per_frame]) == 2.0
    assert gain_of_key_frames([per_frame]) is None


def test_goals_without_their_figures_are_left_out() -> None:
    assert goals([figures(OURS, OURS, 4, 2, [1.0])]) == []
    assert [goal["is_met"] for goal in goals([figures(OURS, BARE, 1, 1, [1.0]), figures(OURS, OURS, 1, 2, [1.0])])] == [
        True
    ]


def test_where_a_frames_time_goes_adds_up_to_what_the_client_sees() -> None:
    parts = {"decode": 1.0, "queue": 2.0, "key": 0.5, "step": 4.0, "encode": 1.5, "total": 10.0}
    split = where(parts, 12.0)
    assert (split["handover"], split["wire"], split["client_sees"]) == (1.0, 2.0, 12.0)
    assert sum(split.values()) == pytest.approx(2 * 12.0)


def test_a_row_weighs_rounds_by_their_answers_and_keeps_the_spread() -> None:
    turn = Turn(streams=2, in_flight=2, seconds=1.0, warm_up_s=0.0, key_frames="5")
    contest = Contest(OURS, cast("LineProcess", SimpleNamespace()), turn, None)
    zeros = dict.fromkeys(("decode", "queue", "key", "encode"), 0.0)

    def result(latencies: list[float], step: float, cpu: float) -> Result:
        parts = {**zeros, "step": step, "total": step, "batch_size": 1.5, "key_frames": 0.2}
        report = {
            "frames_per_s": len(latencies), "latencies_ms": latencies, "parts_ms": parts, "frames": 9,
            "cpu_ms_per_frame": 0.3,
        }  # fmt: skip
        return Result(report, ProcessorTime(main_thread=cpu / 4, all_threads=cpu))

    found = row(contest, [result([4.0] * 3, 2.0, 4.0), result([8.0], 6.0, 6.0)])
    assert found["frames_per_s"] == {"median": 2.0, "lowest": 1, "highest": 3}
    assert found["latency_ms"]["p50"] == 4.0
    assert found["by_round"] == {"frames_per_s": [3, 1], "p50_ms": [4.0, 8.0]}
    assert found["where_ms"]["step"] == 3.0  # three answers of 2 ms and one of 6
    assert found["where_ms"]["wire"] == 2.0  # 5 ms on average less 3
    assert found["server_cpu_ms_per_frame"] == {"main_thread": 1.25, "all_threads": 5.0}
