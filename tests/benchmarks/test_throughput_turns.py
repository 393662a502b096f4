import asyncio
import json
import sys
import time
from collections import deque
from pathlib import Path

import pytest

from benchmarks.throughput_contestants import ContestantError, LineProcess, processor_time, started
from benchmarks.throughput_turns import (
    PNG_SIGNATURE,
    Answer,
    Tally,
    Turn,
    as_line,
    back_and_forth,
    run_streams,
)

TURN = Turn(streams=2, in_flight=3, seconds=0.2, warm_up_s=0.05, key_frames="5")
HANDS_OUT_TURNS = """
import json, sys
print("a library says hello")
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    print(json.dumps({"echo": json.loads(line)}), flush=True)
"""


class LateStream:
    """Answers each frame some time after it came, in order."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.due: deque[float] = deque()
        self.most_in_flight = 0
        self.sent: list[bytes] = []
        self.is_closed = False

    async def send(self, frame: bytes, number: int) -> None:
        assert number == len(self.sent)
        self.sent.append(frame)
        self.due.append(time.perf_counter() + self.delay_s)
        self.most_in_flight = max(self.most_in_flight, len(self.due))

    async def receive(self) -> Answer:
        await asyncio.sleep(max(0.0, self.due[0] - time.perf_counter()))
        self.due.popleft()
        return Answer(PNG_SIGNATURE, {"step": 2.0})

    async def close(self) -> None:
        assert not self.due
        self.is_closed = True


def test_a_video_is_played_forth_and_back() -> None:
    frames = [b"a", b"b", b"c"]
    assert b"".join(back_and_forth(frames, number) for number in range(9)) == b"abcbabcba"
    assert back_and_forth([b"a"], 5) == b"a"


def test_streams_keep_as_many_frames_in_flight_as_the_turn_says_and_end_with_all_answered() -> None:
    streams = [LateStream(0.001), LateStream(0.03)]
    tally = Tally(TURN)
    asyncio.run(run_streams(streams, [b"0", *(bytes([i]) for i in range(1, 20))], tally))
    assert all(stream.is_closed and stream.most_in_flight == TURN.in_flight for stream in streams)
    assert streams[0].sent[0] != streams[1].sent[0]  # they begin at different places
    report = tally.report()
    assert report["frames"] == sum(len(stream.sent) for stream in streams)
    assert 0 < len(report["latencies_ms"]) < report["frames"]  # not those before and after the window
    assert report["frames_per_s"] == pytest.approx(len(report["latencies_ms"]) / TURN.seconds)
    assert report["parts_ms"] == {"step": 2.0}
    assert max(report["latencies_ms"]) >= 30


def test_answers_count_once_every_stream_has_had_one_and_the_warm_up_is_over() -> None:
    tally = Tally(Turn(streams=2, in_flight=1, seconds=1e6, warm_up_s=0.0, key_frames="1"))
    answer = Answer(PNG_SIGNATURE)
    now = time.perf_counter()
    tally.count(0, now, answer)
    tally.count(1, now, answer)
    assert not tally.report()["latencies_ms"]
    tally.count(0, now, answer)  # of the other stream: it opens the window
    tally.count(2, now - 0.5, answer)
    assert tally.report()["frames"] == 4
    assert len(tally.report()["latencies_ms"]) == 2
    assert tally.report()["latencies_ms"][-1] >= 500


def test_an_answer_that_is_no_label_map_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no PNG but b'error'"):
        Tally(TURN).count(0, time.perf_counter(), Answer(b"error"))


def test_a_process_is_told_turns_and_what_libraries_print_is_passed_over(tmp_path: Path) -> None:
    process = LineProcess("the process", [sys.executable, "-c", HANDS_OUT_TURNS], tmp_path / "log")
    with started(process, 30) as ready:
        assert ready == {"ready": True}
        assert process.take(TURN)["echo"] == json.loads(as_line(TURN))
    assert process.process.poll() is not None


def test_a_process_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; sys.exit('the graph is gone')"
    process = LineProcess("the process", [sys.executable, "-c", code], tmp_path / "log")
    with pytest.raises(ContestantError, match="the process ended: the graph is gone"), started(process, 30):
        pass


def test_a_process_that_says_nothing_is_ended(tmp_path: Path) -> None:
    process = LineProcess("the process", [sys.executable, "-c", "input()"], tmp_path / "log")
    with pytest.raises(ContestantError, match=r"said nothing for 0\.1 s"), started(process, 0.1):
        pass
    assert process.process.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel tells no processor time of threads")
def test_processor_time_grows_with_work_and_ends_with_the_process(tmp_path: Path) -> None:
    code = "print({}, flush=True); input(); sum(range(3_000_000)); print({}, flush=True); input()"
    process = LineProcess("the process", [sys.executable, "-c", code], tmp_path / "log")
    with started(process, 30):
        before = processor_time(process.process.pid)
        process.take(TURN)
        after = processor_time(process.process.pid)
        assert before is not None
        assert after is not None
        spent = after - before
        assert spent.all_threads >= spent.main_thread > 1
    assert processor_time(process.process.pid) is None
