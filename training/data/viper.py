"""VIPER: game videos with labels of every frame, the source domain of VIPER -> Cityscapes-Seq.

Richter, Hayder, Koltun: Playing for Benchmarks, ICCV 2017. Below the root: `{train,val}/img/SSS/SSS_FFFFF.jpg` and
`{train,val}/cls/SSS/SSS_FFFFF.png` (8-bit indexed images of class ids). The benchmark's lists name every tenth frame.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.labelled_videos import ClipFiles, LabelledVideosConfig, Reading, VideoData
from training.data.video_files import (
    frame_number,
    neighbours,
    read_ids,
    read_list,
    require_folder,
    require_frames,
    without_beginnings,
)
from training.label_spaces import VIPER_TO_CITYSCAPES, LabelSpace

CAR, UNLABELLED = 24, 0  # VIPER ids
OFFICIAL_IDS = range(32)


@dataclass(frozen=True)
class Viper(LabelledVideosConfig):
    """Videos of VIPER with labels."""

    root: Path  # folder that holds train/img and train/cls
    split: Literal["train", "val"] = "train"  # which videos
    size: tuple[int, int] = (720, 1280)  # height and width of the frames in pixels, multiples of 4
    num_frames: int = 2  # consecutive frames of a clip
    # lines like 001/001_00010.jpg name the last frames of clips; none: every labelled frame
    frame_list: Path | None = None
    every: int = 1  # without a list, use frames whose number is a multiple of this: the benchmark's list has every 10th
    previous_labels: bool = True  # also read the labels of the frames before; SFM pre-training needs them

    def __post_init__(self) -> None:
        """Refuses what cannot be read."""
        require_frames(size=self.size, num_frames=self.num_frames)
        if self.every < 1:
            raise ValueError(f"every is {self.every}: it must be at least 1")

    @property
    def label_space(self) -> LabelSpace:
        """The fifteen classes of VIPER -> Cityscapes."""
        return VIPER_TO_CITYSCAPES

    def find(self) -> VideoData:
        """Names the files of every clip."""
        images, classes = (self.root / self.split / name for name in ("img", "cls"))
        for folder in (images, classes):
            require_folder(folder, "the folder of VIPER that holds train/img and train/cls")
        if self.frame_list is None:
            found = (images / path.relative_to(classes).with_suffix(".jpg") for path in sorted(classes.glob("*/*.png")))
            listed = (frame for frame in found if self.every == 1 or frame_number(frame) % self.every == 0)
            last_frames = without_beginnings(listed, self.num_frames)
            if not last_frames:
                raise ValueError(
                    f"{classes} has no label of a frame that follows {self.num_frames - 1} others: copy VIPER there"
                )
        else:
            last_frames = [images / PurePosixPath(line) for line in read_list(self.frame_list)]
        clips = []
        for frame in last_frames:
            frames = neighbours(frame, self.num_frames)
            labelled = frames if self.previous_labels else frames[-1:]
            labels = (classes / path.relative_to(images).with_suffix(".png") for path in labelled)
            clips.append(ClipFiles(frame.parent.name, tuple(frames), tuple(labels)))
        remedy = (
            "copy all frames of VIPER and their labels, or give --previous-labels False if only every tenth has some"
        )
        return VideoData(tuple(clips), Reading(self.size, 0.0, read_ids, viper_train_ids, OFFICIAL_IDS), remedy)


def viper_train_ids(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Train ids (H, W) of VIPER ids that have their final size."""
    return VIPER_TO_CITYSCAPES.to_train_ids(without_ego_vehicle(ids), "viper")


def without_ego_vehicle(ids: NDArray[Any]) -> NDArray[Any]:
    """VIPER ids (H, W) without the car we drive: the car pixels connected to the middle of the bottom row."""
    _, components = cv2.connectedComponents((ids == CAR).astype(np.uint8), connectivity=8)
    own = components[-1, components.shape[1] // 2]
    return np.where((components == own) & (own != 0), UNLABELLED, ids)
