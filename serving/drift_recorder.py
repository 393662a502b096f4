"""Keeps unlabelled clips of streams that drift, as a target domain for `training`.

While a stream's drift is above the threshold, runs of consecutive frames are kept: JPEG as it came, all else as JPEG. A
frame that was dropped, refused, held or failed, or that the client left out, ends a clip; one that is too short to
train on is thrown away. So that what is kept shows many scenes of many streams:

- behind a clip a stream pauses for `PAUSE` clips' lengths, and twice as long behind each further one, up to
  `MAX_PAUSE_DOUBLINGS` times; behind one that was too short for one clip's length;
- a stream records no more than it leaves to others: the first one half of the folder, the next half of the rest;
- at most `MAX_OPEN_CLIPS` streams are recorded at a time.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from serving.clip_writer import MIN_CLIP_FRAMES, ClipWriter, Image, QueuedClip
from serving.drift import DriftMeter, SignalDrift
from serving.frames import Encoding
from serving.generated.flowseg.v1 import segmentation_pb2 as pb

logger = logging.getLogger(__name__)
PAUSE = 9  # clips' lengths
MAX_PAUSE_DOUBLINGS = 6
MAX_OPEN_CLIPS = 4  # the decoded frames of no other stream are kept in memory
JPEG_END = b"\xff\xd9"  # of a file that is whole


class DriftRecorder:
    """What all recorded streams share. For the event loop's thread alone, like all here."""

    def __init__(self, writer: ClipWriter, *, threshold: float, clip_frames: int) -> None:
        """Records streams whose drift is above `threshold` standard deviations, in clips of `clip_frames`."""
        self.writer = writer
        self.threshold = threshold
        self.clip_frames = clip_frames
        self.having_turn: set[StreamRecorder] = set()  # streams that have a clip open, or are about to
        root, held, most = writer.recordings.root, writer.recordings.num_bytes / 1e6, writer.recordings.max_bytes / 1e6
        logger.info("streams that drift are recorded into %s, which holds %.1f of %g MB", root, held, most)

    def watch(self, stream_id: str, model: str, encoding: Encoding, meter: DriftMeter) -> "StreamRecorder":
        """The recorder of one stream of a model, which is named as NAME@VERSION."""
        return StreamRecorder(self, stream_id, model, encoding, meter)

    def close(self) -> None:
        """Writes what waits. All streams must have ended."""
        self.writer.close()


