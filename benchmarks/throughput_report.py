"""What the throughput benchmark says: goals, tables and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.throughput_measurement import BARE, BARE_PER_FRAME, LOCKSTEP, OURS

GOAL_KEY_FRAMES = "5"
OF_BARE_LOOP = 0.97  # share of its frames/s that a single stream should have
ADDED_MS = 1.5  # to the bare loop's latency at p50, less than that
OVER_ONE_STREAM = 1.0  # total frames/s with the most streams, against one
OVER_BEST_PEER = 2.0  # times its frames/s
Rows = Sequence[Mapping[str, Any]]


def goals(rows: Rows) -> list[dict[str, Any]]:
    """Figures beside what they should be, as far as they were measured. Ratios are medians of those in each round."""
    return [
        {"what": what, "figure": round(figure, 3), "wanted": wanted, "is_met": is_met}
        for what, figure, wanted, is_met in _goals(rows)
    ]


def _goals(rows: Rows) -> Iterator[tuple[str, float, str, bool]]:
    ours = [row for row in rows if row["phase"] == OURS and row["key_frames"] == GOAL_KEY_FRAMES]
    served = [row for row in ours if row["contestant"] == OURS]
    lockstep = [row for row in served if row["in_flight"] == LOCKSTEP]
    pipelined = sorted((row for row in served if row["in_flight"] != LOCKSTEP), key=lambda row: row["streams"])
    bare = [row for row in ours if row["contestant"] == BARE]
    if bare and pipelined and pipelined[0]["streams"] == 1:
        share = _ratio(pipelined[0], bare[0])
        yield "one stream: frames/s of the bare loop's", share, f"at least {OF_BARE_LOOP}", share >= OF_BARE_LOOP
    if bare and lockstep:
        added = _added_ms(lockstep[0], bare[0])
        yield "one stream in lockstep: ms added at p50", added, f"under {ADDED_MS}", added < ADDED_MS
    if len(pipelined) > 1 and pipelined[0]["streams"] == 1:
        most = pipelined[-1]
        gain = _ratio(most, pipelined[0])
        what = f"{most['streams']} streams: total frames/s of one stream's"
        yield what, gain, f"at least {OVER_ONE_STREAM}", gain >= OVER_ONE_STREAM
    over = {phase: times_as_fast(rows, phase) for phase in dict.fromkeys(row["phase"] for row in rows) if phase != OURS}
    if over:
        best = min(over, key=lambda phase: over[phase])
        what = f"times as fast as the best peer ({best}), each with its best number of streams"
        yield what, over[best], f"at least {OVER_BEST_PEER}", over[best] >= OVER_BEST_PEER


def times_as_fast(rows: Rows, peer: str) -> float:
    """Our frames/s over a peer's, each with its best number of streams, at the key-frame interval of the goal."""
    of_phase = [row for row in rows if row["phase"] == peer and row["in_flight"] != LOCKSTEP]
    ours = [_rates(row) for row in of_phase if row["contestant"] == OURS and row["key_frames"] == GOAL_KEY_FRAMES]
    theirs = [_rates(row) for row in of_phase if row["contestant"] == peer]
    if not ours or not theirs:
        return float("nan")
    return float(np.median(np.max(ours, axis=0) / np.max(theirs, axis=0)))


def gain_of_key_frames(rows: Rows) -> float | None:
    """The bare loop's frames/s over those of the per-frame network in it: what key frames gain without any server."""
    of_phase = [row for row in rows if row["phase"] == OURS]
    bare = [row for row in of_phase if row["contestant"] == BARE and row["key_frames"] == GOAL_KEY_FRAMES]
    per_frame = [row for row in of_phase if row["contestant"] == BARE_PER_FRAME]
    return _ratio(bare[0], per_frame[0]) if bare and per_frame else None


def _rates(row: Mapping[str, Any]) -> Any:  # NumPy's
    return np.array(row["by_round"]["frames_per_s"])


