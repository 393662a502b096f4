import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from training.data.clip import LabelledClip
from training.data.video_folder import VideoFolder
from training.data.world.dataset import World, WorldFlow
from training.data.world.layouts import Videos, write_layout
from training.evaluate import main
from training.label_spaces import SYNTHIA_TO_CITYSCAPES
from training.methods.flow_supervision import FlowSupervision
from training.metrics import mean_iou
from training.models.flownet_s import FlowNetSConfig
from training.models.video_segmenter import VideoSegmenter
from training.recipe import Recipe
from training.run_directory import Run, read_run, save_checkpoint, write_run_file
from training.validation import ConfidenceValidation, FlowValidation, SegmentationValidation, segmentation_confusion

Train = Callable[..., Run]
CPU = torch.device("cpu")
WORLD = World(size=(64, 64), num_clips=2)
WRITTEN = {f"evaluation-validation{end}" for end in (".json", ".csv", ".png", "-confusion.png")}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
    main()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object
) -> str:
    """The sentence with which the command stops; nothing below `folder` has changed."""
    before = contents(folder)
    capsys.readouterr()  # what was trained before
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, *arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    lines = [line for line in captured.err.splitlines() if line]
    assert len(lines) == 1, lines
    assert contents(folder) == before
    return lines[0]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """`refusal` of the command, called with arguments alone."""
    return partial(refusal, monkeypatch, capsys, tmp_path)


def untrained(folder: Path, recipe: Recipe) -> Run:
    """A run whose networks are as they were drawn."""
    folder.mkdir()
    write_run_file(folder, "untrained", recipe)
    networks = recipe.method.networks(recipe.source.label_space.num_classes)
    states = {name: network.state_dict() for name, network in networks.items()}
    save_checkpoint(folder / "last.pt", {"step": recipe.steps, "measures": {}, "networks": states})
    return read_run(folder)


