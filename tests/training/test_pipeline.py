import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.command_line import Machine
from training.data import CityscapesSeq, VideoFolder, Viper
from training.pipeline import Options, main, run_pipeline, stages, with_own_videos, with_roots
from training.recipe import NamedRecipe, Recipe
from training.recipes import RECIPES
from training.run_directory import Run, RunError
from training.validation import ConfidenceValidation

Refused = Callable[..., str]


@pytest.fixture
def three_stages(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = replace(tiny_recipe, steps=1)
    second = replace(first, start_from={"segmenter": "first:segmenter"})
    third = replace(first, start_from={"segmenter": "second:segmenter"})
    for name, recipe in (("first", first), ("second", second), ("third", third)):
        monkeypatch.setitem(RECIPES, name, NamedRecipe(name, recipe))
    orphan = replace(first, start_from={"segmenter": "deeplab-init:segmenter"})
    monkeypatch.setitem(RECIPES, "orphan", NamedRecipe("orphan", orphan))


def test_a_stage_comes_after_all_it_starts_from_and_once() -> None:
    order = list(stages("viper-accel-sfc"))
    assert order == [
        "deeplab-init", "viper-source-only-one", "flying-chairs", "viper-source-only", "viper-sfm", "viper-sfc-one",
        "viper-accel-sfc",
    ]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_an_order(name: str) -> None:
    order = list(stages(name))
    for number, stage in enumerate(order):
        needed = RECIPES[stage].recipe.prerequisites() if stage in RECIPES else ()
        assert set(needed) <= set(order[:number])
    assert set(order) - set(RECIPES) <= {"deeplab-init", "flying-chairs", "raft-things"}


def test_roots_reach_every_data_set_of_a_recipe_and_nothing_else() -> None:
    recipe = RECIPES["viper-sfm"].recipe
    moved = with_roots(recipe, {Viper: Path("/v"), CityscapesSeq: Path("/c")})
    assert isinstance(moved.source, Viper)
    assert isinstance(moved.target, CityscapesSeq)
    assert isinstance(moved.validation.data, Viper)
    assert (moved.source.root, moved.target.root, moved.validation.data.root) == (Path("/v"), Path("/c"), Path("/v"))
    assert repr(replace(moved, source=recipe.source, target=recipe.target, validation=recipe.validation)) == repr(
        recipe
    )


@pytest.mark.usefixtures("three_stages")
def test_stages_are_trained_in_order_and_not_again(tmp_path: Path) -> None:
    options = Options(recipe="third", out=tmp_path, machine=Machine("cpu"))
    run = run_pipeline(options)
    assert (run.name, run.is_finished()) == ("third", True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/last.pt")}
    assert {path.parent.name for path in before} == {"first", "second", "third"}
    assert run_pipeline(options).folder == run.folder
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/last.pt")} == before


@pytest.mark.usefixtures("three_stages")
def test_a_run_of_another_seed_is_in_the_way(tmp_path: Path) -> None:
    run_pipeline(Options(recipe="first", out=tmp_path, machine=Machine("cpu")))
    with pytest.raises(RunError, match=r"first was trained with seed 0 \(this call says 1\): remove it"):
        run_pipeline(Options(recipe="second", out=tmp_path, machine=Machine("cpu"), seed=1))
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("name", ["demo", "viper-sfc-one", "viper-sfm", "synthia-accel-sfc"])
def test_own_videos_are_a_target_without_labels_to_choose_by(name: str) -> None:
    recipe = RECIPES[name].recipe
    own = with_own_videos(recipe, Path("/videos"))
    assert isinstance(own.target, VideoFolder)
    assert (own.target.root, own.target.size, own.target.labels) == (Path("/videos"), recipe.target.size, None)
    assert own.target.label_space == own.source.label_space
    assert own.validation.data.label_space == own.source.label_space
    assert isinstance(own.validation.data, type(recipe.source))
    assert not own.keep_best


def test_a_recipe_that_chooses_without_labels_chooses_on_own_videos() -> None:
    own = with_own_videos(RECIPES["demo-mean-teacher"].recipe, Path("/videos"))
    assert isinstance(own.validation, ConfidenceValidation)
    assert own.validation.data == own.target
    assert isinstance(own.target, VideoFolder)
    assert own.keep_best


@pytest.mark.usefixtures("three_stages")
def test_a_training_on_own_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    video = cv2.VideoWriter(str(tmp_path / "videos" / "ride.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (96, 48))
    for value in range(5):
        video.write(np.full((48, 96, 3), 40 * value, np.uint8))
    video.release()
    run = run_pipeline(
        Options(recipe="first", videos=tmp_path / "videos", out=tmp_path / "out", machine=Machine("cpu"))
    )
    assert run.is_finished()
    assert isinstance(run.recipe.target, VideoFolder)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    def refuse(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return refuse


@pytest.mark.usefixtures("three_stages")
def test_mistakes_are_one_sentence(refused: Refused, tmp_path: Path) -> None:
    assert "error: there is no recipe 'fourth': choose one of " in refused("fourth")
    assert "deeplab-init, which is not there: make it of the official file with 'python -m training.convert" in refused(
        "orphan", "--out", tmp_path
    )
    assert "there is no device 'abacus'" in refused("first", "--device", "abacus")
    assert "--workers must not be negative, it is -1" in refused("first", "--workers", -1)
    (tmp_path / "file").touch()
    assert "file/first cannot be written" in refused("first", "--out", tmp_path / "file")


def test_a_missing_data_set_is_found_before_anything_is_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "out" / "deeplab-init").mkdir(parents=True)
    (tmp_path / "out" / "flying-chairs").mkdir()
    sentence = refused("viper-accel-sfc", "--out", tmp_path / "out", "--viper", tmp_path / "none", "--cityscapes", ".")
    assert str(tmp_path / "none") in sentence
    assert "point --root at the folder of VIPER" in sentence
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"deeplab-init", "flying-chairs"}


def test_the_list_says_how_far_it_has_come(
    train_tiny: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train_tiny("demo-flow", steps=1)
    monkeypatch.setattr(sys, "argv", ["pipeline", "demo-source-only", "--list", "--out", str(tmp_path)])
    main()
    lines = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    states = {stage.strip(): state.strip() for stage, _, state in lines}
    assert states == {"demo-source-only-one": "to do", "demo-flow": "finished", "demo-source-only": "to do"}
