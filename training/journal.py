"""What a training writes down as it goes: metrics.jsonl, tensorboard/, and a bar on stderr."""

import json
import math
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training.run_directory import write_aside


class Journal:
    """The figures of one run. Nothing is touched before `open`, and `close` may always be called."""

    def __init__(self, name: str, folder: Path, steps: int) -> None:
        """Of a run of `steps` iterations whose directory is `folder`."""
        self.name, self.folder, self.steps = name, folder, steps
        self._log: TextIO | None = None

    def open(self, step: int) -> None:
        """Goes on after `step` iterations; what was written about later ones is forgotten."""
        _forget_later_figures(self.folder / "metrics.jsonl", step)
        self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)
        self._log = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._progress = _progress()
        self._progress.start()
        self._task = self._progress.add_task(self.name, total=self.steps, completed=step, figures="")

    def show(self, step: int, losses: dict[str, float]) -> None:
        """Moves the bar."""
        shown = " ".join(f"{loss} {value:.3f}" for loss, value in losses.items())
        self._progress.update(self._task, completed=step, figures=shown)

    def record(self, step: int, figures: dict[str, float]) -> None:
        """Writes figures down for good."""
        assert self._log is not None
        self._log.write(json.dumps({"step": step, **figures}) + "\n")
        self._log.flush()
        for figure, value in figures.items():
            self._board.add_scalar(figure, value, step)

    def close(self) -> None:
        """Ends the bar and closes the files."""
        if self._log is not None:
            self._progress.stop()
            self._board.close()
            self._log.close()


def _forget_later_figures(path: Path, step: int) -> None:
    """Drops what an interrupted run logged after the checkpoint that it goes on from, and lines that are damaged."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and _step(line) <= step]
    write_aside(path, lambda aside: aside.write_text("".join(kept), encoding="utf-8"))


def _step(line: str) -> float:
    """Of a line of metrics.jsonl; infinite if it cannot be read, as after a power cut."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return math.inf


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[figures]}"),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True))
