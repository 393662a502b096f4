"""The HTTP side of a server: is it alive, is it ready, what does it do, what does it serve."""

import contextlib
import socket
import ssl
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI, Response, status
from google.protobuf.json_format import MessageToDict
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, JsonValue
from starlette.types import ASGIApp

from serving.drift import DriftMeter
from serving.models import Models
from serving.observability import Metrics


class AddressError(Exception):
    """An address that cannot be listened on, in one sentence for the user."""


class Health(BaseModel):
    """Whether something is as it should be, and if not, why."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    reason: str


class Readiness:
    """Whether new streams are welcome; the server says when that changes."""

    def __init__(self) -> None:
        """Not yet."""
        self.is_ready = False
        self.reason = "models are loading"

    def set(self, is_ready: bool, reason: str) -> None:
        """Says whether, and why not."""
        self.is_ready, self.reason = is_ready, reason


def create_app(models: Models, readiness: Readiness, metrics: Metrics) -> FastAPI:
    """The HTTP endpoints."""
    app = FastAPI(title="flowseg", docs_url=None, redoc_url=None)

    @app.get("/healthz")
    def healthz(response: Response) -> Health:
        """Whether the process works: 503 means restart it."""
        dead = [model.label for model in models if model.has_stopped]
        if dead and readiness.is_ready:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
            return Health(ok=False, reason=f"stopped: {', '.join(dead)}")
        return Health(ok=True, reason="")

    @app.get("/readyz")
    def readyz(response: Response) -> Health:
        """Whether new streams are welcome: 503 means send them elsewhere."""
        if not readiness.is_ready:
            response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return Health(ok=readiness.is_ready, reason=readiness.reason)

    @app.get("/metrics")
    def prometheus() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    def list_models() -> dict[str, list[dict[str, JsonValue]]]:
        """The models as ListModels gives them, and the drift of each: of all its streams, signal by signal."""
        return {
            "models": [
                MessageToDict(
                    model.describe(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
                | {"drift": model.drift.drift, "signals": _signals(model.drift)}
                for model in models
            ]
        }

    return app


def _signals(meter: DriftMeter) -> dict[str, JsonValue]:
    return {name: signal.describe() for name, signal in meter.signals.items()}


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the command has its own."""

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        """Serves the app, quietly, and encrypted if there is `tls`."""
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
                server_header=False,
                ssl_context_factory=None if tls is None else lambda *_: tls,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        AddressError: if it is taken or not ours.
    """
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # the address would follow, once more
        raise AddressError(f"cannot listen on {host}:{port}: {reason}") from error
