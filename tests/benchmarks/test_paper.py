import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper import Options, main, run
from benchmarks.paper_filling import time_left
from benchmarks.paper_recipes import FAMILIES, recipe_name, recipes_of
from benchmarks.paper_rows import Cell
from benchmarks.paper_scales import SCALES, Folders, Setting, scaled_recipes, settings_of
from benchmarks.paper_stages import Workshop
from benchmarks.paper_tables import TABLES, Table
from benchmarks.paper_workers import _result
from training.command_line import Machine
from training.data import CityscapesSeq, Viper, World
from training.label_spaces import LABEL_SPACES
from training.methods.pixmatch import PixMatch
from training.methods.sfc import Sfc
from training.recipe import Recipe
from training.run_directory import RunError, save_checkpoint
from training.validation import SegmentationValidation

TINY = replace(SCALES["smoke"], clips=0.02, steps=0.001)
SETTING = Setting("viper", "mid")
FEW = Table(
    "A few rows",
    "viper",
    tuple(row for row in TABLES[1].rows if row.system in ("source-only", "sfc", "control", "pixmatch")),
    TABLES[1].claims,
)
CALL = ["--tables", "1", "--figures", "5", "--scale", "smoke", "--seeds", "1", "--jobs", "1", "--device", "cpu"]


def stages_below(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder / "runs" / "viper")) for path in folder.glob("runs/**/run.json")}


@pytest.fixture(scope="module")
def few_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLES, 1, FEW)
        patch.setitem(SCALES, "smoke", TINY)
        patch.setattr("benchmarks.paper_scales.LOOKS", ("mid",))
        yield


