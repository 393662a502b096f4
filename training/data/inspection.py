"""Looks through a data set that lies in files for all that would stop or spoil a training."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.labelled_videos import ClipFiles, Frame, VideoData, read_cropped_ids
from training.data.video_decoding import VideoFrame
from training.data.video_files import Size, resize_ids
from training.label_spaces import IGNORE, LabelSpace

NUM_THREADS = 8  # that read headers: on network drives each waits
ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}  # last bytes of files that are whole
SHARE_LOST = 0.05  # of the announced frames of a video file; headers may be wrong by a few


class Problem(NamedTuple):
    """Something to mend."""

    kind: str  # a few words; problems of one kind have one remedy
    sentence: str  # names the file, what is wrong, and the remedy


@dataclass(frozen=True)
class Inspection:
    """What a data set holds."""

    num_videos: int
    num_clips: int  # items of the data set
    num_frames: int  # that clips need
    num_labels: int  # label files that clips need
    frame_sizes: dict[str, int]  # frames of each size, WIDTHxHEIGHT
    num_read: int  # clips whose last frame and labels were decoded
    class_percent: dict[str, float]  # share of the pixels in the labels that were decoded, at the size of training
    ignored_percent: float  # share of the pixels that no class is trained on
    problems: tuple[Problem, ...]


NOTHING = Inspection(0, 0, 0, 0, {}, 0, {}, 0.0, ())


class _Labels(NamedTuple):
    pixels: NDArray[np.int64]  # (C + 1,) of each train id; the last of none
    problems: list[Problem]


def inspect(data: VideoData, space: LabelSpace, sample: int, advance: Callable[[], object]) -> Inspection:
    """Reads the headers of all files, and decodes the last frame and the labels of `sample` clips.

    Args:
        data: as its configuration finds it.
        space: the classes of its labels.
        sample: number of clips, spread evenly.
        advance: called after each of the `num_steps` files and clips.
    """
    frames, labels = files_of(data.clips)
    images = [frame for frame in frames if isinstance(frame, Path)]
    existing, missing = _missing([*images, *labels], data.remedy)
    sizes, unreadable = _headers(existing, advance)
    sizes_of_frames = {frame: _size(frame, sizes, data) for frame in frames}
    chosen = _spread(data.clips, sample)
    read = _read_labels(chosen, data, space, sizes, advance)
    found = sum(read.pixels.tolist()) or 1
    shares = (100 * read.pixels / found).tolist()
    named = [size for size in sizes_of_frames.values() if size is not None]
    problems = [
        *missing,
        *unreadable,
        *_truncated_videos(data),
        *_sizes_that_differ(data.clips, sizes_of_frames, sizes),
        *read.problems,
    ]
    if labels and not read.pixels[:-1].any() and not problems:
        sentence = f"no label of the {len(chosen)} clips that were decoded has a class: {data.remedy_for_ids}"
        problems.append(Problem("no class", sentence))
    return Inspection(
        num_videos=len({clip.video for clip in data.clips}),
        num_clips=len(data.clips),
        num_frames=len(frames),
        num_labels=len(labels),
        frame_sizes={f"{w}x{h}": named.count((h, w)) for h, w in sorted(set(named))},
        num_read=len(chosen),
        class_percent=dict(zip(space.names, shares, strict=False)) if labels else {},
        ignored_percent=shares[-1] if labels else 0.0,
        problems=tuple(dict.fromkeys(problems)),
    )


def num_steps(data: VideoData, sample: int) -> int:
    """How often `inspect` advances, at most."""
    frames, labels = files_of(data.clips)
    return sum(isinstance(frame, Path) for frame in frames) + len(labels) + min(sample, len(data.clips))


def files_of(clips: Iterable[ClipFiles]) -> tuple[list[Frame], list[Path]]:
    """All frames and all label files of clips, each once."""
    clips = list(clips)
    frames = dict.fromkeys(frame for clip in clips for frame in clip.frames)
    return list(frames), list(dict.fromkeys(path for clip in clips for path in clip.labels))


def _spread(clips: tuple[ClipFiles, ...], sample: int) -> list[ClipFiles]:
    places = np.linspace(0, len(clips) - 1, min(sample, len(clips))).round().astype(int)
    return [clips[place] for place in places]


def _missing(paths: list[Path], remedy: str) -> tuple[list[Path], list[Problem]]:
    """The files that are there, and what to do about the others. Lists each folder once."""
    names = lru_cache(maxsize=None)(
        lambda folder: {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    )
    existing = [path for path in paths if path.name in names(path.parent)]
    there = set(existing)
    missing = [Problem("missing file", f"{path} is missing: {remedy}") for path in paths if path not in there]
    return existing, missing


def _headers(paths: list[Path], advance: Callable[[], object]) -> tuple[dict[Path, Size], list[Problem]]:
    """Sizes of the images that can be read."""
    sizes, problems = {}, []
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for path, size in zip(paths, pool.map(_header, paths), strict=True):
            if size is None:
                sentence = f"{path} cannot be read: it is damaged, truncated or no image, copy it again"
                problems.append(Problem("unreadable image", sentence))
            else:
                sizes[path] = size
            advance()
    return sizes, problems


def _header(path: Path) -> Size | None:
    """The size of an image; None if it cannot be read. Decodes it only if its end looks cut off."""
    try:
        with Image.open(path) as image:
            if not _has_its_end(path):
                image.load()
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):  # PIL reports broken PNG chunks as SyntaxError
        return None


def _has_its_end(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), 2)
        return ENDS.get(path.suffix.lower(), b"no end is known") in file.read()


def _size(frame: Frame, sizes: dict[Path, Size], data: VideoData) -> Size | None:
    return data.reading.decoder.indices[frame.video].size if isinstance(frame, VideoFrame) else sizes.get(frame)


def _truncated_videos(data: VideoData) -> list[Problem]:
    problems = []
    for path, index in data.reading.decoder.indices.items():
        num_frames = len(index.checksums)
        if index.num_announced - num_frames > max(2, SHARE_LOST * index.num_announced):
            sentence = f"{path} announces {index.num_announced} frames and has {num_frames}: copy it again"
            problems.append(Problem("truncated video", sentence))
    return problems


def _sizes_that_differ(
    clips: Iterable[ClipFiles], sizes_of_frames: dict[Frame, Size | None], sizes: dict[Path, Size]
) -> list[Problem]:
    problems = []
    for clip in clips:
        for frame, label in zip(reversed(clip.frames), reversed(clip.labels), strict=False):
            expected, found = sizes_of_frames[frame], sizes.get(label)
            if expected and found and expected != found:
                (h, w), (label_h, label_w) = expected, found
                sentence = (
                    f"{label} is {label_w}x{label_h}, its frame is {w}x{h}: labels must have the size of their frame"
                )
                problems.append(Problem("label of another size", sentence))
    return problems


def _read_labels(
    clips: list[ClipFiles],
    data: VideoData,
    space: LabelSpace,
    sizes: dict[Path, Size],
    advance: Callable[[], object],
) -> _Labels:
    """Decodes the last frame and all labels of clips; files without a readable header have been reported."""
    pixels, problems = np.zeros(space.num_classes + 1, np.int64), []
    done: set[Path] = set()
    for clip in clips:
        last = clip.frames[-1]
        if isinstance(last, VideoFrame):
            problems += _problems_of_decoding(last, data)
        elif last in sizes and not _decodes(last):
            sentence = f"{last} cannot be read: it is damaged or truncated, copy it again"
            problems.append(Problem("unreadable image", sentence))
        for label in clip.labels:
            if label in sizes and label not in done:
                done.add(label)
                try:
                    pixels += _count(label, sizes[label], data, space)
                except ValueError as error:
                    kind = "unknown ids" if isinstance(error, _UnknownIdsError) else "unreadable label"
                    problems.append(Problem(kind, str(error)))
        advance()
    return _Labels(pixels, problems)


def _problems_of_decoding(frame: VideoFrame, data: VideoData) -> list[Problem]:
    try:
        data.reading.decoder.read(frame)
    except ValueError as error:
        return [Problem("damaged video", str(error))]
    return []


class _UnknownIdsError(ValueError):
    pass


def _count(label: Path, size: Size, data: VideoData, space: LabelSpace) -> NDArray[np.int64]:
    """(C + 1,) pixels of each class at the size of training; the last without one."""
    ids = read_cropped_ids(label, size, data.reading)
    numbers, counts = np.unique(ids, return_counts=True)
    is_unknown = np.isin(numbers, list(data.reading.known_ids), invert=True)
    if is_unknown.any():
        share = 100 * counts[is_unknown].sum() / ids.size
        names = ", ".join(map(str, numbers[is_unknown].tolist()))
        raise _UnknownIdsError(
            f"{label} holds ids that its data set does not have ({names}; {share:.1f} % of it): {data.remedy_for_ids}"
        )
    train_ids = data.reading.to_train_ids(resize_ids(ids, data.reading.size))
    return np.bincount(
        np.where(train_ids == IGNORE, space.num_classes, train_ids).ravel(), minlength=len(space.names) + 1
    )


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
