"""What a client may use, and what it uses: streams, frames a second, pixels a second, and the size of its frames."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from serving.errors import QuotaError
from serving.messages import Limits

BURST_S = 1.0  # seconds' worth that a client may use at once after it was still


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What one client may use. What nothing is said of is bounded by the server's limits for everybody alone."""

    max_streams: float = math.inf  # open at a time, of all models
    frames_per_s: float = math.inf  # of all its streams
    pixels_per_s: float = math.inf  # of all its streams, in the frames' own size
    max_frame_mb: float = math.inf  # of one frame as it is sent, in megabytes (10^6 bytes)
    max_frame_megapixels: float = math.inf  # of one frame, by its header
    idle_timeout_s: float = math.inf  # seconds without a frame, or without taking an answer, that end a stream

    def tighten(self, limits: Limits) -> Limits:
        """The limits of the server and those of the client, of each the tighter one."""
        return replace(
            limits,
            max_streams=int(min(limits.max_streams, self.max_streams)),
            max_frame_bytes=int(min(limits.max_frame_bytes, self.max_frame_mb * 1e6)),
            max_frame_pixels=int(min(limits.max_frame_pixels, self.max_frame_megapixels * 1e6)),
            idle_timeout_s=min(limits.idle_timeout_s, self.idle_timeout_s),
        )


class Bucket:
    """Holds a rate in the long run. It may be overdrawn once, and must be refilled before more is taken.

    So a frame may be charged when its size is known, and one larger than a second's worth is only waited for longer.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        """Full."""
        self.per_s = per_s
        self._clock = clock
        self._level = per_s * BURST_S
        self._filled_at = clock()

    def wait_s(self) -> float:
        """Seconds until something may be taken; 0 is now."""
        if math.isinf(self.per_s):
            return 0.0
        self._fill()
        # a hair above 0, or rounding could make a wait end just before its end
        return 0.0 if self._level > 0 else (-self._level) / self.per_s + 1e-3

    def take(self, amount: float) -> None:
        """Takes it, whether it is there or not."""
        if not math.isinf(self.per_s):
            self._fill()
            self._level -= amount

    def _fill(self) -> None:
        now = self._clock()
        self._level = min(self.per_s * BURST_S, self._level + (now - self._filled_at) * self.per_s)
        self._filled_at = now


class Account:
    """What a client uses at the moment. For the event loop's thread alone."""

    def __init__(self, client: str, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is used yet.

        Args:
            client: its name.
            quota: what it may use.
            clock: in seconds.
        """
        self.client = client
        self._clock = clock
        self.num_streams = 0  # open
        self.follow(quota)

    def follow(self, quota: Quota) -> None:
        """Holds the client to another quota from now on; open streams stay open."""
        self.quota = quota
        self._frames = Bucket(quota.frames_per_s, self._clock)
        self._pixels = Bucket(quota.pixels_per_s, self._clock)

    @contextlib.contextmanager
    def open_stream(self) -> Iterator[None]:
        """Counts a stream in, and out at the end.

        Raises:
            QuotaError: if the client has as many as it may.
        """
        if self.num_streams >= self.quota.max_streams:
            raise QuotaError("streams", f"all {self.quota.max_streams:g} streams of {self.client} are taken", 1.0)
        self.num_streams += 1
        try:
            yield
        finally:
            self.num_streams -= 1

    def wait_s(self) -> float:
        """Seconds until the client may have another frame; 0 is now."""
        return max(self._frames.wait_s(), self._pixels.wait_s())

    def charge_frame(self) -> None:
        """Takes a frame from the quota."""
        self._frames.take(1)

    def charge_pixels(self, num_pixels: int) -> None:
        """Takes the pixels of a frame from the quota."""
        self._pixels.take(num_pixels)

    def charge_image(self) -> None:
        """Takes a frame that comes alone.

        Raises:
            QuotaError: if the quota is used up.
        """
        wait_s = self.wait_s()
        if wait_s > 0:
            subject = "frames per second" if self._frames.wait_s() > 0 else "pixels per second"
            raise QuotaError(subject, f"the {subject} of {self.client} are used up: wait {wait_s:.1f} s", wait_s)
        self.charge_frame()


def unlimited() -> Account:
    """The account of whoever calls where nobody is asked for a token."""
    return Account("everybody", Quota())
