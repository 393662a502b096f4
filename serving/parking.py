"""Streams whose connection broke, kept for a while with their state on the device, for clients that come back.

A parked stream keeps its place among the open streams of its model: what is kept is bounded by what is admitted. Where
places run out, the one that waited longest makes room for a client that is there.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from serving.models import ServedModel
from serving.stream import Stream

TOKEN_BYTES = 24  # nobody guesses that many


def new_token() -> str:
    """A resume token."""
    return secrets.token_urlsafe(TOKEN_BYTES)


@dataclass(frozen=True)
class _Parked:
    stream: Stream
    model: ServedModel
    timer: asyncio.TimerHandle


class Parking:
    """Parked streams by their tokens. For the event loop's thread alone."""

    def __init__(self, keep_s: float, ended: Callable[[ServedModel], None]) -> None:
        """Keeps streams for `keep_s` seconds, not at all if that is 0; tells `ended` of the model when one is gone."""
        self.keep_s = keep_s
        self._ended = ended
        self._parked: dict[str, _Parked] = {}  # who waits longest comes first

    def park(self, token: str, stream: Stream, model: ServedModel) -> None:
        """Keeps the state of a stream; frames that wait in it are given up."""
        if not self.keep_s or stream.is_closed:
            self._close(stream, model)
            return
        stream.abandon_frames()
        timer = asyncio.get_running_loop().call_later(self.keep_s, self._expire, token)
        self._parked[token] = _Parked(stream, model, timer)

    def take(self, token: str) -> Stream | None:
        """The stream of a token, which is parked no more; None if it broke meanwhile."""
        parked = self._parked.pop(token)
        parked.timer.cancel()
        return None if parked.stream.is_closed else parked.stream

    def model_of(self, token: str) -> ServedModel | None:
        """The model of a parked stream, which may be an older version than new streams get; None if there is none."""
        parked = self._parked.get(token)
        return None if parked is None else parked.model

    def make_room(self, model: ServedModel) -> bool:
        """Lets go of the stream of a model that waited longest. Returns whether there was one."""
        for token, parked in self._parked.items():
            if parked.model is model:
                self._expire(token)
                return True
        return False

    def clear(self) -> None:
        """Lets go of all."""
        for token in list(self._parked):
            self._expire(token)

    def _expire(self, token: str) -> None:
        parked = self._parked.pop(token)
        parked.timer.cancel()
        self._close(parked.stream, parked.model)

    def _close(self, stream: Stream, model: ServedModel) -> None:
        stream.close()
        self._ended(model)
