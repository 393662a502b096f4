"""Who may read what over HTTP: liveness and readiness everybody, the rest whoever has a token."""

from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.clients import Clients, Role
from serving.errors import PermissionDeniedError, ServingError

OPEN_TO_ALL = frozenset({"/healthz", "/readyz"})
READERS: frozenset[Role] = frozenset({"monitor", "admin"})  # figures tell of all clients


class HttpGuard:
    """An application behind a question for a token."""

    def __init__(self, app: ASGIApp, clients: Clients | None) -> None:
        """Lets everybody in if there are no `clients`."""
        self._app, self._clients = app, clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or refuses it before anything of it is read."""
        if self._clients is not None and scope.get("path") not in OPEN_TO_ALL:
            try:
                self._clients.identify(_authorization(scope)).check(READERS)
            except ServingError as error:
                is_known = isinstance(error, PermissionDeniedError)
                response = JSONResponse(
                    {"detail": str(error)},
                    status_code=403 if is_known else 401,
                    headers={} if is_known else {"WWW-Authenticate": "Bearer"},
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _authorization(scope: Any) -> str | None:  # Any: ASGI has no types for what is in a scope
    for name, value in scope.get("headers", ()):
        if name == b"authorization":
            return bytes(value).decode("latin-1")
    return None
