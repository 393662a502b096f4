"""Clips of videos on disk: what the real data sets share once they know their files and their label maps."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.clip import IGNORE, LabelledClip
from training.data.labelled_dataset import LabelledDataset
from training.data.video_files import Size, file_size, quarter, read_frame, require_files, resize_ids


class ClipFiles(NamedTuple):
    """The files of one clip."""

    frames: tuple[Path, ...]  # consecutive, oldest first
    labels: tuple[Path, ...]  # of the last frames; at least of the last one


class Reading(NamedTuple):
    """How a data set's files become tensors."""

    size: Size  # of the frames and labels, in pixels
    crop_bottom: float  # share of rows that is cut off before resizing
    read_ids: Callable[[Path, Size], NDArray[Any]]  # the ids in a label file, given the size of its frame's file
    to_train_ids: Callable[[NDArray[Any]], NDArray[np.int64]]  # applied after resizing, at each size anew


class LabelledVideos(LabelledDataset):
    """Reads clips from disk; frames without a label file are `IGNORE` all over."""

    def __init__(self, clips: Sequence[ClipFiles], reading: Reading, remedy: str) -> None:
        """Looks that all files are there.

        Args:
            clips: one item each.
            reading: how to read them.
            remedy: what a user can do about a missing file, as the end of a sentence.

        Raises:
            ValueError: naming the first file that is missing.
        """
        require_files([path for clip in clips for path in (*clip.frames, *clip.labels)], remedy)
        self.clips, self.reading = tuple(clips), reading

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> LabelledClip:
        """A clip without the batch dimension."""
        clip, size = self.clips[index], self.reading.size
        read = [read_frame(path, size, self.reading.crop_bottom) for path in clip.frames]
        labels = torch.full((len(read), *size), IGNORE)
        first = len(read) - len(clip.labels)
        quarter_labels = torch.full(quarter(size), IGNORE)
        for position, path in enumerate(clip.labels, first):
            ids = self._read_ids(path, read[position][1])
            labels[position] = self._train_ids(ids, size)
            if position == len(read) - 1:
                quarter_labels = self._train_ids(ids, quarter(size))
        return LabelledClip(torch.stack([frame for frame, _ in read]), labels, quarter_labels)

    def native_labels(self, index: int) -> Tensor:
        """The labels of a clip's last frame at the size of its label file, less the rows that are cut off."""
        clip = self.clips[index]
        ids = self._read_ids(clip.labels[-1], file_size(clip.frames[-1]))
        return self._train_ids(ids, ids.shape)

    def _read_ids(self, path: Path, frame_size: Size) -> NDArray[Any]:
        ids = self.reading.read_ids(path, frame_size)
        return ids[: len(ids) - round(self.reading.crop_bottom * len(ids))]

    def _train_ids(self, ids: NDArray[Any], size: Size) -> Tensor:
        return torch.from_numpy(self.reading.to_train_ids(resize_ids(ids, size)))