def _ratio(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return float(np.median(_rates(row) / _rates(other)))


def _added_ms(row: Mapping[str, Any], bare: Mapping[str, Any]) -> float:
    return float(np.median(np.array(row["by_round"]["p50_ms"]) - np.array(bare["by_round"]["p50_ms"])))


def tables(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    options, computer = report["options"], report["machine"]
    lines = [
        f"{report['network']} ({options['precision']}, {report['runtime']}, {options['threads']} thread(s) a run),"
        f" frames {report['frames']['size']} as {options['encoding']}, {options['in_flight']} in flight per stream;"
        f" {computer['device']}, {computer['cores']} cores, load {computer['load_average'][0]}; commit"
        f" {report['commit']}. {options['rounds']} rounds of {options['seconds']:g} s, all contestants of a phase in"
        " turns.",
        "",
        f"mIoU (%): ours at interval {GOAL_KEY_FRAMES} {_miou(report['miou']['ours'])}, the per-frame network of the"
        f" peers ({report['per_frame_network']}) {_miou(report['miou']['per_frame'])}.",
        "",
        "## Goals",
        "",
        "| what | measured | wanted | met |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {goal['what']} | {goal['figure']:.2f} | {goal['wanted']} | {'yes' if goal['is_met'] else 'no'} |"
        for goal in report["goals"]
    ]
    if (gain := gain_of_key_frames(report["rows"])) is not None:
        lines += [
            "",
            f"In the bare loop a key frame every {GOAL_KEY_FRAMES} frames gives {gain:.2f} times the frames/s of the"
            " per-frame network: a ratio to a peer above that is the server's doing, and one below as well.",
        ]
    lines += ["", "## Frames/s and latency", "", *_rate_table(report["rows"])]
    lines += ["", "## Where a frame's time goes (mean ms)", "", *_where_table(report["rows"])]
    lines += ["", "Processor time is that of the whole server and, of it, the thread of its event loop, per frame."]
    if report["peers"]:
        lines += ["", "## Peers", "", *_peer_table(report)]
    return "\n".join(lines) + "\n"


def _miou(miou: float | str) -> str:
    return miou if isinstance(miou, str) else f"{miou:.1f}"


def _rate_table(rows: Rows) -> Iterator[str]:
    yield "| beside | who | key frames | streams | in flight | frames/s | lowest to highest | p50 ms | p99 ms |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        rate, latency = row["frames_per_s"], row["latency_ms"]
        yield (
            f"| {row['phase']} | {row['contestant']} | {_key_frames(row)} | {row['streams']} | {row['in_flight']} |"
            f" {rate['median']:.1f} | {rate['lowest']:.1f} to {rate['highest']:.1f} | {latency['p50']:.1f} |"
            f" {latency['p99']:.1f} |"
        )


def _key_frames(row: Mapping[str, Any]) -> str:
    return row["key_frames"] if row["contestant"] in (OURS, BARE) else ""


def _where_table(rows: Rows) -> Iterator[str]:
    parts = ("decode", "queue", "key", "step", "encode", "handover", "wire", "client_sees")
    titles = " | ".join(part.replace("_", " ") for part in parts)
    yield f"| key frames | streams | in flight | batch | {titles} | processor ms | event loop's | client's |"
    yield "|---|---|---|---|" + "---|" * (len(parts) + 3)
    for row in rows:
        if row["phase"] == OURS and row["contestant"] == OURS:
            cells = " | ".join(f"{row['where_ms'][part]:.2f}" for part in parts)
            spent = row.get("server_cpu_ms_per_frame", {})
            cpu = f"{spent['all_threads']:.2f} | {spent['main_thread']:.2f}" if spent else "|"
            yield (
                f"| {row['key_frames']} | {row['streams']} | {row['in_flight']} | {row['batch_size']:.1f} | {cells} |"
                f" {cpu} | {row['client_cpu_ms_per_frame']:.2f} |"
            )
        elif row["phase"] == OURS and row["contestant"] in (BARE, BARE_PER_FRAME):
            cells = " | " * (len(parts) - 1)
            spent = row.get("server_cpu_ms_per_frame", {})
            cpu = f"{spent['all_threads']:.2f}" if spent else ""
            what = f"{row['contestant']} {_key_frames(row)}".strip()
            yield f"| {what} | 1 | | | {cells} {row['latency_ms']['p50']:.2f} (p50) | {cpu} | | |"


def _peer_table(report: Mapping[str, Any]) -> Iterator[str]:
    yield "| peer | our frames/s of its, at the best number of streams each | labels equal to ours (%) |"
    yield "|---|---|---|"
    for name, peer in report["peers"].items():
        if "skipped" in peer:
            yield f"| {peer['title']} | skipped: {peer['skipped']} | |"
        else:
            times = times_as_fast(report["rows"], name)
            yield f"| {peer['title']} | {times:.2f} | {100 * peer['label_agreement']:.2f} |"
