"""Who may make which call over gRPC. Calls are refused before anything of them is read.

The table below is all there is: what is not in it needs a token of any role, and health needs none, so that whoever
balances load may ask.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc

from serving.clients import Caller, Clients, Role
from serving.errors import ServingError, StreamLimitError
from serving.quotas import unlimited
from serving.statuses import Context, abort, status_of

logger = logging.getLogger(__name__)

ANY: frozenset[Role] = frozenset({"stream", "admin", "monitor"})
SEGMENTATION, ADMIN = "/flowseg.v1.SegmentationService/", "/flowseg.v1.AdminService/"
SEGMENT_STREAM = SEGMENTATION + "SegmentStream"
OPEN_TO_ALL = "/grpc.health.v1.Health/"
# The first that a method begins with counts.
ROLES: dict[str, frozenset[Role]] = {
    SEGMENTATION + "SegmentStream": frozenset({"stream"}),
    SEGMENTATION + "SegmentImage": frozenset({"stream"}),
    SEGMENTATION: ANY,  # models, and the server's version, load and limits
    ADMIN: frozenset({"admin"}),
    "": ANY,  # reflection, and what does not exist
}
FIRST_WRITE_S = 0.05  # that a client may take from opening a call to its first message
QUIET_S = 10.0  # between lines about refused calls: nobody may fill the disk by being refused

_CALLER: ContextVar[Caller] = ContextVar("caller")


def current_caller() -> Caller:
    """Who makes the call that this task serves; where nobody is asked, somebody without limits of its own."""
    caller = _CALLER.get(None)
    return caller or Caller(unlimited(), ANY, "")


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Lets calls in."""

    def __init__(self, clients: Clients | None, max_open_streams: int) -> None:
        """Asks for tokens if there are `clients`, and has places for so many streams in all."""
        self._clients = clients
        self._max_open_streams = max_open_streams
        self._num_streams = 0
        self._num_refused, self._quiet_until = 0, 0.0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],  # Any: a handler of whichever messages
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # Any: the same
        """What serves the call."""
        method = handler_call_details.method
        if method.startswith(OPEN_TO_ALL):
            return await continuation(handler_call_details)
        try:
            if self._clients is not None:
                caller = self._clients.identify(_authorization(handler_call_details))
                caller.check(next(roles for prefix, roles in ROLES.items() if method.startswith(prefix)))
                _CALLER.set(caller)  # the call is served in this very task
        except ServingError as error:
            return self._refusal(method, error)
        handler = await continuation(handler_call_details)
        if method == SEGMENT_STREAM and handler is not None:
            return self._counted(handler)
        return handler

    def _refusal(self, method: str, error: ServingError) -> Any:  # Any: see above
        async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
            del requests  # not one of them is read
            self._note(method, error, context.peer())
            await _abort_unhurried(context, error)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _note(self, method: str, error: ServingError, peer: str) -> None:
        """Writes that a call was refused: not by whom it claimed to be, and not each time."""
        self._num_refused += 1
        now = time.monotonic()
        if now >= self._quiet_until:
            code = status_of(error).code.name
            logger.warning("refused %r of %s: %s (%d so far)", method[:80], peer, code, self._num_refused)
            self._quiet_until = now + QUIET_S

    def _counted(self, handler: Any) -> Any:  # Any: see above
        """Serves streams while there are places. One that has not yet said what it wants takes a place too."""

        async def serve(requests: AsyncIterator[Any], context: Context) -> None:
            try:
                with current_caller().account.open_stream(), self._place():
                    await handler.stream_stream(requests, context)
            except ServingError as error:  # of the counting alone: the service has its own way
                await _abort_unhurried(context, error)

        return grpc.stream_stream_rpc_method_handler(
            serve, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._num_streams >= self._max_open_streams:
            raise StreamLimitError(f"all {self._max_open_streams} streams of the server are taken: try again later")
        self._num_streams += 1
        try:
            yield
        finally:
            self._num_streams -= 1


async def _abort_unhurried(context: Context, error: ServingError) -> NoReturn:
    """Ends a call once its client has written what it writes first: grpc.aio loses the status if that fails."""
    await asyncio.sleep(FIRST_WRITE_S)
    await abort(context, error)


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    for name, value in details.invocation_metadata or ():
        if name == "authorization":
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None
