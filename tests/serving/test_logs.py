import contextvars
import json
import logging
from pathlib import Path

import grpc

from serving.logs import JsonFormatter, TextFormatter, about, enter_stream
from tests.serving.conftest import STEP_POISON, start_server, wait_until
from tests.serving.conversations import configuration, converse, in_asyncio, requests


def record(message: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "serving.x", "levelname": "INFO", "msg": message, "created": 0.25} | fields)


def lines_of(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def in_stream(formatter: logging.Formatter, line: logging.LogRecord) -> str:
    """As it is written in the task of stream-1."""

    def write() -> str:
        enter_stream("stream-1", "abc")
        return formatter.format(line)

    return contextvars.copy_context().run(write)


def test_a_line_of_json_has_the_time_the_level_and_what_it_is_about() -> None:
    plain = {"time": "1970-01-01T00:00:00.250+00:00", "level": "INFO", "logger": "serving.x", "message": "hello\nyou"}
    assert json.loads(JsonFormatter().format(record("hello\nyou"))) == plain
    assert json.loads(in_stream(JsonFormatter(), record("hello\nyou"))) == plain | {
        "stream": "stream-1",
        "trace": "abc",
    }
    assert "\n" not in JsonFormatter().format(record("hello\nyou"))


def test_a_line_for_people_names_the_stream_once() -> None:
    assert in_stream(TextFormatter(), record("a frame failed")).endswith(" INFO stream-1: a frame failed")
    assert in_stream(TextFormatter(), record("stream-1 ended: OK")).endswith(" INFO stream-1 ended: OK")
    assert in_stream(TextFormatter(), record("not stream-12")).endswith(" INFO stream-1: not stream-12")
    assert TextFormatter().format(record("ready")).endswith(" INFO ready")


def test_a_thread_that_works_for_many_streams_says_which_one_it_means() -> None:
    line = record("a frame failed", **about("stream-2"))
    assert json.loads(in_stream(JsonFormatter(), line))["stream"] == "stream-2"


def test_an_exception_stays_in_its_line() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError as error:
        line = JsonFormatter().format(record("failed", exc_info=(ValueError, error, error.__traceback__)))
    assert "Traceback" in json.loads(line)["exception"]
    assert "\n" not in line


@in_asyncio
async def test_the_server_writes_json_with_the_stream_in_every_line_about_one(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--log-format", "json") as server:
        conversation = await converse(server.address, configuration(), *requests(10, STEP_POISON))
        assert (conversation.code, len(conversation.errors)) == (grpc.StatusCode.OK, 1)
        wait_until(lambda: "stream-1 ended" in server.log.read_text())
    lines = lines_of(server.log)
    assert {line["level"] for line in lines} == {"INFO", "WARNING"}
    of_stream = [line["message"].partition(" by ")[0] for line in lines if line.get("stream") == "stream-1"]
    assert of_stream[0] == "stream-1 of toy@1 opened"
    assert of_stream[1].startswith("a frame failed: ")  # by the engine's thread
    assert of_stream[2] == "stream-1 ended: OK"
    assert not [line for line in lines if "stream" not in line and "stream-1" in line["message"]]
