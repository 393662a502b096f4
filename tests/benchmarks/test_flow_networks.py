import json
import sys

import pytest
import torch

from benchmarks import flow_networks
from benchmarks.flow_networks import Options, giga_multiplications
from training.models.raft import RaftConfig


def test_the_arithmetic_of_raft_is_that_counted_by_hand() -> None:
    """That of two refinements."""
    size, pixels = (64, 128), 8 * 16
    with torch.device("meta"):
        shorter, longer = (RaftConfig(iterations).build() for iterations in (3, 5))
    # Per pixel at 1/8 and refinement: motion encoder, GRU of six convolutions of five pixels, flow head.
    encoder = 324 * 256 + 9 * 256 * 192 + 49 * 2 * 128 + 9 * 128 * 64 + 9 * 256 * 126
    refinement = encoder + 6 * 5 * 384 * 128 + 9 * 128 * 256 + 9 * 256 * 2
    difference = giga_multiplications(longer, size) - giga_multiplications(shorter, size)
    assert difference == pytest.approx(2 * refinement * pixels / 1e9)


def test_the_command_prints_its_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["flow_networks", "--size", "32x32", "--device", "cpu", *arguments])
        flow_networks.main()
        return capsys.readouterr().out

    report = json.loads(printed("--iterations", "1,2", "--runs", "1", "--json"))
    networks = report["networks"]
    assert [(entry["network"], entry["iterations"]) for entry in networks] == [
        ("flownet_s", 1), ("raft", 1), ("raft", 2),
    ]  # fmt: skip
    assert [entry["parameters"] for entry in networks] == [5_462_674, 5_257_536, 5_257_536]
    assert all(time > 0 for entry in networks for time in entry["ms"])
    assert "| raft | 3 | 5.26 |" in printed("--iterations", "3", "--runs", "0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(runs=-1), "runs is -1: choose 0 or more"),
        (Options(iterations="4,x"), "iterations '4,x' are not numbers: give such as 4,12"),
        (Options(iterations="0"), "choose at least 1"),
        (Options(size="64"), "size"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(options: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        flow_networks.measure(options)
