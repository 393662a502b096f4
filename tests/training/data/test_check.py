"""Spoils data sets of the procedural street in all ways that are known, and looks whether the check says so."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training.data import check
from training.data.world.layouts import Videos, write_layout

SIZE = (32, 64)
VIPER = ("viper", "--size", "32", "64")


def written(root: Path, layout: str) -> Path:
    for _ in write_layout(root, layout, [Videos(1, SIZE, "source", "train", seed=0)]):
        pass
    return root


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    return {layout: written(root / layout, layout) for layout in ("viper", "cityscapes", "synthia")}


@pytest.fixture
def viper(sound: dict[str, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(sound["viper"], tmp_path / "viper")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run_it(*arguments: object) -> tuple[int, str]:
        """Exit status, and what was written to stdout and stderr."""
        monkeypatch.setattr(sys, "argv", ["check", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            check.main()
        assert isinstance(exit_info.value.code, int)
        written = capsys.readouterr()
        return exit_info.value.code, written.out + written.err

    return run_it


def found(run: Any, *arguments: object) -> dict[str, Any]:
    """The JSON of a check that finds problems."""
    status, text = run(*arguments, "--json")
    document: dict[str, Any] = json.loads(text)
    assert status == (0 if document["is_sound"] else 1)
    return document


def problems(run: Any, *arguments: object) -> list[tuple[str, str]]:
    return [(problem["kind"], problem["sentence"]) for problem in found(run, *arguments)["problems"]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def save(path: Path, ids: NDArray[np.uint8]) -> None:
    Image.fromarray(ids).save(path)


@pytest.mark.parametrize(("layout", "frames", "labels"), [("viper", 20, 20), ("cityscapes", 3, 1), ("synthia", 30, 30)])
def test_data_sets_of_the_world_are_sound(
    run: Any, sound: dict[str, Path], layout: str, frames: int, labels: int
) -> None:
    document = found(run, layout, "--root", sound[layout], "--size", 32, 64)
    assert document["is_sound"]
    assert (document["num_videos"], document["num_frames"], document["num_labels"]) == (1, frames, labels)
    assert document["frame_sizes"] == {"64x32": frames}
    assert sum(document["class_percent"].values()) + document["ignored_percent"] == pytest.approx(100)


def test_class_shares_are_those_of_the_label_files(run: Any, viper: Path) -> None:
    for number in range(1, 21):
        ids = np.full(SIZE, 3, np.uint8)  # road
        ids[:8], ids[8:12] = 2, 5  # a quarter is sky, an eighth rail track, which is not trained
        save(viper / f"train/cls/001/001_{number:05}.png", ids)
    document = found(run, *VIPER, "--root", viper)
    shares = {name: share for name, share in document["class_percent"].items() if share}
    assert shares == {"road": 62.5, "sky": 25.0}
    assert document["ignored_percent"] == 12.5
    assert document["is_sound"]


def test_a_table_is_shown_to_people(run: Any, sound: dict[str, Path]) -> None:
    status, text = run(*VIPER, "--root", sound["viper"])
    assert status == 0
    assert "20 of 64x32" in text
    assert "road" in text
    assert "sound: nothing was found" in text


def test_all_problems_are_found_in_one_pass(run: Any, viper: Path) -> None:
    images, classes = viper / "train/img/001", viper / "train/cls/001"
    (images / "001_00005.jpg").unlink()
    (classes / "001_00006.png").unlink()
    cut(images / "001_00008.jpg")
    cut(classes / "001_00009.png")
    (images / "001_00010.jpg").write_bytes(b"no image")
    save(classes / "001_00012.png", np.full((16, 32), 3, np.uint8))
    save(classes / "001_00013.png", np.where(np.arange(64) < 16, 77, 3).astype(np.uint8) * np.ones(SIZE, np.uint8))
    save(classes / "001_00014.png", np.zeros((*SIZE, 3), np.uint8))
    said = problems(run, *VIPER, "--root", viper)
    assert [(kind, sentence.split(" ")[0].rpartition("/")[2]) for kind, sentence in said] == [
        ("missing file", "001_00005.jpg"),
        ("missing file", "001_00006.png"),
        ("unreadable image", "001_00008.jpg"),
        ("unreadable image", "001_00010.jpg"),
        ("unreadable image", "001_00009.png"),
        ("label of another size", "001_00012.png"),
        ("unknown ids", "001_00013.png"),
        ("unreadable label", "001_00014.png"),
    ]
    by_kind = dict(said)
    assert by_kind["missing file"].endswith("copy all frames of VIPER and their labels, or give --previous-labels"
                                            " False if only every tenth has some")  # fmt: skip
    assert "is 32x16, its frame is 64x32" in by_kind["label of another size"]
    assert "(77; 25.0 % of it): use the label files as they were published" in by_kind["unknown ids"]
    assert "give the id images, not coloured ones" in by_kind["unreadable label"]


def test_damage_in_the_middle_of_a_file_is_found_where_pixels_are_read(run: Any, viper: Path) -> None:
    path = viper / "train/cls/001/001_00020.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:8] = b""
    begin = content.index(b"IDAT") + 20
    content[begin : begin + 40] = bytes(40)
    path.write_bytes(bytes(content))
    kinds = [kind for kind, _ in problems(run, *VIPER, "--root", viper)]
    assert kinds == ["unreadable label"]


def test_many_problems_of_a_kind_are_counted_and_some_shown(run: Any, viper: Path) -> None:
    for number in range(5, 15):
        (viper / f"train/img/001/001_{number:05}.jpg").unlink()
    status, text = run(*VIPER, "--root", viper)
    assert status == 1
    assert "missing file (10):" in text
    assert text.count(" is missing: copy") == check.NUM_SHOWN
    assert "and 5 more: --json lists all" in text


def test_train_ids_in_place_of_ids_of_cityscapes_are_noticed(run: Any, sound: dict[str, Path], tmp_path: Path) -> None:
    root = shutil.copytree(sound["cityscapes"], tmp_path / "cityscapes")
    (path,) = root.glob("gtFine/train/*/*")
    save(path, np.full(SIZE, 255, np.uint8))
    ((kind, sentence),) = problems(run, "cityscapes", "--root", root, "--size", 32, 64)
    assert kind == "unknown ids"
    assert "(255; 100.0 % of it)" in sentence
    assert "must hold the ids of gtFine, not train ids" in sentence


def test_labels_without_any_class_are_noticed(run: Any, viper: Path) -> None:
    for path in viper.glob("train/cls/*/*.png"):
        save(path, np.zeros(SIZE, np.uint8))
    ((kind, sentence),) = problems(run, *VIPER, "--root", viper)
    assert kind == "no class"
    assert "no label of the 19 clips that were decoded has a class" in sentence


def test_missing_neighbours_of_a_list_are_named(run: Any, viper: Path) -> None:
    (viper / "train/img/001/001_00009.jpg").unlink()
    said = problems(run, *VIPER, "--root", viper, "--frame-list", viper / "viper_list/train.txt")
    assert [sentence.split(": ")[0].rpartition("/")[2] for _, sentence in said] == ["001_00009.jpg is missing"]


@pytest.mark.parametrize("lines", ["", "\n\n"])
def test_an_empty_list_is_a_problem(run: Any, sound: dict[str, Path], tmp_path: Path, lines: str) -> None:
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    ((kind, sentence),) = problems(run, *VIPER, "--root", sound["viper"], "--frame-list", tmp_path / "list.txt")
    assert kind == "nothing to train on"
    assert "is empty: give another --frame-list" in sentence


def test_a_sample_decodes_fewer_clips_and_looks_at_all_headers(run: Any, viper: Path) -> None:
    save(viper / "train/cls/001/001_00012.png", np.full((16, 32), 3, np.uint8))
    document = found(run, *VIPER, "--root", viper, "--sample", 3)
    assert document["num_read"] == 3
    assert [problem["kind"] for problem in document["problems"]] == ["label of another size"]


def test_a_preview_shows_frames_and_labels_although_some_are_damaged(run: Any, viper: Path, tmp_path: Path) -> None:
    cut(viper / "train/img/001/001_00002.jpg")
    status, _ = run(*VIPER, "--root", viper, "--preview", tmp_path / "new/preview.png")
    assert status == 1
    with Image.open(tmp_path / "new/preview.png") as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 24) or []}
    assert {(128, 64, 128), (70, 130, 180)} <= colors  # road and sky


def test_videos_of_one_s_own_are_inspected(run: Any, sound: dict[str, Path], tmp_path: Path) -> None:
    frames = shutil.copytree(sound["viper"] / "train/img", tmp_path / "frames")
    labels = shutil.copytree(sound["viper"] / "train/cls", tmp_path / "labels")
    names = dict.fromkeys(map(str, range(32)), "ignore") | {"3": "road", "24": "car"}
    (tmp_path / "map.json").write_text(json.dumps(names), encoding="utf-8")
    folder = ("video-folder", "--root", frames, "--size", 32, 64)
    assert found(run, *folder)["class_percent"] == {}
    labelled = (*folder, "--labels", labels, "--label-map", tmp_path / "map.json")
    document = found(run, *labelled)
    assert document["is_sound"]
    assert document["num_labels"] == 18
    assert {name for name, share in document["class_percent"].items() if share} == {"road", "car"}
    del names["2"]
    (tmp_path / "map.json").write_text(json.dumps(names), encoding="utf-8")
    said = problems(run, *labelled)
    assert {kind for kind, _ in said} == {"unknown ids"}
    assert said[0][1].endswith(f"name them in {tmp_path / 'map.json'}")


def test_a_video_that_ends_early_is_noticed(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "ride.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 32))
    for number in range(40):
        writer.write(np.random.default_rng(number).integers(0, 255, (32, 64, 3), np.uint8))
    writer.release()
    assert found(run, "video-folder", "--root", tmp_path)["num_frames"] == 40
    cut(path)
    ((kind, sentence),) = problems(run, "video-folder", "--root", tmp_path)
    assert kind == "truncated video"
    assert "ride.avi announces 40 frames and has " in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("viper", "--root", "nowhere"), "there is no folder nowhere: point --root at"),
        (("viper", "--root", ".", "--frame-list", "none.txt"), "there is no file none.txt: mend --frame-list"),
        (("viper", "--root", ".", "--sample", "0"), "--sample is 0: decode at least 1"),
        (("viper", "--root", ".", "--preview", "picture.txt"), "picture.txt is no .png"),
        (("viper", "--root", ".", "--size", "30", "64"), "multiples of 4"),
        (("video-folder", "--root", ".", "--labels", "."), "give both --labels and --label-map, or neither"),
        (("kitti", "--root", "."), "kitti"),
        (("viper",), "--root"),
    ],
)
def test_a_wrong_call_exits_with_2(run: Any, arguments: tuple[str, ...], sentence: str) -> None:
    status, text = run(*arguments)
    assert status == 2
    assert sentence in " ".join(text.split())
