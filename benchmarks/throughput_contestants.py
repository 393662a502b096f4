"""Processes that the throughput benchmark starts: our server, and whoever takes turns."""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.throughput_turns import Turn, as_line

logger = logging.getLogger(__name__)
ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0  # that a turn may take longer than it should
SHUTDOWN_S = 20.0  # that a process may take to end
LOG_LINES = 3  # of a process that broke, in the message


class ContestantError(RuntimeError):
    """A process that did not start or broke. The message is one sentence."""


class LineProcess:
    """A process that answers lines of JSON on stdout. It leads a group of its own, which `close` ends as a whole."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts it; what it writes to stderr goes to `log`."""
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, cwd=ROOT,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
        self._unread = b""

    def read(self, timeout_s: float) -> dict[str, Any]:
        """The next line of JSON; others are passed over, for libraries write to stdout too.

        Raises:
            ContestantError: if none comes in time.
        """
        assert self.process.stdout is not None
        ends_at = time.monotonic() + timeout_s
        while True:
            line, found, self._unread = self._unread.partition(b"\n")
            if found:
                with contextlib.suppress(ValueError):
                    if isinstance(document := json.loads(line), dict):
                        return document
                continue
            self._unread = line
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not select.select([self.process.stdout], [], [], left_s)[0]:
                raise ContestantError(f"{self.name} said nothing for {timeout_s:g} s{self.last_words()}")
            if not (more := os.read(self.process.stdout.fileno(), 1 << 16)):
                raise ContestantError(f"{self.name} ended{self.last_words()}")
            self._unread += more

    def take(self, turn: Turn) -> dict[str, Any]:
        """Takes a turn and returns what came of it.

        Raises:
            ContestantError: if the process breaks.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(as_line(turn).encode())
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise ContestantError(f"{self.name} ended{self.last_words()}") from error
        return self.read(turn.warm_up_s + turn.seconds + PATIENCE_S)

    def close(self) -> None:
        """Asks it to end, then ends its group."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(SHUTDOWN_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it started and left behind, and itself
        self.process.wait()
        self.process.stdout.close()

    def last_words(self) -> str:
        """The end of its log, to go on with in a message."""
        lines = [line.strip() for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return ": " + " / ".join(lines[-LOG_LINES:])[-500:] if lines else ""


@contextlib.contextmanager
def started(process: LineProcess, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Waits until a process says that it is ready, and ends it afterwards. Gives what it said.

    Raises:
        ContestantError: if it does not come up.
    """
    try:
        yield process.read(timeout_s)
    finally:
        process.close()


def flowseg_server(bundle: Path, log: Path, *arguments: str) -> LineProcess:
    """Our server on free ports."""
    command = [sys.executable, "-m", "serving.server", str(bundle), "--port", "0", "--http-port", "0", "--json"]
    return LineProcess("the server", [*command, *arguments], log)


def python_module(name: str, log: Path, *arguments: str) -> LineProcess:
    """A module of this package as a process."""
    return LineProcess(name, [sys.executable, "-m", f"benchmarks.{name}", *arguments], log)


@dataclass(frozen=True)
class ProcessorTime:
    """Of a process since it began, in milliseconds."""

    main_thread: float  # in our server: the event loop
    all_threads: float

    def __sub__(self, earlier: "ProcessorTime") -> "ProcessorTime":
        """What was spent in between."""
        return ProcessorTime(self.main_thread - earlier.main_thread, self.all_threads - earlier.all_threads)


def processor_time(pid: int) -> ProcessorTime | None:
    """What the kernel counted for a process; None where it does not tell (other systems than Linux)."""
    threads: dict[int, float] = {}
    try:
        for path in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                threads[int(path.name)] = int((path / "schedstat").read_text().split()[0]) / 1e6
    except FileNotFoundError:
        return None
    return ProcessorTime(threads[pid], sum(threads.values())) if pid in threads else None
