import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.flow_loss import Options, main, run
from benchmarks.flow_loss_report import Line, report
from benchmarks.flow_loss_variants import TITLES, VARIANTS, faster_recipes, systems_of, varied_recipes
from benchmarks.paper_scales import SCALES, Setting
from benchmarks.paper_verdicts import Place
from training.command_line import Machine
from training.data import World
from training.methods.sfc import Sfc

SETTING = Setting("viper", "mid")
TINY = replace(SCALES["smoke"], clips=0.02, steps=0.001)


def test_a_variant_changes_what_it_says_and_what_starts_from_that_alone() -> None:
    recipes = varied_recipes(SETTING, SCALES["cpu"], 0)
    sfc = recipes["demo-sfc-one-long-sfm"]
    assert sfc.start_from["sfm"] == "demo-sfm-long-sfm:sfm"
    assert sfc.start_from["segmenter"] == recipes["demo-sfc-one"].start_from["segmenter"]
    assert recipes["demo-sfm-long-sfm"].steps == 4 * recipes["demo-sfm"].steps
    assert systems_of("paper", recipes) == ("sfc-one", "control-one")
    assert systems_of("long-sfm", recipes) == ("sfc-one-long-sfm", "control-one-long-sfm")
    assert systems_of("flow-weight-0.5", recipes) == ("sfc-one-flow-weight-0.5", "control-one")
    assert systems_of("conditioned", recipes) == ("conditioned-one", "control-one")
    assert "segmenter" not in recipes["demo-sfc-one-from-scratch"].start_from
    assert not [name for name in recipes if name.endswith("-paper")]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith(("flow-weight", "softmax"))])
def test_a_method_and_its_control_differ_by_the_flow_weight_alone(variant: str) -> None:
    recipes = varied_recipes(SETTING, SCALES["cpu"], 0)
    sfc, control = (recipes[f"demo-{system}"] for system in systems_of(variant, recipes))
    assert replace(sfc, method=control.method) == control
    assert isinstance(sfc.method, Sfc)
    assert replace(sfc.method, flow_weight=0.0).__dict__ == control.method.__dict__


def test_everything_goes_faster_on_the_faster_ground() -> None:
    for recipe in faster_recipes(SETTING, SCALES["cpu"], 0).values():
        for data in (recipe.source, recipe.target, recipe.validation.data):
            assert isinstance(data, World)
            assert data.frame_step == 2


def test_the_table_by_hand() -> None:
    def cells(system: str, *figures: tuple[float, float]) -> list[dict[str, object]]:
        return [
            {
                "classes": "viper", "target": "mid", "seed": seed, "system": system,
                "as_trained": {"miou": plain}, "target_statistics": {"miou": moved},
            }
            for seed, (plain, moved) in enumerate(figures)
        ]  # fmt: skip

    results = {
        "cells": [*cells("sfc-one", (30, 40), (31, 41)), *cells("control-one", (29, 41), (30.5, 41))],
        "scale": {"size": [64, 128], "is_telling": True}, "commit": "abc",
    }  # fmt: skip
    line = Line("the paper's", Place(results, "viper", "mid"), "sfc-one", "control-one", [0.02, None])
    assert report([line], "mid", "cpu", [0, 1]).splitlines()[-1] == (
        "| the paper's | 30.5 (30.0 to 31.0) | 29.8 (29.0 to 30.5) | +0.75 (+0.50 to +1.00) | holds"
        " | -0.50 (-1.00 to +0.00) | **contradicted** | +0.020 |"
    )


def test_a_call_leaves_a_table_and_the_next_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "smoke", TINY)
    options = Options(
        variants=("paper", "flow-weight-0.5"), grounds=("as-is",), scale="smoke", seeds=1, jobs=1,
        out=tmp_path / "out", machine=Machine("cpu"),
    )  # fmt: skip
    text = run(options)
    assert all(f"| {TITLES[name]} | " in text for name in options.variants)
    assert "What failed" not in text
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/**/last.pt")}
    assert before
    with torch.random.fork_rng():
        assert run(options) == text == (tmp_path / "out" / "flow_loss.md").read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--variants", "wider"], "there is no variant 'wider': choose among paper, flow-weight-0.05"),
        (["--grounds", "moon"], "there is no ground 'moon': choose among as-is, faster, larger"),
        (["--grounds"], "there is nothing to try: name --grounds"),
        (["--variants"], "there is nothing to try: name --grounds, and --variants"),
        (["--seeds", "0"], "--seeds is 0: choose at least 1"),
        (["--jobs", "0"], "--jobs is 0: choose at least 1"),
        (["--look", "dusk"], "the world has no look 'dusk'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["flow_loss", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 2
    assert sentence in capsys.readouterr().err
