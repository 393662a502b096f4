"""Whatever stops a training, the same command goes on to the weights that an undisturbed one ends with."""

import contextlib
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.data.clip import Clip, LabelledClip
from training.methods.method import Networks, Update
from training.methods.supervised import Supervised
from training.run_directory import Run, load_checkpoint
from training.trainer import TrainingError

Train = Callable[..., Run]
CrashAfter = Callable[[int], contextlib.AbstractContextManager[None]]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
COMMAND = (
    sys.executable, "-m", "training.train", "demo-source-only-one", "--device", "cpu", "--steps", "60",
    "--source-batch", "2", "--checkpoint-every", "5", "--source.num-clips", "6", "--source.size", "32", "64",
    "--target.num-clips", "2", "--target.size", "32", "64", "--target.num-frames", "2", "--augment-source",
    "--validation.data.num-clips", "2", "--validation.data.size", "32", "64",
)  # fmt: skip


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(folder / "last.pt")["networks"]["segmenter"]
    return state


def figures_but_seconds(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {figure: value for figure, value in json.loads(line).items() if not figure.startswith("seconds/")}
        for line in lines
    ]


def test_a_training_that_is_killed_twice_ends_with_the_same_bits(tmp_path: Path) -> None:
    subprocess.run([*COMMAND, "--out", str(tmp_path / "whole")], cwd=ROOT, check=True, capture_output=True)
    command = [*COMMAND, "--out", str(tmp_path / "killed")]
    seen = 0
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + PATIENCE_S
            checkpoint = tmp_path / "killed" / "last.pt"
            while not checkpoint.is_file() or load_checkpoint(checkpoint)["step"] < seen + 5:
                assert time.monotonic() < deadline
                assert process.poll() is None, "finished before it could be killed"
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        seen = int(load_checkpoint(checkpoint)["step"])
        assert 5 <= seen < 60
        command = [*COMMAND, "--out", str(tmp_path / "killed"), "--resume"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []
    assert figures_but_seconds(tmp_path / "whole") == figures_but_seconds(tmp_path / "killed")


def test_figures_after_the_last_checkpoint_are_logged_once(
    train_tiny: Train, crash_after: CrashAfter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("training.trainer.LOG_EVERY", 1)
    with crash_after(3):
        train_tiny()
    train_tiny(resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/source" in line] == [1, 2, 3, 4]


def test_a_full_disk_is_one_sentence_and_leaves_the_last_checkpoint(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = train_tiny(steps=4, checkpoint_every=1, validate_every=4)
    whole = weights(first.folder)
    real_updates, steps_done = Supervised.updates, 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling_the_disk(
        method: Supervised, networks: Networks, source: LabelledClip, target: Clip
    ) -> Iterator[Update]:
        nonlocal steps_done
        steps_done += 1
        if steps_done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        yield from real_updates(method, networks, source, target)

    changes = {"steps": 4, "checkpoint_every": 1, "validate_every": 4}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Supervised, "updates", filling_the_disk)
            with pytest.raises(
                TrainingError, match=r"full cannot be written at step 3 .*: make room and go on by --resume"
            ):
                train_tiny("full", **changes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_checkpoint(tmp_path / "full" / "last.pt")["step"] == 2
    assert [path.name for path in (tmp_path / "full").glob(".*")] == []
    train_tiny("full", resume=True, **changes)
    resumed = weights(tmp_path / "full")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
