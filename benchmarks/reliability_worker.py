"""The process that feeds a target, so that a crash of native code, a hang or a flood of memory ends it alone.

Counts are in memory that is shared with whoever watches, and what was found is in a file: both outlive a crash.
"""

import contextlib
import json
import multiprocessing
import os
import resource
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from ctypes import c_longlong
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability_target import Subject, Target

MEMORY_BOUND_MB = 512  # by which the peak may grow over that after the first inputs
WARM_UP = 20  # inputs after which memory is looked at: caches, pools and arenas have their size then
ADDRESS_SPACE_MB = 8192  # more than at the start: an allocation above it fails, and does not take the machine down


class Board(NamedTuple):
    """What the watcher sees, in shared memory."""

    current: c_longlong  # number of the input that is being tried; -1 before the first
    refused: c_longlong
    accepted: c_longlong
    peak_growth_kb: c_longlong


@dataclass(frozen=True)
class Finding:
    """An input that was answered otherwise than promised."""

    number: int
    kind: str  # "error", "crash", "hang" or "memory"
    signature: str  # alike for findings of one cause: type of the error, and where it was raised
    message: str

    def line(self) -> str:
        """For the file."""
        return json.dumps(self.__dict__) + "\n"


def work(
    target: Target, seed: int, numbers: range, ends_at: float, board: Board, folder: Path, *, has_limits: bool = True
) -> None:
    """Tries the inputs of some numbers until they or the time (of time.monotonic) are over, or memory has grown."""
    if has_limits:
        os.setsid()  # the watcher ends all that a target starts
        _be_quiet(folder / "stderr")
    seeds = target.seeds()
    subject = target.open(folder)
    if has_limits:
        _bound_address_space()
    # by lines: a crash leaves those before it
    with contextlib.closing(subject), (folder / "findings").open("a", encoding="utf-8", buffering=1) as findings:
        _feed(target, subject, seeds, seed, numbers, ends_at, board, lambda each: findings.write(each.line()))


def _feed(
    target: Target,
    subject: Subject,
    seeds: Sequence[bytes],
    seed: int,
    numbers: range,
    ends_at: float,
    board: Board,
    report: Callable[[Finding], object],
) -> None:
    bound_kb = None
    for number in numbers:
        if time.monotonic() > ends_at:
            return
        board.current.value = number
        content = target.make_input(seeds, seed, number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries, on what they make of damage
                subject.feed(content)
        except target.refusals:
            board.refused.value += 1
        except Exception as error:  # what is looked for
            report(Finding(number, "error", _signature(error), " ".join(str(error).split())[:300]))
        else:
            board.accepted.value += 1
        peak_kb = peak_memory_kb(subject.process_id)
        if number - numbers.start < WARM_UP:
            continue
        if bound_kb is None:
            first_kb = peak_kb
            bound_kb = peak_kb + MEMORY_BOUND_MB * 1024
        board.peak_growth_kb.value = max(board.peak_growth_kb.value, peak_kb - first_kb)
        if peak_kb > bound_kb:
            grown = f"grew from {first_kb // 1024} to {peak_kb // 1024} MB"
            report(Finding(number, "memory", "memory", grown))
            return  # the watcher begins anew behind it, with a process that is small


def peak_memory_kb(process_id: int | None) -> int:
    """The most memory that a process has ever had, in units of 1024 bytes; None is this process."""
    # not getrusage: it counts what the process that started this one had
    status = Path(f"/proc/{process_id or 'self'}/status").read_text(encoding="utf-8", errors="replace")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def _signature(error: Exception) -> str:
    """Type of an error, and the line of our code that it came through last."""
    frames = traceback.extract_tb(error.__traceback__)
    root = str(Path(__file__).parents[1])
    ours = [frame for frame in frames if frame.filename.startswith(root) and "/.venv/" not in frame.filename]
    place = ours[-1] if ours else frames[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.name}"


def _be_quiet(path: Path) -> None:
    """Libraries write about each damaged file: to a file, of which the end is kept when the process dies."""
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _bound_address_space() -> None:
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    with contextlib.suppress(ValueError, OSError):  # a lower bound is there already
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_MB * 1024 * 1024,) * 2)


def open_board() -> Board:
    """A board without a count."""
    context = multiprocessing.get_context("spawn")
    return Board(*(context.Value("q", value, lock=False) for value in (-1, 0, 0, 0)))
