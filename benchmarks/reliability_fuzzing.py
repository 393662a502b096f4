"""Fuzzes one target: feeds it malformed inputs in a process of its own and watches that.

An input is refused with an error that is documented, or accepted. All else is a defect: another error, a crash of the
process, no answer within the time limit, or memory beyond the bound. After a defect that ends the process, another one
goes on with the next input.
"""

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.reliability_target import Target
from benchmarks.reliability_worker import Board, Finding, open_board, work

logger = logging.getLogger(__name__)
START_S = 120.0  # that a process may take until its first input
POLL_S = 0.05
MAX_DEATHS = 50  # of processes, after which a target is given up: it is broken, and the reason is known


@dataclass
class Outcome:
    """What came of the inputs of one target."""

    name: str
    what: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    unexpected: int = 0
    seconds: float = 0.0
    peak_growth_mb: float = 0.0  # of the process that answers, over its first inputs
    causes: list[dict[str, Any]] = field(default_factory=list)  # of what was unexpected: signature, count, an example

    def add(self, finding: Finding) -> bool:
        """Counts a finding; whether it is the first of its cause."""
        self.unexpected += 1
        for cause in self.causes:
            if (cause["kind"], cause["signature"]) == (finding.kind, finding.signature):
                cause["count"] += 1
                return False
        self.causes.append(asdict(finding) | {"count": 1})
        return True


def fuzz(
    target: Target, *, seed: int, num_inputs: int, seconds: float, hang_s: float, kept: Path | None = None
) -> Outcome:
    """Feeds a target inputs 0 to `num_inputs` - 1, or as many as there is time for.

    Args:
        target: what is fuzzed.
        seed: of the inputs.
        num_inputs: at most.
        seconds: at most, for all of them.
        hang_s: seconds without an answer to one input that are a hang.
        kept: folder for the first input of each cause of a defect.
    """
    outcome = Outcome(target.name, target.what)
    began, board, next_number, deaths = time.monotonic(), open_board(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while next_number < num_inputs and time.monotonic() - began < seconds and deaths < MAX_DEATHS:
            board.current.value = next_number - 1
            fatal = _watch(target, seed, range(next_number, num_inputs), began + seconds, board, folder, hang_s)
            _collect(target, seed, folder, outcome, fatal, kept)
            if fatal is None and board.current.value < next_number:
                break  # the time was over before the first input
            deaths += fatal is not None
            next_number = board.current.value + 1
    outcome.inputs = next_number
    outcome.refused, outcome.accepted = board.refused.value, board.accepted.value
    outcome.peak_growth_mb = round(board.peak_growth_kb.value / 1024, 1)
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _watch(
    target: Target, seed: int, numbers: range, ends_at: float, board: Board, folder: Path, hang_s: float
) -> Finding | None:
    """Runs a process until it ends; what ended it, if it did not end by itself."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=work, args=(target, seed, numbers, ends_at, board, folder), daemon=False)
    process.start()
    seen, since = board.current.value, time.monotonic()
    try:
        while process.is_alive():
            process.join(POLL_S)
            if board.current.value != seen:
                seen, since = board.current.value, time.monotonic()
            patience_s = START_S if seen < numbers.start else hang_s
            if process.is_alive() and time.monotonic() - since > patience_s:
                if seen < numbers.start:
                    raise TimeoutError(f"{target.name} did not start within {START_S:g} s: {_last_words(folder)}")
                return Finding(seen, "hang", "hang", f"no answer within {hang_s:g} s")
    finally:
        _end(process)
    if process.exitcode == 0:
        return None
    if board.current.value < numbers.start:
        raise RuntimeError(f"{target.name} did not start: {_last_words(folder)}")
    status = process.exitcode or 0
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Finding(board.current.value, "crash", how, _last_words(folder))


def _end(process: BaseProcess) -> None:
    """Ends the process and all that it started."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _collect(
    target: Target, seed: int, folder: Path, outcome: Outcome, fatal: Finding | None, kept: Path | None
) -> None:
    path = folder / "findings"
    found = [Finding(**json.loads(line)) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    seeds = None
    for finding in [*found, *([] if fatal is None else [fatal])]:
        if outcome.add(finding):
            logger.warning("%s, input %d: %s: %s", target.name, finding.number, finding.signature, finding.message)
            if kept is not None:
                seeds = seeds or target.seeds()
                kept.mkdir(parents=True, exist_ok=True)
                (kept / f"{target.name}-{finding.number}").write_bytes(target.make_input(seeds, seed, finding.number))


def _last_words(folder: Path) -> str:
    path = folder / "stderr"
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    return " / ".join(line.strip() for line in lines[-3:])[-300:] or "it said nothing"
