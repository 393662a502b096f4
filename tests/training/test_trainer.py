import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.command_line import Machine
from training.data.clip import Clip, LabelledClip
from training.data.unlabelled import Unlabelled
from training.data.world.dataset import World
from training.methods.method import Networks, Update
from training.methods.supervised import Supervised
from training.models.flownet_s import FlowNetS
from training.recipe import Recipe
from training.run_directory import Run, RunError, load_checkpoint, load_weights
from training.trainer import TrainingError, train

Train = Callable[..., Run]
CrashAfter = Callable[[int], contextlib.AbstractContextManager[None]]


def weights(run: Run, checkpoint: str = "last.pt") -> dict[str, Tensor]:
    state: dict[str, Tensor] = load_checkpoint(run.folder / checkpoint)["networks"]["segmenter"]
    return state


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_a_run_leaves_all_it_takes_to_repeat_it(train_tiny: Train) -> None:
    run = train_tiny()
    assert run.is_finished()
    assert {path.name for path in run.folder.iterdir()} == {
        "run.json", "metrics.jsonl", "last.pt", "best.pt", "tensorboard",
    }  # fmt: skip
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/miou" in line] == [2, 4]
    assert list((run.folder / "tensorboard").iterdir())


def test_the_same_recipe_gives_the_same_weights_and_another_seed_does_not(train_tiny: Train) -> None:
    first = weights(train_tiny("first"))
    assert not differing(first, weights(train_tiny("second")))
    assert "segnet.conv1.weight" in differing(first, weights(train_tiny("third", seed=1)))


def test_going_on_from_a_checkpoint_gives_the_weights_of_an_uninterrupted_run(
    train_tiny: Train, crash_after: CrashAfter
) -> None:
    whole = weights(train_tiny("whole"))
    with crash_after(3):
        train_tiny("halves")
    assert not differing(whole, weights(train_tiny("halves", resume=True)))


def test_reading_ahead_in_other_processes_changes_nothing(
    tiny_recipe: Recipe, train_tiny: Train, tmp_path: Path
) -> None:
    recipe = replace(tiny_recipe, augment_source=True)
    train("tiny", recipe, tmp_path / "ahead", lambda name: pytest.fail(name), Machine("cpu", workers=2))
    here = weights(train_tiny("here", augment_source=True))
    assert not differing(here, load_checkpoint(tmp_path / "ahead" / "last.pt")["networks"]["segmenter"])


