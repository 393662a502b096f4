"""Writes the procedural street in the layouts of the real data sets, and reads it back with their loaders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from training.data import CityscapesSeq, SynthiaSeq, Viper
from training.data.clip import IGNORE, LabelledClip
from training.data.viper import viper_train_ids, without_ego_vehicle
from training.data.world import RenderedClip, render_clip
from training.data.world.dataset import clip_seed
from training.data.world.layouts import Videos, write_layout
from training.data.world.materials import Kind
from training.label_spaces import SYNTHIA_TO_CITYSCAPES, VIPER_TO_CITYSCAPES

SIZE = (32, 64)
IMAGES_AND_LABELS = (("img", "jpg"), ("cls", "png"))
SYNTHIA_SIZE = (76, 64)  # 64 rows are left when the lowest 120 of 760 are cut off


def written(root: Path, layout: str, size: tuple[int, int] = SIZE, num_clips: int = 1) -> Path:
    for _ in write_layout(root, layout, [Videos(num_clips, size, "source", "train", seed=0)]):
        pass
    return root


def rendered(size: tuple[int, int], num_frames: int, index: int = 0) -> RenderedClip:
    return render_clip(clip_seed(0, "train", index), "source", size, num_frames)


@pytest.fixture(scope="module")
def viper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "viper", "viper", num_clips=2)


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "cityscapes", "cityscapes")


@pytest.fixture(scope="module")
def synthia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("data") / "synthia", "synthia", SYNTHIA_SIZE)


def test_viper_reads_back_the_labels_of_both_frames(viper: Path) -> None:
    dataset = Viper(viper, size=SIZE, frame_list=viper / "viper_list" / "train.txt").open()
    truth = rendered(SIZE, 10)
    clip = dataset[0]  # frames 9 and 10 of the first sequence
    for labels, expected in zip(clip.labels.numpy(), truth.labels[8:10], strict=True):
        car_ids = np.where(expected == Kind.CAR, 24, 0)
        is_own_car = without_ego_vehicle(car_ids) != car_ids
        assert np.array_equal(labels, np.where(is_own_car, IGNORE, expected))
    assert (clip.frames[1] * 255 - torch.from_numpy(truth.frames[9]).permute(2, 0, 1)).abs().mean() < 6  # JPEG


def test_viper_derives_the_list_from_the_folder(viper: Path) -> None:
    assert len(Viper(viper, size=SIZE).open()) == 2 * 19
    listed = Viper(viper, size=SIZE, frame_list=viper / "viper_list" / "train.txt").open()
    assert len(listed) == 4


def test_viper_labels_are_indexed_images_and_frames_jpeg(viper: Path) -> None:
    with Image.open(viper / "train/cls/001/001_00010.png") as labels:
        assert labels.mode == "P"
    with Image.open(viper / "train/img/001/001_00010.jpg") as frame:
        assert frame.format == "JPEG"


def test_viper_without_previous_labels_ignores_the_earlier_frame(viper: Path) -> None:
    clip = Viper(viper, size=SIZE, previous_labels=False).open()[3]
    assert (clip.labels[0] == IGNORE).all()
    assert (clip.labels[1] != IGNORE).any()


def test_quarter_labels_are_read_from_the_label_image_itself(viper: Path) -> None:
    clip = Viper(viper, size=(24, 48), num_frames=1, frame_list=viper / "viper_list" / "train.txt").open()[0]
    with Image.open(viper / "train/cls/001/001_00010.png") as labels:
        ids = np.array(labels)
    quarter = np.array(Image.fromarray(ids).resize((12, 6), Image.Resampling.NEAREST))
    assert np.array_equal(clip.quarter_labels.numpy(), viper_train_ids(quarter))


def test_the_ego_vehicle_is_the_car_that_touches_the_middle_of_the_bottom_row() -> None:
    ids = np.array(
        [
            [24, 2, 2, 24, 2],
            [2, 24, 2, 2, 24],  # (1, 1) touches (2, 2) only by its corner, and (0, 0) touches (1, 1)
            [2, 2, 24, 2, 24],
        ]
    )
    expected = [[0, 2, 2, 24, 2], [2, 0, 2, 2, 24], [2, 2, 0, 2, 24]]
    assert without_ego_vehicle(ids).tolist() == expected
    assert viper_train_ids(ids)[2].tolist() == [8, 8, IGNORE, 8, 10]


def test_there_is_no_ego_vehicle_when_the_middle_of_the_bottom_row_is_no_car() -> None:
    ids = np.array([[24, 24, 24], [24, 3, 24]])
    assert np.array_equal(without_ego_vehicle(ids), ids)


def test_cityscapes_labels_the_last_of_three_frames_only(cityscapes: Path) -> None:
    clip = CityscapesSeq(cityscapes, size=SIZE).open()[0]
    truth = rendered(SIZE, 20)
    assert (clip.labels[:2] == IGNORE).all()
    assert np.array_equal(clip.labels[2].numpy(), truth.labels[19])
    expected = torch.from_numpy(truth.frames[17:20]).permute(0, 3, 1, 2) / 255
    assert torch.equal(clip.frames, expected)
    assert np.array_equal(clip.quarter_labels.numpy(), truth.labels[19, 2::4, 2::4])


@pytest.mark.parametrize("line", ["train_world_000000_000019\r", "world/world_000000_000019_leftImg8bit.png"])
def test_cityscapes_understands_the_lists_of_both_official_codes(cityscapes: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"{line}\n", encoding="utf-8")
    listed = CityscapesSeq(cityscapes, size=SIZE, frame_list=tmp_path / "list.txt").open()
    for one, other in zip(listed[0], CityscapesSeq(cityscapes, size=SIZE).open()[0], strict=True):
        assert torch.equal(one, other)


def test_cityscapes_takes_the_classes_of_the_synthia_benchmark(cityscapes: Path) -> None:
    config = CityscapesSeq(cityscapes, size=SIZE, num_frames=1, classes="synthia")
    kinds = rendered(SIZE, 20).kinds[19]
    expected = np.full(SIZE, IGNORE)
    for train_id, name in enumerate(SYNTHIA_TO_CITYSCAPES.names):
        expected[kinds == Kind[name.upper()]] = train_id
    assert config.num_classes == 12
    assert np.array_equal(config.open()[0].labels[0].numpy(), expected)


def test_cityscapes_snippets_have_thirty_frames_and_one_label(cityscapes: Path) -> None:
    assert len(list(cityscapes.glob("leftImg8bit_sequence/train/*/*_leftImg8bit.png"))) == 30
    labels = [path.name for path in cityscapes.glob("gtFine/train/*/*")]
    assert labels == ["world_000000_000019_gtFine_labelIds.png"]


def test_synthia_is_cropped_and_read_back(synthia: Path) -> None:
    dataset = SynthiaSeq(synthia, size=(64, 64), frame_list=synthia / "synthia_list" / "train.txt").open()
    assert len(dataset) == 29
    truth = rendered(SYNTHIA_SIZE, 2)
    clip = dataset[0]
    assert torch.equal(clip.frames, torch.from_numpy(truth.frames[:, :64]).permute(0, 3, 1, 2) / 255)
    for labels, kinds in zip(clip.labels, truth.kinds[:, :64], strict=True):
        expected = np.full((64, 64), IGNORE)
        for train_id, name in enumerate(SYNTHIA_TO_CITYSCAPES.names):
            expected[kinds == Kind[name.upper()]] = train_id
        assert np.array_equal(labels.numpy(), expected)


def test_synthia_may_lie_in_the_folders_of_da_vsn(synthia: Path, tmp_path: Path) -> None:
    (tmp_path / "rgb").symlink_to(synthia / "RGB/Stereo_Left/Omni_F")
    (tmp_path / "label").symlink_to(synthia / "GT/LABELS/Stereo_Left/Omni_F")
    one, other = (SynthiaSeq(root, size=(64, 64)).open()[4] for root in (tmp_path, synthia))
    assert torch.equal(one.labels, other.labels)


def test_clips_of_real_data_sets_are_collated(cityscapes: Path, viper: Path) -> None:
    batch = next(iter(DataLoader(Viper(viper, size=SIZE).open(), 3)))
    assert isinstance(batch, LabelledClip)
    assert batch.frames.shape == (3, 2, 3, *SIZE)
    assert batch.labels.dtype == torch.int64


def test_missing_files_are_found_when_the_data_set_is_opened(viper: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("001/001_00030.jpg\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"001_00029\.jpg is missing: copy all frames"):
        Viper(viper, size=SIZE, frame_list=tmp_path / "list.txt").open()


def test_a_gap_in_a_video_is_named_and_its_beginning_left_out(viper: Path, tmp_path: Path) -> None:
    shutil.copytree(viper, tmp_path / "viper")
    (tmp_path / "viper/train/img/001/001_00007.jpg").unlink()
    with pytest.raises(ValueError, match=r"001_00007\.jpg is missing: copy all frames"):
        Viper(tmp_path / "viper", size=SIZE).open()
    for name in (f"{folder}/001/001_{number:05}.{end}" for number in range(1, 8) for folder, end in IMAGES_AND_LABELS):
        (tmp_path / "viper/train" / name).unlink(missing_ok=True)
    assert len(Viper(tmp_path / "viper", size=SIZE).open()) == 12 + 19


def test_a_folder_of_frames_that_was_not_copied_is_missed(viper: Path, tmp_path: Path) -> None:
    shutil.copytree(viper, tmp_path / "viper")
    shutil.rmtree(tmp_path / "viper/train/img/002")
    with pytest.raises(ValueError, match=r"002_00001\.jpg is missing: copy all frames"):
        Viper(tmp_path / "viper", size=SIZE).open()


def test_frame_numbers_of_cityscapes_need_not_begin_at_zero(tmp_path: Path) -> None:
    """In Frankfurt and six other cities they count on from snippet to snippet."""
    images, labels = (tmp_path / name / "val/frankfurt" for name in ("leftImg8bit_sequence", "gtFine"))
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in range(275, 305):
        Image.fromarray(np.full((*SIZE, 3), number - 255, np.uint8)).save(
            images / f"frankfurt_000000_{number:06}_leftImg8bit.png"
        )
    Image.fromarray(np.full(SIZE, 26, np.uint8)).save(labels / "frankfurt_000000_000294_gtFine_labelIds.png")
    (tmp_path / "val.txt").write_text("val_frankfurt_000000_000294\n", encoding="utf-8")
    clip = CityscapesSeq(tmp_path, "val", size=SIZE, frame_list=tmp_path / "val.txt").open()[0]
    assert (clip.frames[:, 0, 0, 0] * 255).round().tolist() == [37, 38, 39]
    assert (clip.labels[2] == VIPER_TO_CITYSCAPES.names.index("car")).all()


@pytest.mark.parametrize("config", [Viper, CityscapesSeq, SynthiaSeq])
def test_a_missing_root_is_named(config: type[Viper | CityscapesSeq | SynthiaSeq], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*: point --root at"):
        config(tmp_path / "nowhere").open()


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    for name in ("img", "cls"):
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match="no label of a frame"):
        Viper(tmp_path).open()


@pytest.mark.parametrize("config", [Viper, CityscapesSeq, SynthiaSeq])
def test_sizes_that_have_no_quarter_are_refused(config: type[Viper | CityscapesSeq | SynthiaSeq]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        config(Path("root"), size=(30, 64))


def test_a_line_that_names_no_frame_is_refused(cityscapes: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("world_000019\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'world_000019' does not read"):
        CityscapesSeq(cityscapes, frame_list=tmp_path / "list.txt").open()
