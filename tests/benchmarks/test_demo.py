import json
import logging
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import benchmarks.demo
import benchmarks.demo_serving
from benchmarks.demo import STAGES, Options, main, run_demo
from benchmarks.demo_report import ROWS, verdict
from serving.bundle import read_bundle
from serving.videos import open_video
from training.data.world.dataset import World
from training.recipe import NamedRecipe, Recipe
from training.recipes import RECIPES, RECOMMENDED
from training.run_directory import RunError
from training.validation import ConfidenceValidation

SIZE = (64, 64)


def tiny_data(data: Any) -> Any:  # Any: one of the data sets of the demo
    return replace(data, size=SIZE, num_clips=4)


def tiny(recipe: Recipe) -> Recipe:
    validation = replace(recipe.validation, data=tiny_data(recipe.validation.data))
    return replace(
        recipe, source=tiny_data(recipe.source), target=tiny_data(recipe.target), validation=validation, steps=1
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole demo with one step per stage, on frames of 64x64."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        recipes = {name: NamedRecipe(RECIPES[name].description, tiny(RECIPES[name].recipe)) for name in STAGES}
        patch.setattr(benchmarks.demo, "RECIPES", recipes)
        for name in ("SOURCE_VALIDATION_FLOW", "TARGET", "TARGET_VALIDATION", "TARGET_VALIDATION_FLOW"):
            patch.setattr(benchmarks.demo, name, tiny_data(getattr(benchmarks.demo, name)))
        patch.setattr(benchmarks.demo, "PICTURED", (0, 3))
        patch.setattr(benchmarks.demo_serving, "STREET_FRAMES", 7)
        patch.setattr(sys, "argv", ["demo", "--out", str(out), "--device", "cpu"])
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.INFO)  # the command sets it, but not where pytest has handlers of its own
        main()
        root.setLevel(level)
    return out


def test_the_demo_leaves_all_it_promises(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "report.json", "report.png", "bundle", "street.mp4", "overlay.mp4", "labels", "logs", "stages",
    }  # fmt: skip
    assert {path.name for path in (finished / "stages").iterdir()} == set(STAGES)
    assert {path.name for path in (finished / "logs").iterdir()} == {"demo.log", "server.log"}
    assert "demo-sfm" in (finished / "logs" / "demo.log").read_text()
    assert read_bundle(finished / "bundle").manifest.provenance["run"] == RECOMMENDED


def test_every_frame_of_the_video_is_answered_and_drawn(finished: Path) -> None:
    assert len(list((finished / "labels").iterdir())) == 7
    assert len(list(open_video(str(finished / "overlay.mp4")).frames())) == 7
    serving = json.loads((finished / "report.json").read_text())["serving"]
    assert (serving["frames"], serving["answered"], serving["dropped"]) == (7, 7, 0)
    assert serving["label_agreement_with_torch"] > 0.999
    assert 0 < serving["p50_ms"] <= serving["p99_ms"]


def test_the_report_has_the_controls_beside_the_method(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert set(report["target_miou"]) == {*ROWS, "source_only_target_statistics"}
    assert set(report["target_miou_with_target_statistics"]) == set(ROWS) - {"target_only"}
    assert (
        report["target_miou"]["source_only_target_statistics"]
        == (report["target_miou_with_target_statistics"]["source_only"])
    )
    assert set(report["flow_epe"]) == {"source", "target"}
    assert report["export"]["label_agreement"] > 0.999
    assert set(STAGES) | {"evaluate", "export", "render", "serve", "total"} == set(report["seconds"])
    assert report["seed"] == 0
    assert "torch" in report["versions"]


def test_a_finished_demo_is_not_overwritten(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "report.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(finished)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("out holds a finished demo: look at report.json and report.png, or choose another --out")
    )
    assert (finished / "report.json").read_bytes() == before


def test_stages_of_another_seed_are_not_taken_for_ones_own(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "stages", tmp_path / "out" / "stages")
    with pytest.raises(RunError, match=r"demo-source-only-one was trained with .*: remove it or choose another --out"):
        run_demo(Options(out=tmp_path / "out", seed=1))


def test_a_missing_video_is_found_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path / "out"), "--video", str(tmp_path / "no.mp4")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip() == f"error: there is no video at {tmp_path / 'no.mp4'}"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path / "file" / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "file/out/logs/demo.log cannot be written" in capsys.readouterr().err


def test_the_verdict_says_what_each_part_brings() -> None:
    plain = {
        "source_only": 20.0, "control_without_flow_loss": 30.0, "adapted": 29.5, "augmented_source": 41.0,
        "recommended": 44.0, "target_only": 45.0,
    }  # fmt: skip
    with_statistics = {"source_only": 38.0, "control_without_flow_loss": 40.0, "adapted": 41.0}
    sentence = verdict(plain, with_statistics)
    for part in ("25.0 points", "closes 18.0", "closes 10.0", "-0.5", "+1.0 with re-estimated", "21.0", "24.0"):
        assert part in sentence


def test_the_demo_trains_every_stage_its_recipes_start_from_before_it_is_needed() -> None:
    for number, name in enumerate(STAGES):
        assert set(RECIPES[name].recipe.prerequisites()) <= set(STAGES[:number])


def test_all_rows_but_target_only_see_no_target_label() -> None:
    for name in STAGES:
        source = RECIPES[name].recipe.source
        assert isinstance(source, World)
        assert (source.look == "mid") == ("target-only" in name)
        chooses_without_labels = isinstance(RECIPES[name].recipe.validation, ConfidenceValidation)
        assert RECIPES[name].recipe.keep_best == chooses_without_labels


def test_the_control_is_the_method_but_for_the_flow_weight() -> None:
    for stage in ("", "-one"):
        method = RECIPES[f"demo-sfc{stage}" if stage else "demo"].recipe.method
        control = RECIPES[f"demo-control{stage}"].recipe.method
        differing = [
            field.name for field in fields(method) if getattr(method, field.name) != getattr(control, field.name)
        ]
        assert differing == ["flow_weight"]