@pytest.fixture(scope="module")
def finished(few_rows: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of table 1, one of which cannot be trained the first time, and all the second time."""
    out = tmp_path_factory.mktemp("paper") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixMatch, "updates", fail)
        patch.setattr(sys, "argv", ["paper", *CALL, "--out", str(out)])
        main()
        (out / "first.json").write_text((out / "results.json").read_text(encoding="utf-8"), encoding="utf-8")
        (out / "first.md").write_text((out / "tables.md").read_text(encoding="utf-8"), encoding="utf-8")
    return out


def fail(*_: object) -> Any:
    raise RuntimeError("the matrix\nis singular")


def results_of(out: Path, name: str = "results.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name).read_text(encoding="utf-8"))
    return found


def test_a_row_that_crashes_is_a_sentence_and_the_others_go_on(finished: Path) -> None:
    cells = {cell["system"]: cell for cell in results_of(finished, "first.json")["cells"]}
    assert cells["pixmatch"]["error"] == "demo-pixmatch-one failed: RuntimeError: the matrix is singular"
    assert all(0 <= cells[system]["as_trained"]["miou"] <= 100 for system in ("source-only", "sfc", "control"))
    failed = "- PixMatch: seed 0: demo-pixmatch-one failed: RuntimeError: the matrix is singular"
    assert failed in (finished / "first.md").read_text(encoding="utf-8").splitlines()


def test_stages_are_trained_once_and_those_that_see_no_target_apart(finished: Path) -> None:
    source = {f"source/seed-0/demo-{name}" for name in ("source-only-one", "flow", "source-only", "sfm")}
    target = {f"mid/seed-0/demo{name}" for name in ("", "-sfc-one", "-control", "-control-one")}
    assert source | target <= stages_below(finished)
    recipes = [stage["recipe"] for stage in results_of(finished, "first.json")["stages"]]
    assert len(recipes) == len(set(recipes)) == len(source | target)


def test_the_next_call_trains_only_what_failed(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/**/last.pt")}
    monkeypatch.setattr(sys, "argv", ["paper", *CALL, "--out", str(finished), "--json"])
    main()
    results = json.loads(capsys.readouterr().out)
    assert results == results_of(finished)
    assert not [cell for cell in results["cells"] if "error" in cell]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {"mid/seed-0/demo-pixmatch-one", "mid/seed-0/demo-pixmatch"} <= stages_below(finished)


def test_a_call_leaves_results_tables_and_plots(finished: Path) -> None:
    plots = {"table-1-mid.png", "frames-viper-mid.png", "figure-5-mid.png"}
    assert {*plots, "results.json", "tables.md", "paper.log"} <= {path.name for path in finished.iterdir()}
    results = results_of(finished)
    assert {"machine", "versions", "commit", "scale"} <= set(results)
    (cell,) = (cell for cell in results["cells"] if cell["system"] == "sfc")
    assert set(cell["as_trained"]["iou"]) == set(World().label_space.names)
    assert cell["seconds"] > 0
    (points,) = results["figure_5"]
    assert all({"step", "miou", "epe"} == set(point) for curve in points["curves"].values() for point in curve)
    text = (finished / "tables.md").read_text(encoding="utf-8")
    assert "Its figures mean nothing" in text
    assert "| *source-only, BatchNorm statistics of the target* |" in text


def test_rows_trained_side_by_side_are_those_trained_in_turn(few_rows: None, finished: Path) -> None:
    out = finished.parent / "side-by-side"
    options = Options(tables=(1,), figures=(5,), scale="smoke", seeds=1, out=out, jobs=2, machine=Machine("cpu"))
    together, in_turn = run(options), results_of(finished, "first.json")
    assert len([stage["recipe"] for stage in together["stages"]]) == len(stages_below(out))
    assert together["figure_5"] == in_turn["figure_5"]
    for cell in in_turn["cells"]:
        (same,) = (other for other in together["cells"] if other["system"] == cell["system"])
        assert same.get("as_trained") == cell.get("as_trained", same.get("as_trained"))
    assert (out / "frames-viper-mid.png").is_file()


def killed(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_one_sentence() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        future: Future[Any] = pool.submit(killed)
        with pytest.raises(RunError, match=r"^one of 2 processes that train rows was killed: give the same command"):
            _result(future, 2)


def test_figure_2_puts_networks_of_both_domains_together(few_rows: None, finished: Path) -> None:
    out = finished.parent / "figure-2"
    results = run(Options(tables=(), figures=(2,), scale="smoke", seeds=1, jobs=1, out=out, machine=Machine("cpu")))
    (entry,) = results["figure_2"]
    assert len(entry["as_trained"]) == len(entry["target_statistics"]) == 4
    assert {"mid/seed-0/demo-segnet-on-target", "mid/seed-0/demo-flow-on-target"} <= stages_below(out)
    assert (out / "figure-2-mid.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tables", "6"], "there is no table 6: choose among 1, 2, 3, 4, 5"),
        (["--figures", "3"], "there is no figure 3: choose among 2, 5"),
        (["--tables", "--figures"], "there is nothing to make: name --tables or --figures"),
        (["--seeds", "0"], "--seeds is 0: choose at least 1"),
        (["--jobs", "0"], "--jobs is 0: choose at least 1"),
        (["--scale", "cpu"], "holds results of scale 'smoke', this call says 'cpu': choose another --out"),
        (["--viper", ".", "--figures", "5"], "these tables on real data also need --cityscapes"),
        (["--viper", ".", "--cityscapes", "/nowhere", "--figures", "5"], "there is no folder /nowhere"),
        (["--viper", ".", "--cityscapes", "."], "figure 2 needs true flow, which the real data sets have not"),
        (["--device", "gpuu"], "there is no device 'gpuu'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    arguments: list[str],
    sentence: str,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = (finished / "results.json").read_bytes()
    call = ["--tables", "1", "--scale", "smoke", "--out", str(finished), *arguments]
    monkeypatch.setattr(sys, "argv", ["paper", *call])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip()
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert (finished / "results.json").read_bytes() == before


def test_results_of_another_version_are_refused(few_rows: None, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": "flowseg-paper", "format_version": 0}', encoding="utf-8")
    with pytest.raises(ValueError, match="is of flowseg-paper 0, this writes flowseg-paper 1: choose another --out"):
        run(Options(tables=(1,), figures=(), scale="smoke", out=tmp_path, machine=Machine("cpu")))


def test_official_weights_are_missed_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    options = Options(
        tables=(1,), figures=(), scale="smoke", viper=tmp_path / "data", cityscapes=tmp_path / "data", out=tmp_path,
        machine=Machine("cpu"),
    )  # fmt: skip
    with pytest.raises(ValueError, match="converted/deeplab-init, which is not there: make it of the official file"):
        run(options)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_has_a_recipe_and_its_control_differs_by_the_flow_weight_alone(family: Any) -> None:
    recipes = recipes_of(family)
    for row in (row for table in TABLES.values() for row in table.rows):
        if family == "demo" or not row.is_of_the_world:
            recipe = recipes[recipe_name(family, row.system)]
            assert not (recipe.keep_best and isinstance(recipe.validation, SegmentationValidation))  # of target labels
    for system in ("sfc", "dff-sfc", "da-vss-sfc", "raft-sfc", "sfc-two"):
        method = recipes[recipe_name(family, system)].method
        control = recipes[recipe_name(family, system.replace("sfc", "control"))].method
        assert isinstance(method, Sfc)
        assert isinstance(control, Sfc)
        assert replace(method, flow_weight=0.0).__dict__ == control.__dict__


@pytest.mark.parametrize("family", FAMILIES)
def test_the_oracle_trains_as_long_as_the_method(family: Any) -> None:
    recipes = recipes_of(family)

    def steps(system: str) -> int:
        """Of stage one: of both runs if the method goes on from source-only."""
        recipe = recipes[recipe_name(family, system)]
        before = recipe_name(family, "source-only-one")
        return recipe.steps + (recipes[before].steps if before in recipe.prerequisites() else 0)

    assert steps("target-only-one") == steps("sfc-one")
    for prefix in ("", "dff-", "da-vss-", "raft-"):
        oracle, method = (recipes[recipe_name(family, f"{prefix}{system}")] for system in ("target-only", "sfc"))
        assert oracle.steps == method.steps
        assert oracle.source == oracle.target


def test_no_recipe_but_those_on_target_labels_reads_any() -> None:
    for name, recipe in recipes_of("demo").items():
        assert isinstance(recipe.source, World)
        assert (recipe.source.look != "source") == ("target" in name), name


def test_a_scale_reaches_every_part_of_a_recipe() -> None:
    recipes = scaled_recipes(SETTING, replace(TINY, backbone="resnet18"), seed=3)
    recipe = recipes["demo-pixmatch"]
    assert (recipe.seed, recipe.steps, recipe.source.size) == (3, 1, (64, 128))
    assert "resnet10_slim" not in str([vars(each.method) for each in recipes.values()])
    assert isinstance(recipe.method, PixMatch)
    assert recipe.method.crop_size == 64
    assert recipe.validation.data.size == (64, 128)


def test_the_classes_of_a_setting_reach_source_and_target_and_flow_networks_serve_both() -> None:
    workshop = Workshop(Path(), TINY, Machine("cpu"), {"stages": []})
    setting = replace(SETTING, classes="synthia")
    for stage in workshop.stages_of(setting, 0, "sfc-tpl"):
        recipe = workshop.recipe(stage)
        name = "viper" if stage.name == "demo-flow" else "synthia"
        assert recipe.source.label_space == recipe.target.label_space == LABEL_SPACES[name]


def test_real_data_keep_their_sizes_and_lie_where_they_were_said_to(tmp_path: Path) -> None:
    (setting,) = settings_of(["viper"], Folders(viper=tmp_path, cityscapes=tmp_path))
    recipe = scaled_recipes(setting, SCALES["gpu"], seed=0)["viper-accel-sfc"]
    assert recipe.steps == 160_000
    assert isinstance(recipe.source, Viper)
    assert isinstance(recipe.target, CityscapesSeq)
    assert recipe.source.root == recipe.target.root == tmp_path


def test_looks_share_the_stages_that_see_no_target_and_are_judged_apart() -> None:
    workshop = Workshop(Path(), TINY, Machine("cpu"), {"stages": []})
    first, second = SETTING, replace(SETTING, target="target")
    for system in ("source-only", "augmented", "raft-source-only"):
        assert workshop.stages_of(first, 0, system) == workshop.stages_of(second, 0, system)
    adapted = {stage.name for stage in workshop.stages_of(first, 0, "sfc")[-2:]}
    assert adapted == {"demo-sfc-one", "demo"}
    shared = set(workshop.stages_of(first, 0, "sfc")) & set(workshop.stages_of(second, 0, "sfc"))
    assert {stage.name for stage in shared} == {
        "demo-source-only-one", "demo-flow", "demo-source-only", "demo-sfm"
    }  # fmt: skip
    looks = [workshop.recipe_of(setting, 0, "source-only").validation.data for setting in (first, second)]
    assert [data.look for data in looks if isinstance(data, World)] == ["mid", "target"]


def test_the_time_left_is_that_of_the_steps_left() -> None:
    workshop = Workshop(Path(), SCALES["cpu"], Machine("cpu"), {"stages": [], "cells": []})
    cell = Cell(SETTING, 0, "source-only")
    assert time_left(workshop, [cell], 1) == ""
    where = {"classes": "viper", "target": "source", "seed": 0}
    done = {**where, "recipe": "demo-source-only-one", "steps": 1000, "seconds": 600.0}  # 0.6 s a step
    workshop.results["stages"].append(done)
    assert time_left(workshop, [cell], 1) == "; about 26 min left"  # 2500 steps of flow and 100 of Accel
    both = [cell, cell._replace(seed=1)]
    assert time_left(workshop, both, num_processes=1) == "; about 1 h 2 min left"  # and 3600
    assert time_left(workshop, both, num_processes=2) == "; about 31 min left"


def test_a_stage_that_was_interrupted_is_gone_on_with(few_rows: None, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, replace(TINY, steps=0.004), Machine("cpu"), {"stages": []})
    recipes: dict[str, Recipe] = scaled_recipes(SETTING, workshop.scale, 0)
    interrupted = replace(recipes["demo-source-only-one"], checkpoint_every=2)
    workshop.recipes[SETTING, 0] = {"demo-source-only-one": interrupted}
    with pytest.MonkeyPatch.context() as patch:
        saved = patch_to_stop_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            workshop.run_of(SETTING, 0, "source-only-one")
    assert saved == [2]
    assert workshop.run_of(SETTING, 0, "source-only-one").is_finished()


def patch_to_stop_at(patch: pytest.MonkeyPatch, step: int) -> list[int]:
    saved: list[int] = []

    def save_and_stop(path: Path, checkpoint: dict[str, Any]) -> None:
        save_checkpoint(path, checkpoint)
        saved.append(checkpoint["step"])
        if checkpoint["step"] == step:
            raise KeyboardInterrupt

    patch.setattr("training.trainer.save_checkpoint", save_and_stop)
    return saved
