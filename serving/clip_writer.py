"""The thread that writes clips, so that no stream waits for the disk; what waits for it is bounded.

When the disk is behind, clips end early. When it fails or the folder is full, writing ends with one warning.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from serving.clip_files import ClipFolder, FullError, RecordingFolder
from serving.logs import about, current_subject

logger = logging.getLogger(__name__)

MIN_CLIP_FRAMES = 11  # of a clip that is kept: training takes 3, the baseline of the next bundle 11
MAX_QUEUED_BYTES = 64_000_000  # of images that wait for the disk, of all streams
JPEG_QUALITY = 95
CLOSE_S = 10.0  # for the disk to take what waits when the server leaves
Image = bytes | NDArray[np.uint8]  # a JPEG file, or (h, w, 3) RGB


class ClipWriter:
    """Writes clips into a folder until that is full or fails."""

    def __init__(self, recordings: RecordingFolder) -> None:
        """Starts the thread."""
        self.recordings = recordings
        self.has_stopped = False  # nothing is written any more
        self._is_behind = False
        self.num_queued_bytes = 0  # of images that wait
        self._lock = threading.Lock()  # of the two above
        self._queue: SimpleQueue[tuple[Callable[[], None], int] | None] = SimpleQueue()
        # A daemon: a disk that hangs must not keep the server from leaving.
        self._thread = threading.Thread(target=self._work, name="clip-writer", daemon=True)
        self._thread.start()

    def put(self, task: Callable[[], None], num_bytes: int) -> bool:
        """Has the thread do something that holds so much memory, unless too much waits for it already."""
        with self._lock:
            if self.num_queued_bytes and self.num_queued_bytes + num_bytes > MAX_QUEUED_BYTES:
                if not self._is_behind:
                    logger.warning("%s is slower than the streams that drift: clips end early", self.recordings.root)
                self._is_behind = True
                return False
            self.num_queued_bytes += num_bytes
        self._queue.put((task, num_bytes))
        return True

    def put_last(self, task: Callable[[], None]) -> None:
        """Has the thread end a clip, however much waits for it: a clip ends once."""
        self._queue.put((task, 0))

    def close(self) -> None:
        """Writes what waits, if the disk takes it in time, and leaves the folder."""
        self._queue.put(None)
        self._thread.join(CLOSE_S)
        self.recordings.close()

    def _work(self) -> None:
        root, most = self.recordings.root, self.recordings.max_bytes / 1e6
        while (entry := self._queue.get()) is not None:
            task, num_bytes = entry
            try:
                task()
            except FullError:
                self._stop(
                    f"{root} holds all it may, {most:g} MB: adapt to it, then take clips away or raise"
                    " --record-drift-mb, and start the server again"
                )
            except (OSError, cv2.error) as error:
                self._stop(f"{root} cannot be written ({error}): streams go on unrecorded")
            with self._lock:
                self.num_queued_bytes -= num_bytes
                self._is_behind = self._is_behind and self.num_queued_bytes > 0

    def _stop(self, reason: str) -> None:
        if not self.has_stopped:
            logger.warning("recording ends: %s", reason)
        self.has_stopped = True


class QueuedClip:
    """A clip on its way to the disk. The methods return at once."""

    def __init__(self, writer: ClipWriter, model: str, name: str, count_bytes: Callable[[int], None]) -> None:
        """Begins a clip of a model's stream.

        Args:
            writer: who writes it.
            model: name of the folder that the clip's folder lies in.
            name: of the clip's folder.
            count_bytes: is told, by the thread, of all bytes that stay on the disk.
        """
        self._writer, self._model, self._name, self._count_bytes = writer, model, name, count_bytes
        self._subject = current_subject()  # of the log: the thread works for all streams
        self._folder: ClipFolder | None = None  # the thread's, like all below
        self._num_bytes = 0

    def add(self, image: Image) -> bool:
        """Adds the next frame; False if the disk is behind."""
        size = len(image) if isinstance(image, bytes) else image.nbytes
        return self._writer.put(partial(self._write, image), size)

    def end(self, description: dict[str, JsonValue]) -> None:
        """Keeps the clip with a description if enough was written, or else leaves nothing."""
        self._writer.put_last(partial(self._finish, description))

    def _write(self, image: Image) -> None:
        if self._writer.has_stopped:
            return  # what was written of it before may still be a clip
        if self._folder is None:
            self._folder = ClipFolder(self._writer.recordings, self._model, self._name)
        content = image if isinstance(image, bytes) else _encode(image)
        self._folder.add(content)
        self._num_bytes += len(content)

    def _finish(self, description: dict[str, JsonValue]) -> None:
        if self._folder is None:
            return
        num_frames = self._folder.num_frames
        if num_frames < MIN_CLIP_FRAMES:
            self._folder.discard()
            return
        try:
            self._folder.finish(description | {"frames": num_frames})
        except OSError:
            self._folder.discard()
            raise
        self._count_bytes(self._num_bytes)
        megabytes = self._num_bytes / 1e6
        extra = about(*self._subject)
        logger.info("kept %s: %d frames, %.1f MB", self._folder.path, num_frames, megabytes, extra=extra)


def _encode(image: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_encoded, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert is_encoded
    return encoded.tobytes()