def test_the_figures_and_a_picture_are_written_into_the_run(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(steps=1)
    before = set(run.folder.iterdir())
    capsys.readouterr()
    call(monkeypatch, run.folder, "--json")
    figures = json.loads(capsys.readouterr().out)
    written = json.loads((run.folder / "evaluation-validation.json").read_text(encoding="utf-8"))
    assert figures == written
    assert {path.name for path in set(run.folder.iterdir()) - before} == WRITTEN
    assert set(figures) == {"dataset", "num_clips", "classes", "evaluated", "protocols", "temporal_consistency"}
    assert figures["dataset"] == "validation"
    assert figures["num_clips"] == 2
    assert figures["classes"] == figures["evaluated"] == list(run.recipe.source.label_space.names)
    sfc, advent = figures["protocols"]["sfc"], figures["protocols"]["advent"]
    assert list(sfc["iou"]) == list(advent["iou"]) == figures["classes"]
    segmenter = run.networks()["segmenter"]
    assert isinstance(segmenter, VideoSegmenter)
    data = run.recipe.validation.data
    confusion = segmentation_confusion(segmenter, data, CPU)
    assert sfc["confusion"] == confusion.tolist()
    assert sfc["miou"] == pytest.approx(mean_iou(confusion, data.label_space.evaluated, absent_is_zero=True))
    assert sfc["miou"] == pytest.approx(np.mean(list(sfc["iou"].values())))
    present = [value for value in advent["iou"].values() if value is not None]
    assert advent["miou"] == pytest.approx(np.mean(present))
    assert np.sum(advent["confusion"]) == np.sum(sfc["confusion"])  # the world is rendered at the network's size
    assert 0 < figures["temporal_consistency"] <= 100
    with Image.open(run.folder / "evaluation-validation.png") as picture:
        assert picture.size[0] == 12 * 110
        assert np.asarray(picture.convert("L")).std() > 10
    header, *rows = csv.reader((run.folder / "evaluation-validation.csv").read_text(encoding="utf-8").splitlines())
    assert header == ["class", "evaluated", "iou_sfc", "iou_advent"]
    assert [row[0] for row in rows] == figures["classes"]
    assert [float(row[2]) for row in rows] == list(sfc["iou"].values())
    assert [float(row[3]) if row[3] else None for row in rows] == list(advent["iou"].values())


def test_one_protocol_can_be_chosen(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    for protocol, other in (("sfc", "advent"), ("advent", "sfc")):
        call(monkeypatch, run.folder, "--protocol", protocol)
        captured = capsys.readouterr().out
        assert protocol in captured
        assert other not in captured
        figures = json.loads((run.folder / "evaluation-validation.json").read_text(encoding="utf-8"))
        assert list(figures["protocols"]) == [protocol]


def test_key_frame_intervals_are_swept_on_longer_clips(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    call(monkeypatch, run.folder, "--json", "--key-frame-intervals", 2, 1, 2)
    figures = json.loads(capsys.readouterr().out)
    sweep = figures["key_frame_intervals"]
    assert sweep["num_clips"] == 2
    assert [at["interval"] for at in sweep["intervals"]] == [1, 2]
    one, two = sweep["intervals"]
    for protocol in ("sfc", "advent"):  # a network of single frames does not care
        assert one["protocols"][protocol]["miou"] == pytest.approx(two["protocols"][protocol]["miou"])
    assert one["temporal_consistency"] == pytest.approx(two["temporal_consistency"])
    text = (run.folder / "evaluation-validation-intervals.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["interval"] for row in rows] == ["1", "2"]
    assert float(rows[1]["miou_advent"]) == two["protocols"]["advent"]["miou"]
    assert float(rows[1]["iou_road_sfc"]) == two["protocols"]["sfc"]["iou"]["road"]
    with Image.open(run.folder / "evaluation-validation-intervals.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    call(monkeypatch, run.folder, "--key-frame-intervals", 1)
    table = capsys.readouterr().out
    assert "key-frame intervals, 2 clips" in table
    assert "mIoU advent (%)" in table


def test_without_json_a_table_names_every_class(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny(steps=1)
    capsys.readouterr()
    call(monkeypatch, run.folder, "--device", "cpu")
    table = capsys.readouterr().out
    for phrase in (
        *run.recipe.source.label_space.names, "validation, 2 clips", "mIoU", "sfc", "advent", "temporal consistency",
    ):  # fmt: skip
        assert phrase in table


def test_a_second_evaluation_replaces_the_first(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train_tiny(steps=1)
    (run.folder / "evaluation-validation.json").write_text("old")
    (run.folder / "evaluation-validation.png").write_text("old")
    call(monkeypatch, run.folder)
    assert json.loads((run.folder / "evaluation-validation.json").read_text(encoding="utf-8"))
    with Image.open(run.folder / "evaluation-validation.png") as picture:
        picture.load()


def test_the_embedded_world_is_another_data_set(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[World] = []
    real_open = World.open

    def open_two(world: World) -> Dataset[LabelledClip]:
        opened.append(world)
        return real_open(replace(world, num_clips=2))

    monkeypatch.setattr(World, "open", open_two)
    run = train_tiny(steps=1)
    opened.clear()
    capsys.readouterr()
    call(monkeypatch, run.folder, "--dataset", "world", "--json")
    assert json.loads(capsys.readouterr().out)["dataset"] == "world"
    assert {(world.split, world.look) for world in opened} == {("val", "source")}
    assert {path.name for path in run.folder.glob("evaluation-*")} == {
        name.replace("validation", "world") for name in WRITTEN
    }


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame with labels, and those around it, in the layouts of VIPER and Cityscapes, and two of SYNTHIA."""
    root = tmp_path_factory.mktemp("layouts")
    for layout in ("viper", "cityscapes", "synthia"):
        for _ in write_layout(root / layout, layout, [Videos(1, (64, 64), "source", "val", 0)]):
            pass
    for path in (root / "viper/val/cls").glob("*/*.png"):
        if not path.name.endswith("_00010.png"):
            path.unlink()
    for path in (root / "synthia/GT/LABELS/Stereo_Left/Omni_F").glob("*.png"):
        if path.name != "000007.png":
            path.unlink()
    return root


@pytest.fixture
def synthia_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on the embedded world are of the other benchmark."""
    monkeypatch.setattr(World, "label_space", SYNTHIA_TO_CITYSCAPES)


@pytest.mark.parametrize("dataset", ["viper", "cityscapes"])
def test_data_sets_on_disk_are_read_from_their_root(
    dataset: str,
    layouts: Path,
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    call(monkeypatch, run.folder, "--dataset", dataset, "--root", layouts / dataset, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["dataset"] == dataset
    assert list(figures["protocols"]["sfc"]["iou"]) == list(run.recipe.source.label_space.names)
    assert {path.name for path in run.folder.glob("evaluation-*")} == {
        name.replace("validation", dataset) for name in WRITTEN
    }


@pytest.mark.usefixtures("synthia_classes")
@pytest.mark.parametrize("dataset", ["synthia", "cityscapes"])
def test_a_run_of_the_other_benchmark_is_evaluated_on_its_classes(
    dataset: str,
    layouts: Path,
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    call(monkeypatch, run.folder, "--dataset", dataset, "--root", layouts / dataset, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["classes"] == list(SYNTHIA_TO_CITYSCAPES.names)
    assert figures["evaluated"] == [name for name in SYNTHIA_TO_CITYSCAPES.names if name != "fence"]


@pytest.fixture
def own_videos(tmp_path: Path) -> tuple[object, ...]:
    """Options that name a video of three frames, of which one has labels: road above, car below."""
    frames, labels = tmp_path / "videos" / "ride", tmp_path / "labels" / "ride"
    frames.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (80, 70), (40 * number, 90, 120)).save(frames / f"frame_{number}.png")
    ids = np.zeros((70, 80), np.uint8)
    ids[35:] = 7
    Image.fromarray(ids).save(labels / "frame_1.png")
    (tmp_path / "map.json").write_text('{"0": "road", "7": "car"}')
    root = ("--dataset", "videos", "--root", tmp_path / "videos")
    return (*root, "--labels", tmp_path / "labels", "--label-map", tmp_path / "map.json")


def test_videos_of_ones_own_are_evaluated_where_they_have_labels(
    own_videos: tuple[object, ...],
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    call(monkeypatch, run.folder, *own_videos, "--json")
    figures = json.loads(capsys.readouterr().out)
    assert figures["num_clips"] == 1
    counts = np.array(figures["protocols"]["sfc"]["confusion"])
    names = figures["classes"]
    height, width = run.recipe.validation.data.size
    rows = {name: int(counts[index].sum()) for index, name in enumerate(names) if counts[index].any()}
    assert rows == {"road": height * width // 2, "car": height * width // 2}


def test_a_run_that_was_validated_without_labels_is_evaluated_elsewhere(
    tiny_recipe: Recipe, tmp_path: Path, refused: Callable[..., str]
) -> None:
    validation = ConfidenceValidation(data=VideoFolder(tmp_path))
    run = untrained(tmp_path / "run", replace(tiny_recipe, validation=validation)).folder
    assert "was validated on videos without labels: choose a --dataset that has some" in refused(run)


def test_labels_are_for_videos_alone_and_both_options_go_together(
    own_videos: tuple[object, ...],
    tiny_recipe: Recipe,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe).folder

    assert "give --labels DIR and --label-map FILE" in refused(run, *own_videos[:-2])
    assert "--dataset world brings its labels" in refused(run, "--dataset", "world", *own_videos[4:])
    assert "--dataset videos lies in a folder" in refused(run, "--dataset", "videos", *own_videos[4:])


def test_mistakes_are_one_sentence_and_status_2(
    layouts: Path,
    tiny_recipe: Recipe,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe).folder

    assert "there is no run at" in refused(tmp_path / "nowhere")
    assert "there is no run at" in refused(run / "last.pt")
    assert "there is no device 'abacus'" in refused(run, "--device", "abacus")
    for dataset in ("viper", "cityscapes"):
        assert str(tmp_path / "nowhere") in refused(run, "--dataset", dataset, "--root", tmp_path / "nowhere")
        assert str(tmp_path) in refused(run, "--dataset", dataset, "--root", tmp_path)
        assert f"--dataset {dataset} lies in a folder: give --root DIR" in refused(run, "--dataset", dataset)
    assert "--dataset world has no folder: leave out --root" in refused(run, "--dataset", "world", "--root", tmp_path)
    sentence = refused(run, "--dataset", "synthia", "--root", layouts / "synthia")
    assert "the classes of synthia-to-cityscapes, the run was trained on those of viper-to-cityscapes" in sentence
    assert "interval of 0 does not exist" in refused(run, "--key-frame-intervals", 0, 2)
    cityscapes = ("--dataset", "cityscapes", "--root", layouts / "cityscapes")
    sentence = refused(run, *cityscapes, "--key-frame-intervals", 1, 19)  # 19 frames come before the labelled one
    assert "key-frame interval 19 takes clips of 21 frames, which these data do not have" in sentence
    assert "choose smaller --key-frame-intervals" in sentence


def damaged_checkpoint(run: Run) -> None:
    path = run.folder / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])


def no_checkpoint(run: Run) -> None:
    (run.folder / "last.pt").unlink()


def other_network(run: Run) -> None:
    networks = {"segmenter": {"weight": torch.zeros(1)}}
    save_checkpoint(run.folder / "last.pt", {"step": 0, "measures": {}, "networks": networks})


def no_network(run: Run) -> None:
    save_checkpoint(run.folder / "last.pt", {"step": 0, "measures": {}, "networks": {}})


def damaged_recipe(run: Run) -> None:
    (run.folder / "run.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damaged_checkpoint, "is not a readable checkpoint"),
        (no_checkpoint, "there is no checkpoint"),
        (other_network, "does not fit PerFrame"),
        (no_network, "has no network 'segmenter'"),
        (damaged_recipe, "run.json cannot be read"),
    ],
)
def test_a_damaged_run_is_told(
    damage: Callable[[Run], None],
    sentence: str,
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    damage(run)
    assert sentence in refusal(monkeypatch, capsys, tmp_path, run.folder)


def test_a_run_without_a_segmenter_is_refused(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = WorldFlow(size=(64, 64), num_clips=1)
    method: Any = FlowSupervision(flow_net=FlowNetSConfig(width=0.25))  # Any: of another kind of clips
    recipe = replace(tiny_recipe, method=method, source=flow, validation=FlowValidation(data=flow))
    run = untrained(tmp_path / "run", recipe)
    assert "trained no segmenter" in refusal(monkeypatch, capsys, tmp_path, run.folder)


def test_clips_of_one_frame_have_no_consistency(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = SegmentationValidation(data=replace(WORLD, num_frames=1))
    run = untrained(tmp_path / "run", replace(tiny_recipe, validation=validation))
    assert "use data with at least 2 num_frames" in refusal(monkeypatch, capsys, tmp_path, run.folder)


def test_a_folder_that_cannot_be_written_is_named(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained(tmp_path / "run", tiny_recipe)
    (run.folder / "evaluation-validation.png").mkdir()
    assert "run cannot be written" in refusal(monkeypatch, capsys, tmp_path, run.folder)
