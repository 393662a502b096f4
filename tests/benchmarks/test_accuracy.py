import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy
from benchmarks.accuracy_report import Share, key_share_for, savings
from benchmarks.street_videos import render_video
from benchmarks.untrained_bundles import parse_architecture, untrained_bundle
from serving.bundle import Bundle
from training.label_spaces import VIPER_TO_CITYSCAPES

SIZE = (64, 64)
NUM_FRAMES = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    name, config = parse_architecture("resnet10_slim/resnet10_slim")
    return untrained_bundle(tmp_path_factory.mktemp("bundles"), name, config, SIZE, "fp32")


def call(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, out: Path, *arguments: object) -> None:
    always = ["--intervals", "1,2,4", "--staleness", "0.01,1000", "--runtime", "onnxruntime", "--out", out]
    monkeypatch.setattr(sys, "argv", ["accuracy", str(bundle.folder), *map(str, always), *map(str, arguments)])
    accuracy.main()


def world(*arguments: object) -> list[object]:
    return ["--seeds", "3,4", "--num-videos", 1, "--num-frames", NUM_FRAMES, *arguments]


@pytest.fixture(scope="module")
def of_the_world(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("accuracy") / "new"
    with pytest.MonkeyPatch.context() as patch:
        call(patch, bundle, out, *world())
    return out


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "accuracy.json").read_text(encoding="utf-8"))
    return report


def test_every_kind_of_video_has_the_points_of_every_policy(of_the_world: Path) -> None:
    assert sorted(path.name for path in of_the_world.iterdir()) == ["accuracy.json", "accuracy.md", "accuracy.png"]
    report = report_of(of_the_world)
    assert list(report["groups"]) == ["steady", "stop-and-go", "cuts", "lively"]
    for measured in report["groups"].values():
        assert measured["frames"] == 2 * NUM_FRAMES
        assert list(measured["parts"]) == ["seed 3", "seed 4"]
        policies = [(point["policy"], point["setting"]) for point in measured["points"]]
        fixed = [(kind, interval) for kind in ("fixed", "cuts") for interval in (1, 2, 4)]
        assert policies == [*fixed, ("adaptive", 0.01), ("adaptive", 1000)]


def test_a_policy_spends_the_key_frames_that_it_says(of_the_world: Path) -> None:
    """Of twelve frames: all, every second, every fourth; every second as well where nothing may go stale."""
    points = report_of(of_the_world)["groups"]["steady"]["points"]
    shares = {(point["policy"], point["setting"]): point["key_share"] for point in points}
    for interval, share in ((1, 100), (2, 50), (4, 25)):
        assert shares["fixed", interval] == share
    assert shares["adaptive", 0.01] >= 50
    assert shares["adaptive", 1000] <= 50


def test_parts_add_up(of_the_world: Path) -> None:
    """Key shares are means over parts of equal length; mean IoU is of the sum of all confusions."""
    for measured in report_of(of_the_world)["groups"].values():
        for place, point in enumerate(measured["points"]):
            shares = [part[place]["key_share"] for part in measured["parts"].values()]
            assert point["key_share"] == pytest.approx(np.mean(shares))
            assert 0 < point["miou"] < 100


