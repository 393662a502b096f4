"""Ctrl-C, and whatever else ends a video early: the first one ends the source, the second one the program."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import numpy as np
from numpy.typing import NDArray


class Interruption:
    """Whether the video is to end early."""

    def __init__(self) -> None:
        """Not so far."""
        self.is_wanted = False
        self.has_cut = False  # frames are missing for it

    def watch(self, frames: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """The frames until it is wanted."""
        for frame in frames:
            if self.is_wanted:
                self.has_cut = True
                return
            yield frame


@contextlib.contextmanager
def on_interrupt(interruption: Interruption, tell: Callable[[], None]) -> Iterator[None]:
    """Turns the first SIGINT into a wish, of which `tell` tells; the second one is a KeyboardInterrupt.

    For the main thread.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interruption.is_wanted:
            raise KeyboardInterrupt
        interruption.is_wanted = True
        tell()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
