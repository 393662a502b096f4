"""The RPCs of `flowseg.v1.AdminService`: models that come and go, and streams that are looked at or ended."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

from serving.bundle_roots import BundleRoots
from serving.errors import InvalidRequestError, ServingError, StreamClosedByAdminError
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.loading import ModelLoader
from serving.models import Models, ServedModel
from serving.sessions import Sessions
from serving.statuses import Context, abort

ADMIN_SERVICE = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
MAX_GRACE_MS = 3_600_000


class AdminService(segmentation_pb2_grpc.AdminServiceServicer):
    """Works on a running server."""

    def __init__(
        self,
        models: Models,
        loader: ModelLoader,
        sessions: Sessions,
        drain: Callable[[float], Coroutine[None, None, None]],
        grace_s: float,
        roots: BundleRoots,
    ) -> None:
        """Drains by `drain`, within `grace_s` seconds unless told otherwise; loads bundles from `roots` alone."""
        self._models = models
        self._loader = loader
        self._sessions = sessions
        self._drain = drain
        self._grace_s = grace_s
        self._roots = roots
        self._draining: asyncio.Task[None] | None = None

    async def LoadModel(self, request: pb.LoadModelRequest, context: Context) -> pb.LoadModelResponse:  # noqa: N802
        """Loads a bundle and serves it."""
        try:
            if not request.bundle:
                raise InvalidRequestError("bundle", "name the folder of a bundle on the server's disk")
            model, retired = await self._loader.add(self._roots.find(request.bundle))
        except ServingError as error:
            await abort(context, error)
        announce_reload(self._sessions, model, retired)
        return pb.LoadModelResponse(model=model.describe(), retired=[other.label for other in retired])

    async def UnloadModel(self, request: pb.UnloadModelRequest, context: Context) -> pb.UnloadModelResponse:  # noqa: N802
        """Retires a version."""
        try:
            model = self._models.retire(request.model)
        except ServingError as error:
            await abort(context, error)
        num_streams = model.num_streams
        await self._loader.unload_finished()
        return pb.UnloadModelResponse(num_streams=num_streams)

    async def ListStreams(self, request: pb.ListStreamsRequest, context: Context) -> pb.ListStreamsResponse:  # noqa: N802
        """The open streams."""
        del request, context
        return pb.ListStreamsResponse(streams=[session.describe() for session in self._sessions])

    async def CloseStream(self, request: pb.CloseStreamRequest, context: Context) -> pb.CloseStreamResponse:  # noqa: N802
        """Ends a stream."""
        try:
            session = self._sessions.find(request.stream_id)
        except ServingError as error:
            await abort(context, error)
        session.end(StreamClosedByAdminError("an administrator closed the stream"))
        return pb.CloseStreamResponse()

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:  # noqa: N802
        """Takes no new streams and sees the open ones off; returns at once."""
        try:
            if request.grace_ms > MAX_GRACE_MS:
                raise InvalidRequestError("grace_ms", f"{request.grace_ms} is more than an hour ({MAX_GRACE_MS})")
        except ServingError as error:
            await abort(context, error)
        num_streams = len(self._sessions)
        self._draining = asyncio.create_task(self._drain(request.grace_ms / 1e3 or self._grace_s))
        return pb.DrainResponse(num_streams=num_streams)


def announce_reload(sessions: Sessions, model: ServedModel, retired: Sequence[ServedModel]) -> None:
    """Tells the streams of models that retire which one took their place."""
    message = f"new streams get {model.label}; this one goes on with what it has"
    for session in sessions:
        if session.model in retired:
            session.notify(pb.StreamNotice(kind=pb.NOTICE_KIND_MODEL_RELOADED, message=message, model=model.label))
