"""Anybody's videos as a target: a folder, searched with all below it, of numbered images, of video files, or of both.

Images of one folder whose names differ in the last number that changes from file to file are a video, so
`ride/frame_0001.png` and `leftImg8bit_sequence/val/lindau/lindau_000000_000019_leftImg8bit.png` both work. Clips are of
consecutive numbers and do not reach across a gap. Video files are read as `training.data.video_decoding` says.

A part may have labels, for evaluation: a folder that mirrors this one, with 8-bit images of ids called like the frame
they belong to (`ride/frame_0001.png`), or like the video and the number of its frame, from 0 (`ride.mp4` and
`ride/000019.png`). A JSON file names the class of each id.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.label_map import LabelMap
from training.data.labelled_videos import ClipFiles, Frame, LabelledVideosConfig, Reading, VideoData
from training.data.video_decoding import VideoDecoder, VideoFrame, VideoIndex, index_videos
from training.data.video_files import read_ids, require_folder, require_frames
from training.label_spaces import LABEL_SPACES, LabelSpace

IMAGE_ENDS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_ENDS = (".avi", ".mkv", ".mov", ".mp4", ".webm")


@dataclass(frozen=True)
class VideoFolder(LabelledVideosConfig):
    """Videos of your own, in a folder."""

    root: Path  # folder of numbered images and of video files (mp4, mkv, avi, mov, webm), searched with all below it
    size: tuple[int, int] = (512, 1024)  # height and width of the frames in pixels, multiples of 4
    num_frames: int = 3  # consecutive frames of a clip
    stride: int = 1  # every how many frames a clip ends; with labels, every how many labelled frames
    labels: Path | None = None  # folder that mirrors the root with 8-bit id images; only clips that end labelled count
    # JSON file that names the class of each id in the labels, such as {"0": "road", "255": "ignore"}
    label_map: Path | None = None
    classes: Literal["viper", "synthia"] = "viper"  # benchmark whose classes the labels get: the one of the source

    def __post_init__(self) -> None:
        """Refuses what cannot be read."""
        require_frames(size=self.size, num_frames=self.num_frames)
        if self.stride < 1:
            raise ValueError(f"stride is {self.stride}: take every frame with 1, or fewer with more")
        if (self.labels is None) != (self.label_map is None):
            raise ValueError("labels and a label map go together: give both --labels and --label-map, or neither")

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the benchmark."""
        return LABEL_SPACES[self.classes]

    def find(self) -> VideoData:
        """Searches the folder, and decodes its video files once."""
        require_folder(self.root, "the folder of your videos")
        if self.labels is not None:
            require_folder(self.labels, "the folder of label images", "--labels")
            if self.labels.resolve() == self.root.resolve():
                raise ValueError(f"{self.labels} holds frames and labels at once: put the labels into a folder apart")
        files = list(_files(self.root, self.labels))
        indices = index_videos([path for path in files if path.suffix.lower() in VIDEO_ENDS])
        videos = [*_image_videos(self.root, files), *_decoded_videos(self.root, indices)]
        if not videos:
            raise ValueError(f"{self.root} has no numbered images and no video file: point --root at your videos")
        clips = [clip for video in videos for clip in self._clips(video)]
        if not clips:
            raise ValueError(self._why_no_clips(videos))
        remedy, remedy_for_ids = "it was there a moment ago, copy it again", f"name them in {self.label_map}"
        return VideoData(tuple(clips), self._reading(indices), remedy, remedy_for_ids)

    def _reading(self, indices: Mapping[Path, VideoIndex]) -> Reading:
        decoder = VideoDecoder(indices)
        if self.label_map is None:
            return Reading(self.size, 0.0, read_ids, _unlabelled, (), decoder)
        label_map = LabelMap(self.label_map, self.label_space)
        return Reading(self.size, 0.0, read_ids, label_map.to_train_ids, label_map.known_ids, decoder)

    def _clips(self, video: "_Video") -> list[ClipFiles]:
        """Every `stride`-th clip of one video."""
        clips = []
        labels = self._label_files(video)
        for last in sorted(video.frames):
            numbers = range(last - self.num_frames + 1, last + 1)
            if all(number in video.frames for number in numbers) and (self.labels is None or last in labels):
                label = (labels[last],) if self.labels else ()
                clips.append(ClipFiles(video.name, tuple(video.frames[number] for number in numbers), label))
        return clips[:: self.stride]

    def _label_files(self, video: "_Video") -> dict[int, Path]:
        """The label images of a video that are there, by frame number."""
        if self.labels is None:
            return {}
        if video.file is not None:
            folder = self.labels / video.file.relative_to(self.root).with_suffix("")
            return {int(path.stem): path for path in sorted(folder.glob("*.png")) if path.stem.isdecimal()}
        names = {
            number: self.labels / frame.relative_to(self.root).with_suffix(".png")
            for number, frame in video.frames.items()
            if isinstance(frame, Path)
        }
        return {number: path for number, path in names.items() if path.is_file()}

    def _why_no_clips(self, videos: Sequence["_Video"]) -> str:
        if self.labels is not None:
            frame = next(iter(videos[0].frames.values()))
            path = frame if isinstance(frame, Path) else frame.video.with_suffix("") / f"{frame.number:06}"
            like = self.labels / path.relative_to(self.root).with_suffix(".png")
            return (
                f"{self.labels} has no label of a frame that follows {self.num_frames - 1} others: call labels like"
                f" their frames, such as {like}"
            )
        return (
            f"{self.root} has no {self.num_frames} images with consecutive numbers, as in {videos[0].name}: number the"
            " images of each video by ones"
        )


