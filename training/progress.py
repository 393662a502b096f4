"""A progress bar for what lasts."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
PATIENCE_S = 2.0  # what takes longer shows a progress bar


def with_progress(items: Sequence[Item], description: str) -> Iterator[Item]:
    """The items; a bar on stderr tells how many are done, once they have taken two seconds."""
    begin = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=True) as progress:
        task = progress.add_task(description, total=len(items))
        for num_done, item in enumerate(items, 1):
            yield item
            if progress.disable and time.monotonic() - begin > PATIENCE_S:
                progress.disable = False
                progress.start()
            progress.update(task, completed=num_done)
