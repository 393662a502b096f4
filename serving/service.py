"""The RPCs of `flowseg.v1`, and the one table from exceptions to status codes."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from importlib.metadata import version
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no py.typed

from serving.errors import (
    FrameFailedError,
    FrameRefusedError,
    IdleTimeoutError,
    InvalidRequestError,
    ModelNotFoundError,
    ServingError,
    StreamLimitError,
    UnavailableError,
)
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.messages import Limits, parse_config
from serving.models import Models
from serving.observability import Metrics
from serving.session import Session, StreamContext

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name
STATUS_CODES: dict[type[ServingError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    FrameRefusedError: grpc.StatusCode.INVALID_ARGUMENT,  # too many in a row
    FrameFailedError: grpc.StatusCode.INTERNAL,  # too many in a row
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    StreamLimitError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    IdleTimeoutError: grpc.StatusCode.ABORTED,
}
RETRY_AFTER_S = 1
ANSWER_GRACE_S = 10.0  # for the frames that were read before the server stopped reading
UNKNOWN_MODEL = "none"  # the metric label of streams that never had a model: no client may add labels
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: of whichever messages


class SegmentationService(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Serves models to streams."""

    def __init__(self, models: Models, limits: Limits, pool: Executor, metrics: Metrics) -> None:
        """Decodes and encodes in `pool`."""
        self._models = models
        self._limits = limits
        self._pool = pool
        self._metrics = metrics
        self._sessions: set[Session] = set()
        self._session_ended = asyncio.Event()
        self._numbers = itertools.count(1)
        self._is_draining = False

    async def SegmentStream(  # noqa: N802  # the schema's name
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: StreamContext
    ) -> None:
        """Segments one video."""
        del requests  # read through the context, so that reading stops when there is no room
        stream_id = f"stream-{next(self._numbers)}"
        label = UNKNOWN_MODEL
        code = grpc.StatusCode.CANCELLED
        try:
            config_message = await self._first_message(context)
            if self._is_draining:
                raise UnavailableError("the server shuts down: try again in a moment, or elsewhere")
            model = self._models.find(config_message.model)
            label = model.label
            config = parse_config(config_message, self._limits)
            stream = model.engine().open_stream(
                key_frame_interval=config.key_frame_interval, capacity=config.max_in_flight
            )
            session = Session(
                context=context,
                model=model,
                stream=stream,
                config=config,
                limits=self._limits,
                pool=self._pool,
                metrics=self._metrics,
            )
            self._sessions.add(session)
            logger.info("%s of %s opened by %s", stream_id, label, context.peer())
            started = pb.StreamStarted(
                stream_id=stream_id,
                model=model.describe(),
                max_in_flight=config.max_in_flight,
                key_frame_interval=config.key_frame_interval,
                max_consecutive_errors=self._limits.max_consecutive_errors,
            )
            try:
                await session.run(started)
            finally:
                self._sessions.discard(session)
                self._session_ended.set()
            code = grpc.StatusCode.OK
        except ServingError as error:
            code = status_code(error)
            await _abort(context, error)
        except Exception:
            if not context.done():  # else the client has gone, and writing to it failed
                code = grpc.StatusCode.INTERNAL
                logger.exception("%s failed: this is a bug", stream_id)
                await context.abort(code, "the server failed: its log says why")
        finally:
            self._metrics.stream_ended(label, code.name)
            logger.info("%s ended: %s", stream_id, code.name)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """The models of the server."""
        del request, context
        return pb.ListModelsResponse(models=[model.describe() for model in self._models])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """One model."""
        try:
            return pb.GetModelResponse(model=self._models.find(request.model).describe())
        except ServingError as error:
            await _abort(context, error)

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Version, load and limits."""
        del request, context
        return pb.GetServerInfoResponse(
            version=version("flowseg"),
            draining=self._is_draining,
            num_streams=len(self._sessions),
            limits=pb.Limits(
                max_streams=self._limits.max_streams,
                max_in_flight=self._limits.max_in_flight,
                max_frame_bytes=self._limits.max_frame_bytes,
                max_frame_pixels=self._limits.max_frame_pixels,
            ),
        )

    async def drain(self, grace_s: float) -> None:
        """Takes no new streams, tells the open ones, and ends those that are still open after `grace_s`.

        Returns once all have ended, or do not answer even then.
        """
        self._is_draining = True
        message = "the server shuts down"
        for session in self._sessions:
            session.notify(
                pb.StreamNotice(kind=pb.NOTICE_KIND_DRAINING, message=message, grace_ms=round(grace_s * 1e3))
            )
        await self._wait_for_sessions(grace_s)
        for session in self._sessions:
            session.end(UnavailableError(f"{message}: open the stream again, or elsewhere"))
        await self._wait_for_sessions(ANSWER_GRACE_S)

    async def _wait_for_sessions(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._sessions:
                    self._session_ended.clear()
                    await self._session_ended.wait()

    async def _first_message(self, context: StreamContext) -> pb.StreamConfig:
        try:
            async with asyncio.timeout(self._limits.idle_timeout_s):
                request = await context.read()
        except TimeoutError as error:
            raise IdleTimeoutError(f"nothing came for {self._limits.idle_timeout_s:g} s") from error
        if not isinstance(request, pb.SegmentStreamRequest) or not request.HasField("config"):
            raise InvalidRequestError("body", "the first message must be the configuration of the stream")
        return request.config


def status_code(error: ServingError) -> grpc.StatusCode:
    """The status that ends a call with this error."""
    return next(code for kind, code in STATUS_CODES.items() if isinstance(error, kind))


async def _abort(context: Context, error: ServingError) -> NoReturn:
    """Ends a call with the error's status and what tools need to know about it."""
    code = status_code(error)
    details: list[Message] = []
    if isinstance(error, InvalidRequestError | FrameRefusedError):
        field = error.field if isinstance(error, InvalidRequestError) else "frame.data"
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, StreamLimitError):
        quota = error_details_pb2.QuotaFailure.Violation(subject="streams", description=str(error))
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if isinstance(error, StreamLimitError | UnavailableError):
        details.append(error_details_pb2.RetryInfo(retry_delay={"seconds": RETRY_AFTER_S}))
    status = status_pb2.Status(code=code.value[0], message=str(error))
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort(code, str(error), (("grpc-status-details-bin", status.SerializeToString()),))
