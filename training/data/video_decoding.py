"""Frames of video files by number: exactly those that decoding from the beginning gives.

A video file does not say which frames it holds: the count in its header is an estimate, and seeking may land beside the
frame that was asked for. So each file is decoded once when its data set is opened, and a checksum of every frame is
kept. Reading seeks, decodes on from there, and compares. Where they differ, the file is read from its beginning.

What it costs: the first pass, in each process that opens the data set (two H.264 files of 768x432 and 960x540: 1000 and
400 frames a second on two cores), some 40 bytes of memory per frame, no disk; and for a clip at a random place,
decoding from the last place before it where the file can be entered (the same files: 35 and 70 ms).
"""

import logging
import os
import sys
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from training.data.video_files import Size

logger = logging.getLogger(__name__)
MAX_OPEN = 4  # video files per process; each holds a decoder with its threads
MAX_SKIPPED = 32  # frames that are rather decoded than jumped over


class VideoFrame(NamedTuple):
    """A frame of a video file."""

    video: Path
    number: int  # from 0


class VideoIndex(NamedTuple):
    """What the first pass through a video file found."""

    size: Size  # of the frames
    checksums: tuple[int, ...]  # of the frames, in order
    num_announced: int  # frames by the header, which may be wrong; 0 if it says nothing


def index_videos(paths: Sequence[Path]) -> dict[Path, VideoIndex]:
    """Decodes video files once; those that this process has decoded before are not read again.

    Raises:
        ValueError: naming the files that hold no frame.
    """
    statuses = [path.stat() for path in paths]
    keys = [_Key(path, status.st_mtime_ns, status.st_size) for path, status in zip(paths, statuses, strict=True)]
    if any(key not in _known_indices for key in keys):
        broken = []
        with Progress(console=Console(file=sys.stderr), transient=True) as progress:
            task = progress.add_task("decoding videos", total=sum(_num_announced(_capture(path)) for path in paths))
            for key in keys:
                if key not in _known_indices and (index := _index(key.path, lambda: progress.advance(task))):
                    _known_indices[key] = index
                elif key not in _known_indices:
                    broken.append(str(key.path))
        if broken:
            raise ValueError(f"no frame can be decoded of {', '.join(broken)}: copy them again or take them away")
    return {key.path: _known_indices[key] for key in keys}


class _Key(NamedTuple):
    path: Path
    modified_ns: int
    num_bytes: int


_known_indices: dict[_Key, VideoIndex] = {}


class VideoDecoder:
    """Reads frames of indexed video files. It can be sent to other processes, and outlives a fork."""

    def __init__(self, indices: Mapping[Path, VideoIndex]) -> None:
        """Opens nothing yet."""
        self.indices = dict(indices)
        # By process: a forked one must leave the decoders of its parent alone, whose threads it does not have.
        self._streams: defaultdict[int, OrderedDict[Path, _Stream]] = defaultdict(OrderedDict)

    def __getstate__(self) -> dict[str, Any]:
        """All but what is open."""
        return {"indices": self.indices}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As if new."""
        self.__init__(state["indices"])  # type: ignore[misc]  # the one way to have the same fields

    def read(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A frame (H, W, 3), RGB.

        Raises:
            ValueError: if the file no longer decodes as it did.
        """
        stream = self._stream(frame.video)
        expected = self.indices[frame.video].checksums[frame.number]
        pixels = stream.read(frame.number)
        if pixels is None or checksum(pixels) != expected:
            if stream.is_seekable:
                logger.warning("%s cannot be entered in the middle: reading it is slow, convert it", frame.video)
            stream.rewind()
            stream.is_seekable = False
            pixels = stream.read(frame.number)
        if pixels is None or checksum(pixels) != expected:
            raise ValueError(
                f"frame {frame.number} of {frame.video} does not decode as it did when the data set was opened: the"
                " file is damaged or was changed, convert it to another file"
            )
        return np.ascontiguousarray(pixels[..., ::-1])

    def _stream(self, path: Path) -> "_Stream":
        streams = self._streams[os.getpid()]
        if path not in streams:
            if len(streams) >= MAX_OPEN:
                streams.popitem(last=False)[1].capture.release()
            streams[path] = _Stream(path)
        streams.move_to_end(path)
        return streams[path]


class _Stream:
    """An open video file that knows which frame comes next."""

    def __init__(self, path: Path) -> None:
        self.path, self.is_seekable = path, True
        self.rewind()

    def rewind(self) -> None:
        """Opens the file anew: the one way to the beginning that is always right."""
        self.capture, self.next_number = _capture(self.path), 0

    def read(self, number: int) -> NDArray[np.uint8] | None:
        """Frame `number` (H, W, 3), BGR, or one beside it if the file misleads; None behind its end."""
        is_near = self.next_number <= number <= self.next_number + MAX_SKIPPED
        if not is_near and self.is_seekable:
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            self.next_number = number
        elif number < self.next_number:
            self.rewind()
        while self.next_number < number and self.capture.grab():
            self.next_number += 1
        self.next_number = number + 1
        is_read, pixels = self.capture.read()
        return np.asarray(pixels, np.uint8) if is_read else None


def checksum(pixels: NDArray[np.uint8]) -> int:
    """A number that differs between frames that differ."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _capture(path: Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)


def _num_announced(capture: cv2.VideoCapture) -> int:
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def _index(path: Path, advance: Callable[[], object]) -> VideoIndex | None:
    """None if nothing can be decoded."""
    capture = _capture(path)
    checksums, size = [], (0, 0)
    while (read := capture.read())[0]:
        pixels = np.asarray(read[1], np.uint8)
        size = (pixels.shape[0], pixels.shape[1])
        checksums.append(checksum(pixels))
        advance()
    return VideoIndex(size, tuple(checksums), _num_announced(capture)) if checksums else None
