"""A short fuzzing of everything that comes from outside, and whether fuzzing sees what it is to see."""

import contextlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reliability import TARGETS, FuzzOptions, run_fuzz
from benchmarks.reliability_fuzzing import fuzz
from benchmarks.reliability_report import markdown
from benchmarks.reliability_worker import open_board, work
from tests.benchmarks.broken_target import ABORTED, BROKEN, HUNG, HUNGRY, NUM_INPUTS, REFUSED, WRONG

NUM_SHORT = {"stream": 60, "image": 60, "manifest": 100, "damaged_graph": 60, "checkpoint": 100, "video_file": 60}
SEED = 8
JSON_READERS = ("manifest", "sidecar", "run_json", "label_map")
BYTE_READERS = ("requests", "jpeg", "png", "h264", "rle", "delta", "answers", "graph", "official", "list", "frame")
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
).map(lambda document: json.dumps(document).encode())


@pytest.mark.parametrize("name", TARGETS)
def test_malformed_inputs_are_refused_as_documented(name: str, tmp_path: Path) -> None:
    target, board, count = TARGETS[name], open_board(), NUM_SHORT.get(name, 200)
    work(target, SEED, range(count), math.inf, board, tmp_path, has_limits=False)
    assert (tmp_path / "findings").read_text() == ""
    assert board.refused.value + board.accepted.value == count
    assert board.refused.value > count / 10


@pytest.mark.parametrize("name", [*JSON_READERS, *BYTE_READERS])
def test_what_hypothesis_thinks_of_is_refused_as_documented(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    subject = target.open(tmp_path)

    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(DOCUMENTS | st.binary(max_size=64) if name in JSON_READERS else st.binary(max_size=256))
    def feed(content: bytes) -> None:
        with contextlib.suppress(*target.refusals):
            subject.feed(content)

    feed()


def test_an_input_can_be_made_again_from_its_number() -> None:
    for target in (TARGETS["png"], TARGETS["run_json"], TARGETS["requests"]):
        first, second = target.seeds(), target.seeds()
        inputs = [target.make_input(first, SEED, number) for number in range(20)]
        assert inputs == [target.make_input(second, SEED, number) for number in range(20)]
        assert len(set(inputs)) > 15


def test_errors_crashes_hangs_and_floods_of_memory_are_told_apart_and_the_others_go_on(tmp_path: Path) -> None:
    outcome = fuzz(BROKEN, seed=0, num_inputs=NUM_INPUTS, seconds=600, hang_s=1.5, kept=tmp_path)
    assert (outcome.inputs, outcome.refused, outcome.unexpected) == (NUM_INPUTS, 1, 4)
    assert {cause["kind"]: cause["number"] for cause in outcome.causes} == {
        "error": WRONG, "crash": ABORTED, "hang": HUNG, "memory": HUNGRY,
    }  # fmt: skip
    assert {cause["signature"] for cause in outcome.causes} >= {"KeyError at broken_target.py:feed", "SIGABRT"}
    assert {path.name for path in tmp_path.iterdir()} == {
        f"broken-{number}" for number in (WRONG, ABORTED, HUNG, HUNGRY)
    }
    assert (tmp_path / f"broken-{HUNG}").read_bytes() == bytes([HUNG])
    # the flood was answered, and counts twice; the others of the four were not
    assert outcome.accepted == NUM_INPUTS - len({REFUSED, WRONG, ABORTED, HUNG})


def test_the_time_ends_a_fuzzing() -> None:
    outcome = fuzz(BROKEN, seed=0, num_inputs=NUM_INPUTS, seconds=0.0, hang_s=1.0)
    assert outcome.inputs == 0


def test_the_command_writes_what_it_found(tmp_path: Path) -> None:
    options = FuzzOptions(inputs=50, seconds=60, targets=("requests",), out=tmp_path / "out")
    report = run_fuzz(options)
    assert json.loads((options.out / "fuzz.json").read_text())["targets"] == report["targets"]
    (target,) = report["targets"]
    assert target["inputs"] == target["refused"] + target["accepted"] == 50
    assert "| requests | messages of the service, parsed | 50 |" in (options.out / "fuzz.md").read_text()
    report["targets"][0]["causes"] = [
        {"kind": "crash", "signature": "SIGSEGV", "count": 2, "number": 7, "message": "a | b"}
    ]
    assert "| requests | crash | SIGSEGV | 2 | 7 | a \\| b |" in markdown(report)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (FuzzOptions(inputs=0), "--inputs must be more than 0, not 0"),
        (FuzzOptions(hang_s=-1), "--hang-s must be more than 0, not -1"),
        (FuzzOptions(targets=("jpeg", "moon")), "there is no target 'moon': choose from requests, stream"),
    ],
)
def test_options_that_cannot_work_are_refused(options: FuzzOptions, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run_fuzz(options)