class _Video(NamedTuple):
    name: str  # relative to the root
    frames: dict[int, Frame]  # by number
    file: Path | None  # None for images


def _files(root: Path, labels: Path | None) -> Iterator[Path]:
    """All files below a folder in order, also behind links; neither hidden ones nor labels."""
    seen = {labels.resolve()} if labels is not None else set()
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        if here in seen:  # the labels, or a link in a circle
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def _image_videos(root: Path, files: Iterable[Path]) -> Iterator[_Video]:
    """Videos of the images among `files`; images without a number belong to none."""
    alike = defaultdict(list)  # images of one folder whose names differ in their numbers only
    for path in files:
        if path.suffix.lower() in IMAGE_ENDS and re.search(r"\d", path.stem):
            alike[path.parent, re.sub(r"\d+", "0", path.name)].append(path)
    for paths in alike.values():
        numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in paths]
        changing = [place for place, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
        place = changing[-1] if changing else -1
        videos: defaultdict[str, dict[int, Frame]] = defaultdict(dict)
        for path, row in zip(paths, numbers, strict=True):
            video = videos[_name_without_number(path.relative_to(root), place)]
            if row[place] in video:
                raise ValueError(f"{path} and {video[row[place]]} have the same number: take one of them away")
            video[row[place]] = path
        yield from (_Video(name, frames, None) for name, frames in videos.items())


def _name_without_number(path: Path, place: int) -> str:
    """The path up to its number at `place`, which is what the frames of a video share."""
    begin = list(re.finditer(r"\d+", path.stem))[place].start()
    return (path.parent / path.stem[:begin].rstrip("_-.")).as_posix()


def _decoded_videos(root: Path, indices: Mapping[Path, VideoIndex]) -> Iterator[_Video]:
    for path, index in indices.items():
        frames: dict[int, Frame] = {number: VideoFrame(path, number) for number in range(len(index.checksums))}
        yield _Video(path.relative_to(root).as_posix(), frames, path)


def _unlabelled(_: NDArray[Any]) -> NDArray[np.int64]:
    raise AssertionError("clips without label files have no ids")
