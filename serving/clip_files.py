"""Clips on the disk: folders of numbered JPEG images, as `training` reads them, that together have a bounded size.

    ROOT/street@1/stream-7-20261125T031500Z-0/000000.jpg, 000001.jpg, ..., clip.json

A clip is written aside and gets its name once it is whole. Folders can be read by their owner alone: they hold videos
of people. Names are made of the model's label and the server's own name of the stream, never of what a client sent.
"""

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path

from pydantic import JsonValue

FOLDER_MODE = 0o700
FILE_MODE = 0o600
CLIP_FILE = "clip.json"
LOCK_FILE = ".lock"
PARTIAL = ".partial"  # ends the name of a clip that is not whole; it begins with a dot, so training does not see it


class RecordingError(ValueError):
    """A folder that cannot be recorded into, in one sentence for the user."""


class FullError(Exception):
    """There is no room for more within the bound."""


class RecordingFolder:
    """The folder that clips are kept in, of one server at a time. What lies in it counts, whoever wrote it."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Takes the folder, and removes what a server that was killed left half written.

        Raises:
            RecordingError: if it cannot be written, or another server has it.
        """
        self.root = root
        self.max_bytes = max_bytes
        try:
            root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise RecordingError(f"{root} cannot be recorded into ({error.strerror}): choose another folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise RecordingError(f"another server records into {root}: give each a folder of its own") from error
        for leftover in root.glob(f"*/.*{PARTIAL}"):
            shutil.rmtree(leftover, ignore_errors=True)
        self.num_bytes = _size(root)

    @property
    def num_bytes_left(self) -> int:
        """How much may still be written."""
        return max(0, self.max_bytes - self.num_bytes)

    def write(self, path: Path, content: bytes) -> None:
        """Writes a new file.

        Raises:
            FullError: if it would be too much.
            OSError: if the disk refuses.
        """
        if len(content) > self.num_bytes_left:
            raise FullError
        _write_private(path, content)
        self.num_bytes += len(content)

    def remove(self, folder: Path) -> None:
        """Removes what was written, as far as the disk lets us."""
        size = _size(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self.num_bytes -= size - _size(folder)

    def close(self) -> None:
        """Leaves the folder to others."""
        os.close(self._lock)


class ClipFolder:
    """A clip that is being written."""

    def __init__(self, recordings: RecordingFolder, model: str, name: str) -> None:
        """Makes a folder aside.

        Raises:
            OSError: if the disk refuses.
        """
        self.path = recordings.root / model / name
        self.num_frames = 0
        self._recordings = recordings
        self._aside = self.path.with_name(f".{name}{PARTIAL}")
        self.path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
        self._aside.mkdir(mode=FOLDER_MODE)

    def add(self, jpeg: bytes) -> None:
        """Writes the next frame.

        Raises:
            FullError: if there is no room for it.
            OSError: if the disk refuses.
        """
        self._recordings.write(self._aside / f"{self.num_frames:06}.jpg", jpeg)
        self.num_frames += 1

    def finish(self, description: dict[str, JsonValue]) -> None:
        """Gives the clip its name. The few bytes of the description are let in even if the folder is full.

        Raises:
            OSError: if the disk refuses.
        """
        content = json.dumps(description, indent=2).encode() + b"\n"
        _write_private(self._aside / CLIP_FILE, content)
        self._recordings.num_bytes += len(content)
        self._aside.rename(self.path)

    def discard(self) -> None:
        """Leaves nothing."""
        self._recordings.remove(self._aside)


def _write_private(path: Path, content: bytes) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)  # half a file is none
        raise


def _size(folder: Path) -> int:
    """Bytes of all files below, not behind links."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # somebody takes clips away
                size += os.lstat(os.path.join(parent, name)).st_size
    return size
