"""The open streams of a server: by name, by token, and all together when it drains."""

import asyncio
import contextlib
import functools
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from serving.clients import Clients
from serving.errors import StreamNotFoundError, UnauthenticatedError, UnavailableError
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.session import Session

ANSWER_GRACE_S = 10.0  # for the frames that were read before the server stopped reading
TAKE_OVER_S = 5.0  # for a session to let go of its stream


@dataclass(eq=False)
class _Open:
    session: Session
    task: asyncio.Task[Any] | None  # of the call; Any: whatever it returns


class Sessions:
    """Open sessions. For the event loop's thread alone."""

    def __init__(self) -> None:
        """None yet."""
        self._open: dict[str, _Open] = {}  # by the name of the stream
        self._ended = asyncio.Event()
        self.draining = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Whether new streams are sent elsewhere."""
        return self.draining.is_set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        """Who came first comes first."""
        return iter([each.session for each in self._open.values()])

    @contextlib.contextmanager
    def keep(self, session: Session) -> Iterator[None]:
        """Counts a session in, and out at the end. To be entered in the task of its call."""
        self._open[session.started.stream_id] = _Open(session, asyncio.current_task())
        try:
            yield
        finally:
            del self._open[session.started.stream_id]
            self._ended.set()

    def find(self, stream_id: str) -> Session:
        """The session of a stream.

        Raises:
            StreamNotFoundError: if there is none.
        """
        if stream_id not in self._open:
            raise StreamNotFoundError(f"there is no open stream {stream_id[:130]!r}")
        return self._open[stream_id].session

    async def give_way(self, key: str) -> None:
        """Ends the session of a `resume_key` at once: its client is back before the server has missed it."""
        for stream_id, holder in list(self._open.items()):
            if hmac.compare_digest(holder.session.resume_key, key) and holder.task is not None:
                holder.session.has_moved = True
                holder.task.cancel()
                await self._wait_until(functools.partial(self._is_gone, stream_id), TAKE_OVER_S)

    def end_unknown(self, clients: Clients) -> None:
        """Ends the streams of callers that would not be let in again."""
        for session in self:
            if session.caller.token_sha256 and not clients.still_knows(session.caller, "stream"):
                session.end(UnauthenticatedError("the token of this stream was taken back"))

    async def drain(self, grace_s: float) -> None:
        """Takes no new streams, tells the open ones, and ends those that are still open after `grace_s`.

        Returns once all have ended, or do not answer even then.
        """
        self.draining.set()
        message = "the server shuts down"
        for session in self:
            session.notify(
                pb.StreamNotice(kind=pb.NOTICE_KIND_DRAINING, message=message, grace_ms=round(grace_s * 1e3))
            )
        await self._wait_until(lambda: not self._open, grace_s)
        for session in self:
            session.end(UnavailableError(f"{message}: open the stream again, or elsewhere"))
        await self._wait_until(lambda: not self._open, ANSWER_GRACE_S)

    def _is_gone(self, stream_id: str) -> bool:
        return stream_id not in self._open

    async def _wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_so():
                    self._ended.clear()
                    await self._ended.wait()
