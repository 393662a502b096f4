"""The server's log: lines for people or, if asked for, JSON for machines. Each line about a stream names it.

What runs in the task of a stream's call, or in a task made there, knows its stream from a context variable; threads
that work for many streams say which one they mean: `logger.warning("...", extra=about(stream_id))`.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, NamedTuple

LogFormat = Literal["text", "json"]


class Subject(NamedTuple):
    """What a line is about."""

    stream: str = ""  # name of the stream; empty: about none
    trace: str = ""  # id of its trace, if it has one


_subject: ContextVar[Subject] = ContextVar("subject", default=Subject())  # noqa: B039  # it cannot be changed


def enter_stream(stream: str, trace: str = "") -> None:
    """All that this task and those made in it log is about a stream from now on."""
    _subject.set(Subject(stream, trace))


def current_subject() -> Subject:
    """What this task logs about."""
    return _subject.get()


def about(stream: str, trace: str = "") -> dict[str, Subject]:
    """For `extra`: what one line is about."""
    return {"subject": Subject(stream, trace)}


def _subject_of(record: logging.LogRecord) -> Subject:
    subject = getattr(record, "subject", None)
    return subject if isinstance(subject, Subject) else _subject.get()


class TextFormatter(logging.Formatter):
    """For people."""

    def __init__(self) -> None:
        """Time, level, message."""
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line, which begins with the stream if its message does not name it."""
        stream = _subject_of(record).stream
        if stream and stream not in record.message.split():
            record.message = f"{stream}: {record.message}"
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message; stream, trace and exception where there are some."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in _subject_of(record)._asdict().items() if value}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logs(log_format: LogFormat) -> None:
    """Logs to stderr. For `main`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
