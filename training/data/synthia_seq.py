"""SYNTHIA sequences: rendered videos with labels of every frame, the source of SYNTHIA-Seq -> Cityscapes-Seq.

Ros et al.: The SYNTHIA Dataset, CVPR 2016; the benchmark uses SEQS-04-DAWN, seen by the front left camera. Below the
root either as published, `RGB/Stereo_Left/Omni_F/FFFFFF.png` and `GT/LABELS/Stereo_Left/Omni_F/FFFFFF.png`, or as
DA-VSN keeps them, `rgb/` and `label/`. Labels are 16-bit images: class in the red channel, instance in the green one.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.labelled_videos import ClipFiles, LabelledVideosConfig, Reading, VideoData
from training.data.video_files import (
    neighbours,
    read_ids_of_16_bit,
    read_list,
    require_folder,
    require_frames,
    without_beginnings,
)
from training.label_spaces import SYNTHIA_TO_CITYSCAPES, LabelSpace

LAYOUTS = (("RGB/Stereo_Left/Omni_F", "GT/LABELS/Stereo_Left/Omni_F"), ("rgb", "label"))
CROP_BOTTOM = 120 / 760  # the share of rows that shows our own car; DA-VSN cuts 120 of 760
OFFICIAL_IDS = range(16)  # 13 and 14 are reserved


@dataclass(frozen=True)
class SynthiaSeq(LabelledVideosConfig):
    """Videos of SYNTHIA with labels, without the lowest 120 of 760 rows."""

    root: Path  # folder of one sequence, such as SYNTHIA-SEQS-04-DAWN
    size: tuple[int, int] = (640, 1280)  # height and width of the cropped frames in pixels, multiples of 4
    num_frames: int = 2  # consecutive frames of a clip
    frame_list: Path | None = None  # lines like 000001.png name the last frames of clips; none: every labelled frame
    previous_labels: bool = True  # also read the labels of the frames before; SFM pre-training needs them

    def __post_init__(self) -> None:
        """Refuses what cannot be read."""
        require_frames(size=self.size, num_frames=self.num_frames)

    @property
    def label_space(self) -> LabelSpace:
        """The twelve classes of SYNTHIA -> Cityscapes."""
        return SYNTHIA_TO_CITYSCAPES

    def find(self) -> VideoData:
        """Names the files of every clip."""
        images, labels = self._folders()
        if self.frame_list is None:
            found = (images / path.name for path in sorted(labels.glob("*.png")))
            last_frames = without_beginnings(found, self.num_frames)
            if not last_frames:
                raise ValueError(
                    f"{labels} has no label of a frame that follows {self.num_frames - 1} others: copy SYNTHIA there"
                )
        else:
            last_frames = [images / PurePosixPath(line).name for line in read_list(self.frame_list)]
        clips = []
        for frame in last_frames:
            frames = neighbours(frame, self.num_frames)
            labelled = frames if self.previous_labels else frames[-1:]
            clips.append(ClipFiles(self.root.name, tuple(frames), tuple(labels / path.name for path in labelled)))
        remedy = "copy all frames of the sequence and their labels"
        reading = Reading(self.size, CROP_BOTTOM, read_ids_of_16_bit, synthia_train_ids, OFFICIAL_IDS)
        return VideoData(tuple(clips), reading, remedy)

    def _folders(self) -> tuple[Path, Path]:
        for images, labels in LAYOUTS:
            if (self.root / images).is_dir():
                require_folder(self.root / labels, "a sequence of SYNTHIA with its labels")
                return self.root / images, self.root / labels
        raise ValueError(
            f"{self.root} has neither {LAYOUTS[0][0]} nor {LAYOUTS[1][0]}: point --root at SYNTHIA-SEQS-04-DAWN"
        )


def synthia_train_ids(ids: NDArray[Any]) -> NDArray[np.int64]:
    """Train ids (H, W) of SYNTHIA ids."""
    return SYNTHIA_TO_CITYSCAPES.to_train_ids(ids, "synthia")
