"""grpc.health.v1 for the server and for each of its models, whose service name is the model's label (NAME@VERSION)."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from serving.models import Models
from serving.statuses import Context

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
LOOK_S = 0.5  # after which those who watch hear of a change at the latest, but for draining: of that at once


class ModelHealth(health_aio.HealthServicer):  # type: ignore[misc]  # it ships no types
    """Asks the models how they are. A model serves once it is warm, until it retires or an engine of it breaks.

    The server, as "" and by the names of its services, serves while new streams are welcome and a model serves.
    """

    def __init__(self, models: Models, services: tuple[str, ...], is_welcoming: Callable[[], bool]) -> None:
        """Nothing serves yet."""
        super().__init__()
        self._models, self._is_welcoming = models, is_welcoming
        self._of_server = ("", *services)
        self._labels: set[str] = set()  # of all models there ever were
        self._is_closed = False
        self._watchers: set[asyncio.Task[Any]] = set()  # Any: whatever a call returns

    async def refresh(self) -> None:
        """Looks at the models. Once the server drains, nothing serves, whatever they say."""
        is_ready = {model.label: model.is_ready for model in self._models}
        self._labels |= is_ready.keys()
        serves = self._is_welcoming() and any(is_ready.values())
        for name in self._of_server:
            await self.set(name, SERVING if serves else NOT_SERVING)
        for label in self._labels:
            if label in is_ready:
                await self.set(label, SERVING if is_ready[label] else NOT_SERVING)
            else:
                await self.set(label, SERVICE_UNKNOWN)

    async def keep_fresh(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_S)

    async def Check(  # noqa: N802  # the schema's name
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """How it is now."""
        await self.refresh()
        response = await super().Check(request, context)
        if response.status == SERVICE_UNKNOWN:  # which is for `Watch` to say
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return response

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """How it is now, and each time that changes."""
        task = asyncio.current_task()
        assert task is not None
        self._watchers.add(task)
        try:
            await self.refresh()
            await super().Watch(request, context)
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
            task.uncancel()  # by `close`: gRPC would leave the call of a task that is cancelled open
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server shuts down")
        finally:
            self._watchers.discard(task)

    def close(self) -> None:
        """Ends the calls of those who watch, which would last for ever."""
        self._is_closed = True
        for task in self._watchers:
            task.cancel()
