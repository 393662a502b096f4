from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.baseline import CLIP_FRAMES, KEY_FRAME_INTERVAL, _open, measure_baseline
from serving.bundle import SIGNALS, Bundle, read_bundle
from tests.export.conftest import Exported
from tests.serving.conftest import SIZE, toy_frame, write_toy_bundle
from training.data import VideoFolder, World
from training.data.world.dataset import LabelledWorld


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read_bundle(write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy"))


def write_video(folder: Path, values: range) -> VideoFolder:
    folder.mkdir()
    for number, value in enumerate(values):
        Image.fromarray(toy_frame(value)).save(folder / f"{number:03}.png")
    return VideoFolder(folder)


def test_a_baseline_known_by_hand(toy: Bundle, tmp_path: Path) -> None:
    """The toy's signals are those of the frame before, the key frame, the frame itself, and its change."""
    rising = write_video(tmp_path / "rising", range(10, 21))
    still = write_video(tmp_path / "still", range(0, 44, 4))
    baseline = measure_baseline(toy, toy.manifest.variants[0], rising, still)
    assert baseline.key_frame_interval == KEY_FRAME_INTERVAL == 5
    assert baseline.measured_on.startswith(f"fp32 {SIZE}x{SIZE}, ")
    source = baseline.domains["source"]
    assert (source.frames, source.clip_frames) == (10, 11)
    # Frames 1 to 5 have frame 0 for a key frame, frames 6 to 10 have frame 5.
    means = {"mean_confidence": 14.5, "disagreement": 12.5, "mean_entropy": 15.5, "warp_residual": 1}
    stds = {
        "mean_confidence": np.std(range(10)),
        "disagreement": 2.5,
        "mean_entropy": np.std(range(10)),
        "warp_residual": 0,
    }
    for name in SIGNALS:
        assert 256 * source.signals[name].mean == pytest.approx(means[name])
        assert 256 * source.signals[name].std == pytest.approx(stds[name])
    assert 256 * baseline.domains["target"].signals["warp_residual"].mean == pytest.approx(4)


def test_a_domain_that_is_not_at_hand_is_left_out(toy: Bundle, tmp_path: Path) -> None:
    rising = write_video(tmp_path / "rising", range(10, 21))
    variant = toy.manifest.variants[0]
    assert list(measure_baseline(toy, variant, VideoFolder(tmp_path / "absent"), rising).domains) == ["target"]
    assert measure_baseline(toy, variant, *[VideoFolder(tmp_path / "absent")] * 2).domains == {}


def test_short_videos_are_measured_as_they_are(toy: Bundle, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short", range(10, 14))
    source = measure_baseline(toy, toy.manifest.variants[0], short, short).domains["source"]
    assert source.clip_frames == VideoFolder.num_frames < CLIP_FRAMES
    assert source.frames == 2 * 2  # of two clips of three frames


def test_of_a_data_set_with_a_held_out_split_that_one_is_measured() -> None:
    world = _open(World(look="mid", split="train", num_clips=1000), (64, 128))
    assert isinstance(world, LabelledWorld)
    config = world.clips.config
    assert (config.look, config.split, config.size, config.num_frames) == ("mid", "val", (64, 128), CLIP_FRAMES)
    assert not world.clips.kept


def test_an_exported_bundle_has_a_baseline_of_both_domains(exported: Exported) -> None:
    baseline = exported.bundle.manifest.baseline
    assert baseline is not None
    assert baseline.measured_on.startswith("fp32 64x64, ")
    assert set(baseline.domains) == {"source", "target"}
    for domain in baseline.domains.values():
        assert domain.frames == 2 * (CLIP_FRAMES - 1)
        for name, signal in domain.signals.items():
            assert 0 <= signal.mean <= 1, name
        assert domain.signals["warp_residual"].mean > 0.005  # the world moves
