"""Lets contestants take turns, round after round, and sums up what came of it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from benchmarks.throughput_contestants import ContestantError, LineProcess, ProcessorTime, processor_time
from benchmarks.throughput_turns import Turn

logger = logging.getLogger(__name__)
OURS, BARE, BARE_PER_FRAME, ECHO = "flowseg", "bare loop", "bare loop, per frame", "clients alone"
LOCKSTEP = 1  # frames in flight of a client that waits for each answer


class Contest(NamedTuple):
    """Who takes a turn of what kind."""

    contestant: str
    process: LineProcess  # that takes it
    turn: Turn
    server_pid: int | None  # process whose processor time is counted


@dataclass(frozen=True)
class Result:
    """What came of one turn."""

    report: Mapping[str, Any]  # of `Tally`
    server: ProcessorTime | None  # per frame


def take_rounds(contests: Sequence[Contest], rounds: int, phase: str) -> list[dict[str, Any]]:
    """A row of figures for each contest. All have a turn in each round, every other time in the opposite order.

    Raises:
        ContestantError: if a process breaks, or answers nothing in a turn.
    """
    results: dict[int, list[Result]] = {index: [] for index in range(len(contests))}
    for number in range(rounds):
        logger.info("%s: round %d of %d, %d turns", phase, number + 1, rounds, len(contests))
        for index in results if number % 2 == 0 else reversed(results):
            results[index].append(_take(contests[index]))
    return [{"phase": phase, **row(contest, results[index])} for index, contest in enumerate(contests)]


def _take(contest: Contest) -> Result:
    before = None if contest.server_pid is None else processor_time(contest.server_pid)
    report = contest.process.take(contest.turn)
    if not report["latencies_ms"]:
        raise ContestantError(
            f"{contest.contestant} answered nothing in {contest.turn.seconds:g} s: give longer --seconds"
        )
    after = None if contest.server_pid is None else processor_time(contest.server_pid)
    spent = None
    if before is not None and after is not None and report["frames"]:
        total = after - before
        spent = ProcessorTime(total.main_thread / report["frames"], total.all_threads / report["frames"])
    return Result(report, spent)


def row(contest: Contest, results: Sequence[Result]) -> dict[str, Any]:
    """The figures of one contest. Those "by round" pair with those of other contests of the same phase."""
    reports = [result.report for result in results]
    rates = [report["frames_per_s"] for report in reports]
    latencies = [report["latencies_ms"] for report in reports]
    pooled = [latency for each in latencies for latency in each]
    answered = [len(each) for each in latencies]
    parts = {
        name: float(np.average([report["parts_ms"].get(name, 0.0) for report in reports], weights=answered))
        for name in reports[0]["parts_ms"]
    }
    servers = [result.server for result in results if result.server is not None]
    figures: dict[str, Any] = {
        "contestant": contest.contestant,
        "streams": contest.turn.streams,
        "in_flight": contest.turn.in_flight,
        "key_frames": contest.turn.key_frames,
        "frames_per_s": {
            "median": round(float(np.median(rates)), 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
        },
        "latency_ms": {f"p{rank}": _percentile(pooled, rank) for rank in (50, 90, 99)},
        "by_round": {
            "frames_per_s": [round(rate, 2) for rate in rates], "p50_ms": [_percentile(each, 50) for each in latencies],
        },
        "client_cpu_ms_per_frame": round(float(np.median([report["cpu_ms_per_frame"] for report in reports])), 3),
    }  # fmt: skip
    if parts:
        figures["where_ms"] = where(parts, float(np.mean(pooled)))
        figures["batch_size"] = round(parts["batch_size"], 2)
        figures["key_frame_share"] = round(parts["key_frames"], 3)
    if servers:
        spent = {name: float(np.median([asdict(server)[name] for server in servers])) for name in asdict(servers[0])}
        figures["server_cpu_ms_per_frame"] = {name: round(milliseconds, 3) for name, milliseconds in spent.items()}
    return figures


def where(parts: Mapping[str, float], latency_ms: float) -> dict[str, float]:
    """Where a frame's time goes on average, in milliseconds; the parts add up to `client_sees`.

    `handover` is the server's total less what it names: between threads and tasks, and waiting for them. `wire` is what
    the client saw less the server's total: gRPC on both sides, and messages that wait to be read or written.
    """
    named = ("decode", "queue", "key", "step", "encode")
    split = {name: parts[name] for name in named}
    split |= {"handover": parts["total"] - sum(split.values()), "wire": latency_ms - parts["total"]}
    return {name: round(milliseconds, 3) for name, milliseconds in split.items()} | {
        "client_sees": round(latency_ms, 3)
    }


def _percentile(values: Sequence[float], rank: int) -> float:
    return round(float(np.percentile(values, rank)), 3)
