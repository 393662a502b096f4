"""Cityscapes sequences: street videos of 30 frames, the twentieth labelled; the target domain of both benchmarks.

Cordts et al.: The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016. Below the root:
`leftImg8bit_sequence/{train,val}/CITY/CITY_SEQ_FRAME_leftImg8bit.png` and
`gtFine/{train,val}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png`.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.labelled_videos import ClipFiles, LabelledVideosConfig, Reading, VideoData
from training.data.video_files import neighbours, read_ids, read_list, require_folder, require_frames
from training.label_spaces import LABEL_SPACES, LabelSpace

FRAME_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
OFFICIAL_IDS = range(34)  # number plates, -1, are not drawn into label files


@dataclass(frozen=True)
class CityscapesSeq(LabelledVideosConfig):
    """Video snippets of Cityscapes; the last frame of a clip has labels."""

    root: Path  # folder that holds leftImg8bit_sequence and gtFine
    split: Literal["train", "val"] = "train"  # which cities
    size: tuple[int, int] = (512, 1024)  # height and width of the frames in pixels, multiples of 4
    num_frames: int = 3  # consecutive frames of a clip
    # lines like val_lindau_000000_000019 name labelled frames; none: every labelled frame
    frame_list: Path | None = None
    classes: Literal["viper", "synthia"] = "viper"  # benchmark whose classes the labels get: the one of the source

    def __post_init__(self) -> None:
        """Refuses what cannot be read."""
        require_frames(size=self.size, num_frames=self.num_frames)

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the benchmark."""
        return LABEL_SPACES[self.classes]

    def find(self) -> VideoData:
        """Names the files of every clip."""
        images, labels = (self.root / name / self.split for name in ("leftImg8bit_sequence", "gtFine"))
        for folder in (images, labels):
            require_folder(folder, "the folder of Cityscapes that holds leftImg8bit_sequence and gtFine")
        if self.frame_list is None:
            stems = [path.name.removesuffix(LABEL_END) for path in sorted(labels.glob(f"*/*{LABEL_END}"))]
            if not stems:
                raise ValueError(f"{labels} has no file *{LABEL_END}: unpack gtFine there")
        else:
            stems = [_stem(line) for line in read_list(self.frame_list)]
        clips = []
        for stem in stems:
            city = stem.split("_")[0]
            frames = neighbours(images / city / stem, self.num_frames)
            clips.append(
                ClipFiles(
                    stem.rpartition("_")[0],
                    tuple(frame.with_name(frame.name + FRAME_END) for frame in frames),
                    (labels / city / (stem + LABEL_END),),
                )
            )
        remedy = f"unpack all 30 frames of every snippet (leftImg8bit_sequence) and gtFine of split {self.split}"
        reading = Reading(self.size, 0.0, read_ids, self._train_ids, OFFICIAL_IDS)
        remedy_for_ids = f"files *{LABEL_END} must hold the ids of gtFine, not train ids, so unpack gtFine again"
        return VideoData(tuple(clips), reading, remedy, remedy_for_ids)

    def _train_ids(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        return self.label_space.to_train_ids(ids, "cityscapes")


def _stem(line: str) -> str:
    """CITY_SEQ_FRAME from a line of SFC's lists (split first) or of DA-VSN's (folder and file name)."""
    stem = PurePosixPath(line).name.removesuffix(FRAME_END)
    for split in ("train", "val"):
        stem = stem.removeprefix(f"{split}_")
    if stem.count("_") != 2:
        raise ValueError(
            f"the list's line {line!r} does not read SPLIT_CITY_SEQ_FRAME or CITY/CITY_SEQ_FRAME{FRAME_END}"
        )
    return stem
