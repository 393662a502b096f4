import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.journal import Journal
from training.methods.stage import StageTwo
from training.methods.tpl import Tpl
from training.methods.tps import Tps
from training.recipe import Recipe
from training.recipes import RECIPES
from training.run_directory import (
    Run,
    RunError,
    load_checkpoint,
    read_run,
    recipe_difference,
    save_checkpoint,
    write_run_file,
)
from training.state import initial_state

Train = Callable[..., Run]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_the_way_through_run_json(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name].recipe
    write_run_file(tmp_path, name, recipe)
    run = read_run(tmp_path)
    assert run.name == name
    assert repr(run.recipe) == repr(recipe)


def test_a_method_inside_a_method_survives_the_way_through_run_json(tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, method=Tpl(Tps(StageTwo(freeze_bn=True), threshold=0.5), pseudo_weight=1.0))
    write_run_file(tmp_path, "tiny", recipe)
    assert repr(read_run(tmp_path).recipe) == repr(recipe)
    assert recipe_difference(read_run(tmp_path), recipe) == ""


def test_reading_back_a_run_gives_its_networks_in_evaluation_mode(train_tiny: Train) -> None:
    run = read_run(train_tiny().folder)
    network = run.networks()["segmenter"]
    assert not network.training
    stored = load_checkpoint(run.folder / "last.pt")["networks"]["segmenter"]
    assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())
    assert set(run.measures()) == {"miou"}


def test_a_missing_run_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no run at .*nowhere: train one with 'python -m training.train"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 9'), "is not of run format 2"),
        (lambda text: text.replace('"_type": "World"', '"_type": "Moon"'), "cannot be read"),
        (lambda text: json.dumps([]), "cannot be read"),
        (lambda text: "[" * 100_000, "cannot be read"),
        (lambda text: text.replace('"provenance": {', '"provenance": "unknown", "other": {'), "cannot be read"),
    ],
)
def test_a_damaged_run_file_is_named(damage: Callable[[str], str], message: str, tmp_path: Path) -> None:
    write_run_file(tmp_path, "demo", RECIPES["demo"].recipe)
    path = tmp_path / "run.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=message):
        read_run(tmp_path)


def test_a_checkpoint_that_runs_code_is_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (Path.touch, (Path(tmp_path / "exploded"),))  # type: ignore[return-value]

    torch.save({"networks": {}, "bomb": Bomb()}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"networks": Bomb()}, protocol=2))
    for name in ("bomb.pt", "plain.pt"):
        with pytest.raises(RunError, match="is not a readable checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x80\x02.", b"\x80\x02a.", b"\x80\x02J\x01.", b"\x80\x02e."])
def test_a_damaged_checkpoint_is_named_whatever_the_unpickler_makes_of_it(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(damage)
    with pytest.raises(RunError, match="is not a readable checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("damage", [{"step": None}, {"step": "5"}, {"measures": [0.5]}])
def test_a_checkpoint_without_step_or_measures_is_named(damage: dict[str, object], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", {"step": 5, "measures": {}, "networks": {}} | damage)
    with pytest.raises(RunError, match="holds no step or no measures"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "damage", [{"optimizers": {}}, {"optimizers": {"segmenter": 1}}, {"rng": 1}, {"best_score": {}}]
)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_named(
    damage: dict[str, object], tiny_recipe: Recipe, train_tiny: Train
) -> None:
    path = train_tiny(steps=1).folder / "last.pt"
    save_checkpoint(path, load_checkpoint(path) | damage)
    with pytest.raises(RunError, match=r"last\.pt cannot be gone on from"):
        initial_state(tiny_recipe, {}, torch.device("cpu"), path)


def test_damaged_figures_are_named(train_tiny: Train) -> None:
    run = train_tiny(steps=1)
    (run.folder / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be read"):
        run.figures()


def test_a_run_that_goes_on_forgets_figures_that_a_power_cut_damaged(tmp_path: Path) -> None:
    journal = Journal("tiny", tmp_path, 4)
    lines = [b'{"step": 1}\n', b"\0\0\0\n", b"[]\n", b"\xff\n", b'{"step": 2}\n', b'{"step": 3}\n', b'{"st']
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines))
    journal.open(2)
    journal.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_a_checkpoint_that_is_no_state_dict_is_named(train_tiny: Train, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "list.pt", {"step": 1, "measures": {}, "networks": [1, 2]})
    with pytest.raises(RunError, match="holds no networks"):
        load_checkpoint(tmp_path / "list.pt")
    run = train_tiny(steps=1)
    checkpoint = load_checkpoint(run.folder / "last.pt")
    save_checkpoint(run.folder / "last.pt", {**checkpoint, "networks": {"segmenter": {"weight": 1}}})
    with pytest.raises(RunError, match="is no state dict"):
        run.networks()
    (run.folder / "last.pt").unlink()
    with pytest.raises(RunError, match="there is no checkpoint"):
        run.networks()


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last.pt", {"networks": {"a": {}}})
    before = (tmp_path / "last.pt").read_bytes()

    def failing(value: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "last.pt", {"networks": {}})
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
