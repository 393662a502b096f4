import inspect
import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.command_line import Machine
from training.data import DATASETS
from training.methods import METHODS
from training.methods.optimization import OPTIMIZERS, SCHEDULES
from training.methods.stage import STAGES
from training.models import FLOW_NETS, SEGMENTERS
from training.recipe import NamedRecipe, Recipe
from training.recipes import RECIPES
from training.run_directory import load_checkpoint, read_run
from training.train import Training, main

Call = Callable[..., None]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def small_recipes(monkeypatch: pytest.MonkeyPatch, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """In place of all others: `tiny`, `next`, which starts from it, and `orphan`, which starts from nothing known."""
    for name in list(RECIPES):
        monkeypatch.delitem(RECIPES, name)
    tiny = replace(tiny_recipe, steps=2)
    following = replace(tiny, start_from={"segmenter": "tiny:segmenter"})
    monkeypatch.setitem(RECIPES, "tiny", NamedRecipe("The smallest.", tiny))
    monkeypatch.setitem(RECIPES, "next", NamedRecipe("The one after.", following))
    orphan = replace(tiny, start_from={"segmenter": "nowhere:segmenter"})
    monkeypatch.setitem(RECIPES, "orphan", NamedRecipe("No parents.", orphan))
    monkeypatch.chdir(tmp_path)  # where runs/ would be


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    def call_it(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        main()

    return call_it


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.fixture
def refused(call: Call, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """The one sentence with which the command stops; no file has changed."""

    def call_it(*arguments: object) -> str:
        before = contents(tmp_path)
        capsys.readouterr()  # what was trained before
        with pytest.raises(SystemExit) as stopped:
            call(*arguments)
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line]
        assert len(lines) == 1, lines
        assert contents(tmp_path) == before
        return lines[0]

    return call_it


def validated_steps(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["step"] for line in lines if "validation/miou" in line]


def recipe_fields(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]
    return fields


def pretend_interrupted(folder: Path, steps: int) -> None:
    """Makes a finished run one that was to last longer."""
    run_file = folder / "run.json"
    document = json.loads(run_file.read_text(encoding="utf-8"))
    document["recipe"]["steps"] = steps
    run_file.write_text(json.dumps(document), encoding="utf-8")


def test_a_recipe_is_trained_into_the_folder_of_its_name(call: Call, tmp_path: Path) -> None:
    call("tiny")
    run = read_run(tmp_path / "runs" / "training" / "tiny")
    assert run.name == "tiny"
    assert run.is_finished()
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_options_override_fields_of_the_recipe(call: Call, tmp_path: Path) -> None:
    call(
        "tiny", "--out", tmp_path / "own", "--steps", 1, "--seed", 7, "--keep-best", "--source.num-clips", 3,
        "--method.stage.optimizer.learning-rate", 0.25, "--method.no-forward-target", "--validation.data.num-clips", 1,
    )  # fmt: skip
    fields = recipe_fields(tmp_path / "own")
    assert (fields["steps"], fields["seed"], fields["keep_best"]) == (1, 7, True)
    assert fields["source"]["num_clips"] == 3
    assert fields["method"]["stage"]["optimizer"]["learning_rate"] == 0.25
    assert fields["method"]["forward_target"] is False
    assert fields["validation"]["data"]["num_clips"] == 1
    untouched = RECIPES["tiny"].recipe
    assert fields["source_batch"] == untouched.source_batch
    assert validated_steps(tmp_path / "own") == [1]


def test_what_a_recipe_starts_from_is_trained_beside_it_first(call: Call, tmp_path: Path) -> None:
    call("next", "--out", tmp_path / "stages" / "second")
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == ["second", "tiny"]
    first = read_run(tmp_path / "stages" / "tiny")
    assert first.is_finished()
    assert not first.recipe.start_from
    assert read_run(tmp_path / "stages" / "second").name == "next"


def test_what_is_trained_already_is_left_alone(call: Call, tmp_path: Path) -> None:
    call("tiny", "--out", tmp_path / "tiny", "--seed", 5)
    before = contents(tmp_path / "tiny")
    call("next", "--out", tmp_path / "next")
    assert contents(tmp_path / "tiny") == before


def test_what_was_interrupted_is_finished_first(call: Call, tmp_path: Path) -> None:
    call("tiny", "--out", tmp_path / "tiny", "--steps", 1)
    pretend_interrupted(tmp_path / "tiny", steps=2)
    assert not read_run(tmp_path / "tiny").is_finished()
    call("next", "--out", tmp_path / "next")
    assert validated_steps(tmp_path / "tiny") == [1, 2]
    assert read_run(tmp_path / "next").is_finished()


def test_resume_goes_on_from_the_last_checkpoint(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "own"
    call("tiny", "--out", out)
    pretend_interrupted(out, steps=4)
    call("tiny", "--out", out, "--steps", 4, "--resume")
    assert validated_steps(out) == [2, 4]
    assert recipe_fields(out)["steps"] == 4
    assert load_checkpoint(out / "last.pt")["step"] == 4


def test_there_must_be_something_to_go_on_with(refused: Refused) -> None:
    sentence = refused("tiny", "--out", "nowhere", "--resume")
    assert "there is no run at nowhere to go on with: leave out --resume, or mend --out" in sentence


def test_going_on_needs_nothing_of_what_the_run_started_from(call: Call, tmp_path: Path) -> None:
    call("next", "--out", tmp_path / "next", "--steps", 1)
    pretend_interrupted(tmp_path / "next", steps=2)
    shutil.rmtree(tmp_path / "tiny")
    call("next", "--out", tmp_path / "next", "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["next"]
    assert validated_steps(tmp_path / "next") == [1, 2]


def test_an_unknown_recipe_is_answered_with_those_there_are(refused: Refused) -> None:
    assert refused("nonsense") == "error: there is no recipe 'nonsense': choose one of tiny, next, orphan"
    assert refused("nonsense", "--out", "tiny") == (
        "error: there is no recipe 'nonsense': choose one of tiny, next, orphan"
    )


def test_without_a_recipe_they_are_listed(refused: Refused) -> None:
    assert refused() == "error: no recipe is named: choose one of tiny, next, orphan"


def test_mistakes_are_one_sentence_and_status_2(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("precious")
    assert "full exists: choose another --out, or go on with it by --resume" in refused("tiny", "--out", "full")
    assert "full/file exists" in refused("tiny", "--out", "full/file")
    assert "full/file/run cannot be written" in refused("tiny", "--out", "full/file/run")
    assert "there is no device 'abacus'" in refused("tiny", "--device", "abacus")
    assert "must be at least 1" in refused("tiny", "--steps", "0")
    assert "must be at least 1" in refused("tiny", "--source-batch", "-1")
    sentence = refused("orphan")
    assert "orphan starts from runs/training/nowhere, which is no finished run, and no recipe has that name" in sentence
    assert "'somewhere' does not read RUN:NETWORK.PART" in refused("next", "--start-from.segmenter", "somewhere")


def test_a_missing_gpu_is_told(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no GPU answers, so 'cuda' cannot be used" in refused("tiny", "--device", "cuda")


@pytest.mark.parametrize(
    ("option", "value", "phrase"),
    [
        ("--source.look", "cubist", "the world has no look 'cubist'"),
        ("--target.size", "30 64", "frames of 64x30 pixels do not work"),
        ("--validation.data.num-clips", "0", "num_clips is 0"),
        ("--steps", "many", "many"),
        ("--learning", "1", "Unrecognized options: --learning"),
    ],
)
def test_an_option_that_does_not_work_is_named(
    call: Call, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, phrase: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("tiny", option, *value.split())
    assert stopped.value.code == 2
    lines = [line.strip("│ ") for line in capsys.readouterr().err.splitlines()]
    assert phrase in " ".join(lines)
    assert len(lines) < 20
    assert list(tmp_path.iterdir()) == []


def test_another_recipes_run_is_not_resumed(call: Call, refused: Refused, tmp_path: Path) -> None:
    call("tiny", "--out", "own")
    assert "own is a run of tiny, not of next: choose another --out" in refused("next", "--out", "own", "--resume")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--method.stage.segmenter.backbone", "resnet18"),
            "method.stage.segmenter.backbone resnet10_slim (this call says resnet18)",
        ),
        (("--steps", 9), "steps 2 (this call says 9)"),
        (("--source.num-clips", 3), "source.num_clips 4 (this call says 3)"),
    ],
)
def test_a_run_of_a_changed_recipe_is_not_resumed(
    call: Call, refused: Refused, options: tuple[object, ...], sentence: str
) -> None:
    call("tiny", "--out", "own")
    assert f"own was trained with {sentence}: go on with the same recipe" in refused(
        "tiny", "--out", "own", "--resume", *options
    )


def test_damage_is_told_and_left_as_it_is(call: Call, refused: Refused, tmp_path: Path) -> None:
    call("tiny", "--out", "tiny")
    checkpoint = tmp_path / "tiny" / "last.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert "last.pt is not a readable checkpoint" in refused("tiny", "--out", "tiny", "--resume")
    assert "last.pt is not a readable checkpoint" in refused("next", "--out", "next")
    (tmp_path / "tiny" / "run.json").write_text("{")
    assert "run.json cannot be read" in refused("next", "--out", "next")


def test_training_that_diverges_stops_with_a_sentence_and_leaves_nothing(
    call: Call, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(
            "tiny",
            "--out",
            "own",
            "--method.stage.optimizer.learning-rate",
            "1e30",
            "--validate-every",
            10,
            "--steps",
            5,
        )
    assert stopped.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "loss 'source' of 'segmenter' is nan at step 1: lower the learning rate" in error
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_recipes_and_the_fields_of_each(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    def help_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            call(*arguments, "--help")
        assert stopped.value.code == 0
        return " ".join(re.sub("[│╭╰─╮╯]", " ", capsys.readouterr().out).split())

    overview = help_of()
    for phrase in ("Trains a recipe", "tiny The smallest.", "next The one after."):
        assert phrase in overview
    options = help_of("tiny")
    for phrase in (
        "--out PATH run directory to write; runs it starts from lie beside it (default: runs/training/tiny)",
        "--steps INT iterations: one batch of each domain",
        "--method.stage.optimizer.learning-rate FLOAT",
        "height and width of the frames in pixels",
        '"auto" takes a GPU when there is one',
    ):
        assert phrase in options


FAMILIES = (METHODS, DATASETS, SEGMENTERS, FLOW_NETS)
OPTION_TYPES = {*OPTIMIZERS, *SCHEDULES, *STAGES, *(member for family in FAMILIES for member in family.values())}


GROUPS = {
    "recipe",
    "machine",
    "method",
    "source",
    "target",
    "validation",
}  # of options: their classes' docstrings are shown


@pytest.mark.parametrize("options", [Recipe, Training, Machine, *sorted(OPTION_TYPES, key=lambda kind: kind.__name__)])
def test_every_option_has_a_help_text(options: type[Any]) -> None:
    """A comment at the end of the field's line, or on the line above: elsewhere the command does not find it."""
    own = {name for name in inspect.get_annotations(options) if name.islower()}
    found = set()
    for above, line in itertools.pairwise(inspect.getsource(options).splitlines()):
        field = re.match(r"    (\w+): ", line)
        if field and field[1] in own and ("  # " in line or above.startswith("    # ")):
            found.add(field[1])
    assert found >= own - GROUPS
