"""Rows side by side, each in a process of its own.

The first row in line goes to the process that is free, unless it needs a stage that another is about to train: then
the next row goes first. What a process finds out comes back to the caller, who alone writes results.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing.process import parent_process
from typing import NamedTuple

import torch

from benchmarks.paper_results import Results
from benchmarks.paper_rows import Cell, attempted
from benchmarks.paper_stages import Stage, Workshop
from training.run_directory import RunError


class Finding(NamedTuple):
    """What became of a cell."""

    cell: Cell
    entry: Results | None  # of the results; None for what is only trained
    stages: list[Results]  # of the results: all that the process knows of
    failures: dict[Stage, str]  # why a stage could not be trained; likewise


class Task(NamedTuple):
    """A cell and what the results have of it."""

    cell: Cell
    known: Results | None


def found_side_by_side(workshop: Workshop, tasks: Sequence[Task], num_processes: int) -> Iterator[Finding]:
    """Trains and evaluates, and yields what became of each cell as soon as it is known.

    Raises:
        RunError: if a process was killed, as a system does that has no more memory.
    """
    queue = _Queue(workshop, list(tasks))
    context = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    empty = replace(workshop, results={"stages": []}, runs={}, failures={}, recipes={}, orders={})
    num_threads = max(1, torch.get_num_threads() // num_processes)
    with ProcessPoolExecutor(num_processes, context, _begin, (empty, num_threads)) as pool:
        while queue.waiting or queue.at_work:
            while len(queue.at_work) < num_processes and (task := queue.take()):
                future = pool.submit(_attempt, task, workshop.results["stages"], workshop.failures)
                queue.at_work[future] = task
            done, _ = wait(queue.at_work, return_when=FIRST_COMPLETED)
            for future in done:
                queue.put_away(future)
                yield _result(future, num_processes)


def _result(future: Future[Finding], num_processes: int) -> Finding:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RunError(
            f"one of {num_processes} processes that train rows was killed: give the same command again, which goes on"
            " from here, with fewer --jobs if memory ran out"
        ) from error


@dataclass
class _Queue:
    """What waits and what is worked at."""

    workshop: Workshop
    waiting: list[Task]
    at_work: dict[Future[Finding], Task] = field(default_factory=dict)
    finished: set[Stage] = field(default_factory=set)  # or tried in vain

    def take(self) -> Task | None:
        """The first that waits for no other; None if there is none."""
        in_training = {stage for task in self.at_work.values() for stage in self._unfinished(task)}
        for task in self.waiting:
            if in_training.isdisjoint(self._unfinished(task)):
                self.waiting.remove(task)
                return task
        return None

    def put_away(self, future: Future[Finding]) -> None:
        """Its stages can be used by others now."""
        self.finished |= self._unfinished(self.at_work.pop(future))

    def _unfinished(self, task: Task) -> set[Stage]:
        stages = self.workshop.stages_of(*task.cell.address)
        return {stage for stage in stages if stage not in self.finished and self.workshop.seconds_of(stage) is None}


_workshop: Workshop  # of this process


def _begin(workshop: Workshop, num_threads: int) -> None:
    global _workshop  # a pool's tasks can share what they have in common in no other place
    _workshop = workshop
    torch.set_num_threads(num_threads)
    os.environ["TTY_INTERACTIVE"] = "0"  # progress bars of several processes would write over each other
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Else the next call would meet this one at work on its runs."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _attempt(task: Task, stages: list[Results], failures: dict[Stage, str]) -> Finding:
    _workshop.results["stages"] = stages
    _workshop.failures |= failures
    entry = attempted(_workshop, task.cell, task.known)
    return Finding(task.cell, entry, stages, _workshop.failures)
