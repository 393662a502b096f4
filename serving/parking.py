"""Streams whose connection broke, kept for a while with their state on the device, for clients that come back.

A parked stream keeps its place among the open streams of its model: what is kept is bounded by what is admitted. Where
places run out, the one that waited longest makes room for a client that is there.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from serving.models import ServedModel
from serving.stream import Stream

TOKEN_BYTES = 24  # nobody guesses that many


def new_token() -> str:
    """A resume token."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def resume_key(client: str, token: str) -> str:
    """What a stream is kept under: nobody but its client can name it, and the time of a look-up tells nothing."""
    return hashlib.sha256(f"{client}\0{token}".encode()).hexdigest()


@dataclass(frozen=True)
class _Parked:
    stream: Stream
    model: ServedModel
    timer: asyncio.TimerHandle


class Parking:
    """Parked streams by their `resume_key`. For the event loop's thread alone."""

    def __init__(self, keep_s: float, ended: Callable[[ServedModel], None]) -> None:
        """Keeps streams for `keep_s` seconds, not at all if that is 0; tells `ended` of the model when one is gone."""
        self.keep_s = keep_s
        self._ended = ended
        self._parked: dict[str, _Parked] = {}  # who waits longest comes first

    def park(self, key: str, stream: Stream, model: ServedModel) -> None:
        """Keeps the state of a stream; frames that wait in it are given up."""
        if not self.keep_s or stream.is_closed:
            self._close(stream, model)
            return
        stream.abandon_frames()
        timer = asyncio.get_running_loop().call_later(self.keep_s, self._expire, key)
        self._parked[key] = _Parked(stream, model, timer)

    def take(self, key: str) -> Stream | None:
        """The stream of a key, which is parked no more; None if it broke meanwhile."""
        parked = self._parked.pop(key)
        parked.timer.cancel()
        return None if parked.stream.is_closed else parked.stream

    def model_of(self, key: str) -> ServedModel | None:
        """The model of a parked stream, which may be an older version than new streams get; None if there is none."""
        parked = self._parked.get(key)
        return None if parked is None else parked.model

    def make_room(self, model: ServedModel) -> bool:
        """Lets go of the stream of a model that waited longest. Returns whether there was one."""
        for key, parked in self._parked.items():
            if parked.model is model:
                self._expire(key)
                return True
        return False

    def clear(self) -> None:
        """Lets go of all."""
        for key in list(self._parked):
            self._expire(key)

    def _expire(self, key: str) -> None:
        parked = self._parked.pop(key)
        parked.timer.cancel()
        self._close(parked.stream, parked.model)

    def _close(self, stream: Stream, model: ServedModel) -> None:
        stream.close()
        self._ended(model)