class StreamRecorder:
    """Decides which frames of one stream are kept."""

    def __init__(
        self, recorder: DriftRecorder, stream_id: str, model: str, encoding: Encoding, meter: DriftMeter
    ) -> None:
        """Records nothing yet."""
        self._recorder, self._meter = recorder, meter
        self._stream_id, self._model, self._encoding = stream_id, model, encoding
        self._clip: _OpenClip | None = None
        self._num_begun = 0  # clips
        self._num_clips = 0  # of those that were long enough
        self._num_bytes = 0  # of those, as far as they are written
        self._next_number = 0  # before which no clip begins

    @property
    def keeps_native(self) -> bool:
        """Whether the next frames must be kept as they were decoded until they are answered."""
        return self._encoding is not Encoding.JPEG and self in self._recorder.having_turn

    def observe(self, number: int, frame: pb.Frame, native: NDArray[np.uint8] | None) -> None:
        """Takes the next frame that was answered; those that were not are noticed by their absence.

        Args:
            number: of the frames that the server read, by ones.
            frame: as it was sent. The stream's meter has seen its result.
            native: the same decoded, if it was kept.
        """
        if self._clip is not None and not self._clip.is_followed_by(number, frame):
            self._end()
        drift = self._meter.drift
        if drift <= self._recorder.threshold or self._recorder.writer.has_stopped:
            self._end()
            return
        if not self._takes_turn(number):
            return
        image = self._image(frame, native)
        if image is None:  # a clip begins with the first one that is there, and ends where one is missing
            if self._clip is not None:
                self._end()
            return
        self._clip = self._clip or self._begin()
        is_taken = self._clip.add(number, frame, image, self._meter)
        if not is_taken or self._clip.num_frames == self._recorder.clip_frames:
            self._end()

    def close(self) -> None:
        """Keeps the clip that is open, if it is long enough: the stream has ended."""
        self._end()

    def _takes_turn(self, number: int) -> bool:
        turns, num_bytes_left = self._recorder.having_turn, self._recorder.writer.recordings.num_bytes_left
        if number >= self._next_number and len(turns) < MAX_OPEN_CLIPS and self._num_bytes < num_bytes_left:
            turns.add(self)
        return self in turns

    def _image(self, frame: pb.Frame, native: NDArray[np.uint8] | None) -> Image | None:
        if self._encoding is not Encoding.JPEG:
            return native
        data = frame.data  # a copy, each time
        return data if data.endswith(JPEG_END) else None  # decoders forgive more than training does

    def _begin(self) -> "_OpenClip":
        now = datetime.now(UTC)
        name = f"{self._stream_id}-{now:%Y%m%dT%H%M%SZ}-{self._num_begun}"  # clips of one second differ too
        self._num_begun += 1
        return _OpenClip(QueuedClip(self._recorder.writer, self._model, name, self._count_bytes), now)

    def _end(self) -> None:
        self._recorder.having_turn.discard(self)
        if self._clip is None:
            return
        clip, self._clip = self._clip, None
        about: dict[str, JsonValue] = {"model": self._model, "threshold": self._recorder.threshold}
        clip.queue.end(about | clip.description())
        pause = self._recorder.clip_frames
        if clip.num_frames >= MIN_CLIP_FRAMES:
            pause *= PAUSE * 2 ** min(self._num_clips, MAX_PAUSE_DOUBLINGS)
            self._num_clips += 1
        self._next_number = clip.last_number + 1 + pause

    def _count_bytes(self, num_bytes: int) -> None:  # by the writer's thread alone
        self._num_bytes += num_bytes


@dataclass(eq=False)
class _OpenClip:
    """Frames that follow each other."""

    queue: QueuedClip
    started_at: datetime
    num_frames: int = 0
    last_number: int = 0
    _last_sequence: int = 0
    _step: int = 0  # of the client's sequence numbers, by which it may leave out frames; 0 before there are two
    _first_us: int = 0
    _last_us: int = 0  # capture times
    _highest_drift: float = 0.0
    _signals: dict[str, SignalDrift] = field(default_factory=dict)  # where the drift was highest

    def is_followed_by(self, number: int, frame: pb.Frame) -> bool:
        """Whether no frame is missing between the last one and this."""
        return number == self.last_number + 1 and self._step in (0, frame.sequence - self._last_sequence)

    def add(self, number: int, frame: pb.Frame, image: Image, meter: DriftMeter) -> bool:
        """Adds the next frame; False if the disk is behind, and then it is not in the clip."""
        if not self.queue.add(image):
            return False
        if self.num_frames == 0:
            self._first_us = frame.capture_time_us
        elif self.num_frames == 1:
            self._step = frame.sequence - self._last_sequence
        self.num_frames += 1
        self.last_number, self._last_sequence, self._last_us = number, frame.sequence, frame.capture_time_us
        if meter.drift > self._highest_drift:
            self._highest_drift, self._signals = meter.drift, meter.signals
        return True

    def description(self) -> dict[str, JsonValue]:
        """For people, and for who wants to know the frame rate; None is not known."""
        seconds = (self._last_us - self._first_us) / 1e6
        return {
            "started_at": self.started_at.isoformat(),
            "frames_per_second": (self.num_frames - 1) / seconds if seconds > 0 else None,
            "highest_drift": self._highest_drift,
            "signals": {name: signal.describe() for name, signal in self._signals.items()},
        }
