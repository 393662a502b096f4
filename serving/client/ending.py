"""How a call of grpc.aio ended, also if it ended while something was written.

A write that finds the call over makes grpc.aio put a status of its own (INTERNAL, "Internal error from Core") in the
place of the server's, whichever came first. So the status is noted at the moment it comes, and one that is grpc.aio's
own is waited behind.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

import grpc

from serving.client.failures import Failure, failure_of

T = TypeVar("T")
LOST = "Internal error from Core"  # grpc.aio's words for a write that failed
STATUS_S = 1.0  # that the server's status may come behind those
LOOK_S = 0.005


class _Status(NamedTuple):
    code: grpc.StatusCode
    message: str
    metadata: grpc.aio.Metadata

    @property
    def is_lost(self) -> bool:
        return self.code == grpc.StatusCode.INTERNAL and self.message.startswith(LOST)

    def failure(self) -> Failure | None:
        """None for OK."""
        if self.code == grpc.StatusCode.OK:
            return None
        return failure_of(grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), self.metadata, details=self.message))


class Ending:
    """The end of one call. To be made before anything is written."""

    def __init__(self, call: Any) -> None:  # Any: grpcio-tools writes no types for stubs
        """Waits for the end."""
        self._call = call
        self._noted: _Status | None = None
        call.add_done_callback(self._note)

    async def failure(self) -> Failure | None:
        """Why the call failed, once it is over; None for OK."""
        status = self._noted or await self._status()
        deadline = asyncio.get_running_loop().time() + STATUS_S
        while status.is_lost and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(LOOK_S)
            status = await self._status()
        return status.failure()

    async def _status(self) -> _Status:
        return _Status(await self._call.code(), await self._call.details() or "", await self._call.trailing_metadata())

    def _note(self, call: Any) -> None:  # Any: as above
        del call  # the same
        self._noted = _at_once(self._status())


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T | None:
    """What a coroutine gives that has nothing to wait for; None if it has."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    return None
