"""Clips of videos on disk: what the real data sets share once they know their files and their label maps."""

from abc import abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.data.clip import IGNORE, LabelledClip
from training.data.data_config import DataConfig
from training.data.labelled_dataset import LabelledDataset
from training.data.video_decoding import VideoDecoder, VideoFrame
from training.data.video_files import Size, file_size, quarter, read_frame, require_files, resize_ids, to_frame

Frame = Path | VideoFrame  # an image, or a frame of a video file


class ClipFiles(NamedTuple):
    """The files of one clip."""

    video: str  # that it is part of; one name for each video of the data set
    frames: tuple[Frame, ...]  # consecutive, oldest first
    labels: tuple[Path, ...]  # of the last frames; none if the data set has no labels


class Reading(NamedTuple):
    """How a data set's files become tensors."""

    size: Size  # of the frames and labels, in pixels
    crop_bottom: float  # share of rows that is cut off before resizing
    read_ids: Callable[[Path, Size], NDArray[Any]]  # the ids in a label file, given the size of its frame's file
    to_train_ids: Callable[[NDArray[Any]], NDArray[np.int64]]  # applied after resizing, at each size anew
    known_ids: Collection[int]  # all that a label file may hold, trained or not
    decoder: VideoDecoder = VideoDecoder({})  # of frames in video files


class VideoData(NamedTuple):
    """A data set's files, found but not looked at."""

    clips: tuple[ClipFiles, ...]  # one item each
    reading: Reading  # how to read them
    remedy: str  # what a user can do about a missing file, as the end of a sentence
    remedy_for_ids: str = "use the label files as they were published"  # and about ids that no file should hold


class LabelledVideosConfig(DataConfig):
    """A data set that lies in files."""

    @abstractmethod
    def find(self) -> VideoData:
        """The files it should have; they may be missing or damaged.

        Raises:
            ValueError: if nothing can be found, in one sentence.
        """

    def open(self) -> LabelledDataset:
        """Finds the files and looks that they are there."""
        return LabelledVideos(self.find())


class LabelledVideos(LabelledDataset):
    """Reads clips from disk; frames without a label file are `IGNORE` all over."""

    def __init__(self, data: VideoData) -> None:
        """Looks that all files are there.

        Raises:
            ValueError: naming the first file that is missing.
        """
        paths = [path for clip in data.clips for path in (*clip.frames, *clip.labels) if isinstance(path, Path)]
        require_files(paths, data.remedy)
        self.clips, self.reading = data.clips, data.reading

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> LabelledClip:
        """A clip without the batch dimension."""
        return read_clip(self.clips[index], self.reading)

    def native_labels(self, index: int) -> Tensor:
        """The labels of a clip's last frame at the size they are stored in, less the rows that are cut off."""
        clip = self.clips[index]
        size = _stored_size(clip.frames[-1], self.reading)
        if not clip.labels:
            return torch.full(size, IGNORE)
        ids = read_cropped_ids(clip.labels[-1], size, self.reading)
        return _train_ids(ids, (ids.shape[0], ids.shape[1]), self.reading)


def read_clip(clip: ClipFiles, reading: Reading) -> LabelledClip:
    """A clip without the batch dimension."""
    size = reading.size
    read = [_read_frame(frame, reading) for frame in clip.frames]
    labels = torch.full((len(read), *size), IGNORE)
    first = len(read) - len(clip.labels)
    quarter_labels = torch.full(quarter(size), IGNORE)
    for position, path in enumerate(clip.labels, first):
        ids = read_cropped_ids(path, read[position][1], reading)
        labels[position] = _train_ids(ids, size, reading)
        if position == len(read) - 1:
            quarter_labels = _train_ids(ids, quarter(size), reading)
    return LabelledClip(torch.stack([frame for frame, _ in read]), labels, quarter_labels)


def read_cropped_ids(path: Path, frame_size: Size, reading: Reading) -> NDArray[Any]:
    """The ids (H, W) in a label file at its own size, without the rows that are cut off."""
    ids = reading.read_ids(path, frame_size)
    return ids[: len(ids) - round(reading.crop_bottom * len(ids))]


def _read_frame(frame: Frame, reading: Reading) -> tuple[Tensor, Size]:
    if isinstance(frame, Path):
        return read_frame(frame, reading.size, reading.crop_bottom)
    image = Image.fromarray(reading.decoder.read(frame))
    return to_frame(image, reading.size, reading.crop_bottom), (image.height, image.width)


def _stored_size(frame: Frame, reading: Reading) -> Size:
    if isinstance(frame, Path):
        return file_size(frame)
    height, width, _ = reading.decoder.read(frame).shape
    return height, width


def _train_ids(ids: NDArray[Any], size: Size, reading: Reading) -> Tensor:
    return torch.from_numpy(reading.to_train_ids(resize_ids(ids, size)))