def test_a_folder_of_videos_is_read_like_the_world_that_it_was_written_from(
    bundle: Bundle, of_the_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("videos", "labels"):
        for seed in (3, 4):
            (tmp_path / folder / f"drive_{seed}").mkdir(parents=True)
    for seed in (3, 4):
        video = render_video(seed, 0, "steady", "target", SIZE, NUM_FRAMES)
        for number, (frame, labels) in enumerate(zip(video.frames, video.labels, strict=True)):
            name = Path(f"drive_{seed}") / f"frame_{number:03}.png"
            Image.fromarray(frame).save(tmp_path / "videos" / name)
            Image.fromarray(np.where(labels < 0, 255, labels).astype(np.uint8)).save(tmp_path / "labels" / name)
    ids = {str(label): name for label, name in enumerate(VIPER_TO_CITYSCAPES.names)} | {"255": "ignore"}
    (tmp_path / "map.json").write_text(json.dumps(ids))
    labels = ["--labels", tmp_path / "labels", "--label-map", tmp_path / "map.json"]
    call(monkeypatch, bundle, tmp_path / "out", "--videos", tmp_path / "videos", *labels)
    (found,) = report_of(tmp_path / "out")["groups"].values()
    expected = report_of(of_the_world)["groups"]["steady"]
    assert list(found["parts"]) == ["drive_3/frame", "drive_4/frame"]
    for of_folder, of_world in zip(found["points"], expected["points"], strict=True):
        assert of_folder["key_share"] == of_world["key_share"]
        assert of_folder["miou"] == pytest.approx(of_world["miou"], abs=0.01)

    # Frames without a label are streamed, and count for nothing but key frames.
    for path in sorted((tmp_path / "labels").glob("*/*.png"))[::2]:
        path.unlink()
    call(monkeypatch, bundle, tmp_path / "half", "--videos", tmp_path / "videos", *labels)
    (half,) = report_of(tmp_path / "half")["groups"].values()
    assert half["frames"] == 2 * NUM_FRAMES
    assert [point["key_share"] for point in half["points"]] == [point["key_share"] for point in found["points"]]
    assert [point["miou"] for point in half["points"]] != [point["miou"] for point in found["points"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--intervals", "1,x"], "--intervals '1,x' is no list of whole numbers: write for instance 1,2,5"),
        (["--intervals", "0,2"], "the key-frame interval is 0: it must be 1 or more frames"),
        (["--staleness", "much"], "--staleness 'much' is no list of numbers"),
        (["--staleness", "-1"], "the staleness is -1.0: it must be more than 0 and finite"),
        (["--min-interval", "9", "--max-interval", "8"], "the largest key-frame interval is 8"),
        (["--intervals", ",".join(map(str, range(1, 40)))], "that is 80 policies: choose at most 64"),
        (["--videos", "nowhere"], "videos are judged where they have labels: give --labels DIR and --label-map FILE"),
        (["--labels", "nowhere"], "the world brings its labels: leave out --labels and --label-map"),
        (["--look", "night"], "the world has no look 'night': choose one of"),
        (["--num-frames", "0"], "--num-frames must be at least 1"),
        (["--size", "32x32"], "'fp32 32x32' picks 0 of them"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, bundle, tmp_path / "out", *arguments)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("benchmarks.accuracy.stream_all", None)
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, bundle, tmp_path / "file" / "out", *world())
    assert stopped.value.code == 2
    assert "cannot be written (Not a directory): choose another --out" in capsys.readouterr().err


# What is read off the points


def points(policy: str, *curve: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"policy": policy, "setting": place, "key_share": share, "miou": miou}
        for place, (share, miou) in enumerate(curve, 1)
    ]


@pytest.mark.parametrize(
    ("miou", "share"),
    [
        (45.0, Share(25.0, False)),  # halfway from 20 to 30 percent of key frames
        (50.0, Share(30.0, False)),
        (40.0, Share(20.0, False)),
        (30.0, Share(10.0, True)),  # the cheapest has as much
        (20.0, Share(10.0, True)),
        (51.0, None),
    ],
)
def test_key_frames_for_a_mean_iou_are_read_off_the_line_through_the_points(miou: float, share: Share | None) -> None:
    curve = points("adaptive", (30.0, 50.0), (10.0, 30.0), (20.0, 40.0))
    assert key_share_for(curve, "adaptive", miou) == share
    assert key_share_for(curve, "cuts", miou) is None


def test_a_curve_that_falls_again_counts_from_where_it_stays() -> None:
    assert key_share_for(points("cuts", (10.0, 45.0), (20.0, 40.0), (30.0, 50.0)), "cuts", 45.0) == Share(25.0, False)


def test_savings_known_by_hand() -> None:
    fixed, adaptive = points("fixed", (100.0, 50.0), (50.0, 45.0)), points("adaptive", (20.0, 40.0), (40.0, 50.0))
    worse = points("fixed", (100.0, 60.0), (50.0, 40.0)) + adaptive
    first, second = savings(fixed + adaptive, [fixed + adaptive, worse])
    assert (first["interval"], first["miou"], first["key_share"]) == (1, 50.0, 100.0)
    assert first["adaptive"] == {"all": 40.0, "is_bound": False, "lowest": 40.0, "highest": None}  # one part never
    assert second["adaptive"] == {"all": 60.0, "is_bound": False, "lowest": 40.0, "highest": 60.0}
    assert second["cuts"] == {"all": None, "is_bound": False, "lowest": None, "highest": None}