def test_an_existing_folder_is_refused_and_left_alone(train_tiny: Train, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(RunError, match=r"run exists: choose another --out, or go on with it by --resume"):
        train_tiny()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_a_folder_that_cannot_be_written_is_named(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/run cannot be written"):
        train("tiny", tiny_recipe, tmp_path / "file" / "run", lambda name: pytest.fail(name), Machine("cpu"))


@dataclass(eq=False)
class Diverging(Supervised):
    """Gives a loss that is not finite."""

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        parameter = next(networks["segmenter"].parameters())
        yield Update("segmenter", {"source": parameter.sum() * float("nan")})


def test_a_loss_that_is_not_finite_stops_with_its_name_and_leaves_nothing_half_written(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervised, "updates", Diverging.updates)
    with pytest.raises(TrainingError, match="loss 'source' of 'segmenter' is nan at step 0"):
        train("tiny", tiny_recipe, tmp_path / "run", lambda name: pytest.fail(name), Machine("cpu"))
    assert not (tmp_path / "run").exists()


def test_target_labels_never_reach_a_method(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real_updates = Supervised.updates

    def watching(method: Supervised, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        seen.append(type(target))
        yield from real_updates(method, networks, source, target)

    monkeypatch.setattr(Supervised, "updates", watching)
    recipe = replace(tiny_recipe, steps=1)
    train("tiny", recipe, tmp_path / "run", lambda name: pytest.fail(name), Machine("cpu"))
    assert seen == [Clip]


def test_a_run_starts_from_another_runs_weights(train_tiny: Train, tiny_recipe: Recipe, tmp_path: Path) -> None:
    origin = train_tiny("origin")
    frozen = replace(tiny_recipe, steps=1, start_from={"segmenter": "origin:segmenter"})
    assert frozen.prerequisites() == ("origin",)
    run = train("next", frozen, tmp_path / "next", lambda name: origin, Machine("cpu"))
    moved = weights(run)["segnet.conv1.weight"] - weights(origin)["segnet.conv1.weight"]
    assert 0 < float(moved.abs().max()) < 5e-3  # one step of Adam at 1e-3, not a new initialisation


def test_another_architectures_weights_are_refused(train_tiny: Train, tiny_recipe: Recipe, tmp_path: Path) -> None:
    origin = train_tiny("origin", steps=1)
    recipe = replace(tiny_recipe, start_from={"segmenter.segnet": "origin:segmenter.segnet.layer1"})
    with pytest.raises(RunError, match=r"origin:segmenter.segnet.layer1 does not fit DeepLab"):
        train("next", recipe, tmp_path / "next", lambda name: origin, Machine("cpu"))
    recipe = replace(tiny_recipe, start_from={"segmenter.neck": "origin:segmenter"})
    with pytest.raises(RunError, match=r"this recipe has no network part 'segmenter.neck'"):
        train("next", recipe, tmp_path / "next", lambda name: origin, Machine("cpu"))
    assert not (tmp_path / "next").exists()


def test_domains_with_different_classes_are_refused(tiny_recipe: Recipe, tmp_path: Path) -> None:
    class OtherClasses(World):
        label_space = replace(World().label_space, name="other")

    with pytest.raises(ValueError, match="choose data sets with one label space"):
        train(
            "tiny", replace(tiny_recipe, target=OtherClasses()), tmp_path / "run", lambda name: pytest.fail(name),
            Machine("cpu"),
        )  # fmt: skip


@pytest.mark.parametrize("forward_target", [True, False])
def test_target_clips_are_read_only_for_methods_that_look_at_them(
    forward_target: bool, tiny_recipe: Recipe, train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real_item = Unlabelled.__getitem__

    def watching(data: Unlabelled, index: int) -> Clip:
        seen.append(index)
        return real_item(data, index)

    monkeypatch.setattr(Unlabelled, "__getitem__", watching)
    assert isinstance(tiny_recipe.method, Supervised)
    run = train_tiny(method=replace(tiny_recipe.method, forward_target=forward_target))
    assert len(seen) == (4 if forward_target else 0)
    assert set(run.measures()) == {"miou"}  # of the target's validation frames


def test_how_long_iterations_take_and_wait_stands_beside_their_losses(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.LOG_EVERY", 2)
    run = train_tiny()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    timed = [line for line in lines if "loss/source" in line]
    assert [line["step"] for line in timed] == [2, 4]
    assert all(0 < line["seconds/data"] < line["seconds/step"] for line in timed)


def test_target_clips_that_are_too_short_for_the_method_are_refused(tiny_recipe: Recipe, train_tiny: Train) -> None:
    with pytest.raises(ValueError, match=r"Supervised looks at 2 frames of the target, .* --target.num-frames 2"):
        train_tiny(target=replace(tiny_recipe.target, num_frames=1))  # type: ignore[type-var]  # data sets are dataclasses


def test_domains_of_different_classes_are_refused(tiny_recipe: Recipe, train_tiny: Train) -> None:
    assert isinstance(tiny_recipe.target, World)
    sentence = "source has the classes of viper-to-cityscapes, target those of synthia-to-cityscapes: choose data sets"
    with pytest.raises(ValueError, match=sentence):
        train_tiny(target=replace(tiny_recipe.target, classes="synthia"))


def test_a_teacher_of_another_width_is_refused_with_both_shapes() -> None:
    shapes = r"has shape \(6, 6, 7, 7\) there and \(9, 6, 7, 7\) here: give both networks the same width"
    with pytest.raises(RunError, match=rf"run:flow_net does not fit FlowNetS: conv1.0.weight {shapes}"):
        load_weights(FlowNetS(0.375), FlowNetS(0.25).state_dict(), "run:flow_net")
