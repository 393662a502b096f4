import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import training_step
from benchmarks.step_variants import Stage, Step, StepConfig

SMALL = StepConfig(size=(64, 64), backbone="resnet10_slim", flow_width=0.25, precision="fp64")
CPU = torch.device("cpu")


@pytest.mark.parametrize("flow_weight", [0.001, 100.0])  # in the gradients: the source rules, the flow loss rules
@pytest.mark.parametrize("stage", ["one", "two"])
def test_our_step_equals_the_official_order(stage: Stage, flow_weight: float) -> None:
    config = replace(SMALL, stage=stage)
    ours, official = Step(config, "ours", CPU), Step(config, "official", CPU)
    ours.method.flow_weight = official.method.flow_weight = flow_weight
    torch.testing.assert_close(ours.run(), official.run(), rtol=1e-9, atol=0)
    gradients = list(zip(ours.gradients(), official.gradients(), strict=True))
    largest = max(float(expected.abs().max()) for _, expected in gradients)
    assert largest > 0
    for actual, expected in gradients:
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9 * largest)
    for actual, expected in zip(ours.segmenter.buffers(), official.segmenter.buffers(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_only_the_official_order_computes_gradients_of_the_sfm() -> None:
    for variant, expected in (("ours", False), ("official", True)):
        step = Step(SMALL, "ours" if variant == "ours" else "official", CPU)
        step.run()
        assert all((p.grad is not None) == expected for p in step.networks["sfm"].parameters())


def test_the_command_writes_its_figures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "results" / "step"
    arguments = (
        f"--stage two --size 64x64 --backbone resnet10_slim --flow-width 0.25 --steps 1 --device cpu --json --out {out}"
    )
    monkeypatch.setattr(sys, "argv", ["training_step", *arguments.split()])
    training_step.main()
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    assert "times as fast" in out.with_suffix(".md").read_text(encoding="utf-8")
    assert "wrote step.json" in out.with_suffix(".log").read_text(encoding="utf-8")
    (stage,) = report["stages"]
    assert stage["relative_loss_difference"] < 1e-5
    assert all(figures["memory_mib"]["growth"] > 0 for figures in stage["variants"].values())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--size", "64", "does not read HEIGHTxWIDTH"), ("--steps", "0", "at least 1"), ("--classes", "16", "2 to 15")],
)
def test_a_mistake_is_one_sentence(
    option: str,
    value: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["training_step", option, value, "--out", str(tmp_path / "step")])
    with pytest.raises(SystemExit, match="2"):
        training_step.main()
    assert message in capsys.readouterr().err
