import json
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from training.data import VideoFolder
from training.data.clip import IGNORE, Clip
from training.data.unlabelled import Unlabelled
from training.data.video_decoding import VideoFrame
from training.label_spaces import SYNTHIA_TO_CITYSCAPES, VIPER_TO_CITYSCAPES

SIZE = (8, 12)
ROAD, CAR = VIPER_TO_CITYSCAPES.names.index("road"), VIPER_TO_CITYSCAPES.names.index("car")


def write_frames(folder: Path, names: Sequence[str]) -> None:
    """Grey images, each brighter than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        Image.fromarray(np.full((*SIZE, 3), place, np.uint8)).save(folder / name)


def write_label(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE, number, np.uint8)).save(path)


def write_video(path: Path, num_frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (SIZE[1] * 8, 64))
    for number in range(num_frames):
        writer.write(np.full((64, SIZE[1] * 8, 3), 10 * number, np.uint8))
    writer.release()


def write_map(path: Path, **classes: str | None) -> Path:
    path.write_text(json.dumps({key.removeprefix("id"): value for key, value in classes.items()}), encoding="utf-8")
    return path


def last_frames(config: VideoFolder) -> list[str]:
    frames = [clip.frames[-1] for clip in config.find().clips]
    return [f"{frame.video.name}:{frame.number}" if isinstance(frame, VideoFrame) else frame.name for frame in frames]


def test_images_are_clips_of_consecutive_numbers_that_do_not_reach_across_a_gap(tmp_path: Path) -> None:
    write_frames(tmp_path / "ride", [f"frame_{number}.png" for number in (8, 9, 10, 11, 20, 21)])
    assert last_frames(VideoFolder(tmp_path, SIZE)) == ["frame_10.png", "frame_11.png"]
    dataset = VideoFolder(tmp_path, SIZE).open()
    values = [(dataset[index].frames[:, 0, 0, 0] * 255).round().tolist() for index in range(2)]
    assert values == [[0, 1, 2], [1, 2, 3]]


def test_the_number_of_a_frame_is_the_last_one_that_changes(tmp_path: Path) -> None:
    names = [f"lindau_00000{snippet}_{number:06}_leftImg8bit.png" for snippet in (0, 1) for number in (18, 19, 20)]
    write_frames(tmp_path / "lindau", names)
    clips = VideoFolder(tmp_path, SIZE).find().clips
    assert [clip.video for clip in clips] == ["lindau/lindau_000000", "lindau/lindau_000001"]
    assert last_frames(VideoFolder(tmp_path, SIZE)) == [names[2], names[5]]


def test_folders_are_searched_in_order_and_hidden_or_unnumbered_files_left_out(tmp_path: Path) -> None:
    for folder in ("b/deep", "a"):
        write_frames(tmp_path / folder, ["1.jpg", "2.jpg", "poster.jpg"])
    write_frames(tmp_path / ".trash", ["1.jpg", "2.jpg"])
    (tmp_path / "a/._3.jpg").write_bytes(b"left by another system")
    (tmp_path / "b/circle").symlink_to(tmp_path)
    clips = VideoFolder(tmp_path, SIZE, num_frames=2).find().clips
    assert [clip.video for clip in clips] == ["a", "b/deep"]


def test_every_stride_th_clip_is_taken(tmp_path: Path) -> None:
    write_frames(tmp_path, [f"{number:03}.png" for number in range(10)])
    assert last_frames(VideoFolder(tmp_path, SIZE, num_frames=2, stride=4)) == ["001.png", "005.png", "009.png"]


def test_video_files_and_images_may_lie_side_by_side(tmp_path: Path) -> None:
    write_frames(tmp_path / "stills", ["1.png", "2.png"])
    write_video(tmp_path / "ride.AVI", 3)
    assert last_frames(VideoFolder(tmp_path, SIZE, num_frames=2)) == ["2.png", "ride.AVI:1", "ride.AVI:2"]
    clip = VideoFolder(tmp_path, SIZE, num_frames=2).open()[2]
    assert clip.frames.shape == (2, 3, *SIZE)
    assert torch.allclose(clip.frames * 255, torch.tensor([10.0, 20.0]).view(2, 1, 1, 1), atol=3)


def test_without_labels_all_is_ignored_and_training_gets_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, ["1.png", "2.png", "3.png"])
    dataset = VideoFolder(tmp_path, SIZE).open()
    assert (dataset[0].labels == IGNORE).all()
    assert (dataset[0].quarter_labels == IGNORE).all()
    assert isinstance(Unlabelled(dataset)[0], Clip)


def test_only_clips_that_end_on_a_label_count_and_the_map_names_its_ids(tmp_path: Path) -> None:
    write_frames(tmp_path / "video/ride", [f"{number:02}.jpg" for number in range(8)])
    for number, label in ((1, 7), (4, 7), (6, 200)):  # frame 1 has too few before it
        write_label(tmp_path / f"truth/ride/{number:02}.png", label)
    config = VideoFolder(
        tmp_path / "video",
        SIZE,
        labels=tmp_path / "truth",
        label_map=write_map(tmp_path / "map.json", id7="road", id200="car", id9=None, id255="ignore"),
    )
    assert last_frames(config) == ["04.jpg", "06.jpg"]
    dataset = config.open()
    assert (dataset[0].labels[:2] == IGNORE).all()
    assert (dataset[0].labels[2] == ROAD).all()
    assert (dataset[1].quarter_labels == CAR).all()
    assert last_frames(VideoFolder(config.root, SIZE, 3, 2, config.labels, config.label_map)) == ["04.jpg"]


def test_labels_of_a_video_file_are_called_like_the_numbers_of_its_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "ride.avi", 6)
    Path(tmp_path / "labels/ride").mkdir(parents=True)
    for number in (1, 4):
        Image.fromarray(np.full((64, 96), 3, np.uint8)).save(tmp_path / f"labels/ride/{number:06}.png")
    config = VideoFolder(  # labels below the root are no frames
        tmp_path, SIZE, labels=tmp_path / "labels", label_map=write_map(tmp_path / "map.json", id3="rider"),
        classes="synthia",
    )  # fmt: skip
    assert last_frames(config) == ["ride.avi:4"]
    assert (config.open()[0].labels[2] == SYNTHIA_TO_CITYSCAPES.names.index("rider")).all()


def test_workers_read_what_this_process_reads(tmp_path: Path) -> None:
    write_video(tmp_path / "ride.avi", 9)
    dataset = VideoFolder(tmp_path, SIZE).open()
    expected = torch.stack([dataset[index].frames for index in range(7)])  # opens the file before the workers fork
    batches = DataLoader(dataset, 7, num_workers=2)
    assert torch.equal(next(iter(batches)).frames, expected)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3].frames, expected[3])


def test_a_configuration_is_a_value(tmp_path: Path) -> None:
    config = VideoFolder(tmp_path)
    assert hash(config) == hash(VideoFolder(tmp_path))
    assert pickle.loads(pickle.dumps(config)) == config
    assert config.num_classes == 15


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ((), "has no numbered images and no video file: point --root"),
        (("poster.png",), "has no numbered images and no video file"),
        (("0.png", "5.png", "10.png"), "has no 3 images with consecutive numbers.*: number the images"),
        (("1.png", "01.png", "2.png"), "have the same number: take one"),
    ],
)
def test_folders_without_clips_are_refused(names: Sequence[str], sentence: str, tmp_path: Path) -> None:
    write_frames(tmp_path / "video", names)
    with pytest.raises(ValueError, match=sentence):
        VideoFolder(tmp_path / "video", SIZE).open()


def test_labels_that_are_called_otherwise_are_refused_with_the_name_expected(tmp_path: Path) -> None:
    write_frames(tmp_path / "video", ["1.jpg", "2.jpg", "3.jpg"])
    write_label(tmp_path / "truth/3_ids.png", 7)
    label_map = write_map(tmp_path / "map.json", id7="road")
    with pytest.raises(ValueError, match=r"call labels like their frames, such as .*truth/1\.png"):
        VideoFolder(tmp_path / "video", SIZE, labels=tmp_path / "truth", label_map=label_map).open()
    shutil.rmtree(tmp_path / "truth")
    with pytest.raises(ValueError, match=r"no folder .*truth: point --labels at"):
        VideoFolder(tmp_path / "video", SIZE, labels=tmp_path / "truth", label_map=label_map).open()


def test_labels_and_their_map_go_together() -> None:
    with pytest.raises(ValueError, match="give both --labels and --label-map, or neither"):
        VideoFolder(Path("root"), labels=Path("labels"))
    with pytest.raises(ValueError, match="stride is 0"):
        VideoFolder(Path("root"), stride=0)
