"""The RPCs of `flowseg.v1.SegmentationService`."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from importlib.metadata import version

import grpc
from google.protobuf.message import DecodeError

from serving.answering import Surroundings
from serving.answers import AnswerEncoder, Outcome, decode_frame
from serving.decoders import open_decoder
from serving.errors import (
    FrameTooLargeError,
    IdleTimeoutError,
    InvalidRequestError,
    ServingError,
    StreamLimitError,
    StreamMovedError,
    UnavailableError,
)
from serving.gatekeeper import current_caller
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.key_frames import Manual
from serving.logs import enter_stream
from serving.messages import Limits, SessionConfig, key_frame_policy, parse_config, parse_format, parse_outputs
from serving.models import Models, ServedModel
from serving.observability import UNKNOWN_MODEL
from serving.parking import Parking, new_token, resume_key
from serving.session import Session, StreamContext
from serving.sessions import Sessions
from serving.spans import CallSpan, Part, parts_of
from serving.statuses import Context, abort, status_of
from serving.stream import Stream
from serving.undecodable import undecodable

logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["SegmentationService"].full_name


class SegmentationService(segmentation_pb2_grpc.SegmentationServiceServicer):
    """Serves models to streams."""

    def __init__(
        self,
        models: Models,
        surroundings: Surroundings,
        sessions: Sessions,
        unload_finished: Callable[[], Awaitable[None]],
    ) -> None:
        """Keeps open streams in `sessions`, and calls `unload_finished` when a stream of a model that retires ends."""
        self._models = models
        self._surroundings = surroundings
        self._limits = surroundings.limits
        self._sessions = sessions
        self._unload_finished = unload_finished
        self._parking = Parking(self._limits.resume_s, self._stream_ended)
        self._unloading: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    async def SegmentStream(  # noqa: N802  # the schema's name
        self, requests: AsyncIterator[pb.SegmentStreamRequest], context: StreamContext
    ) -> None:
        """Segments one video."""
        del requests  # read through the context, so that reading stops when there is no room
        stream_id = f"stream-{next(self._numbers)}"
        span = self._surroundings.tracing.serve_call("SegmentStream", context.invocation_metadata() or ())
        enter_stream(stream_id, span.trace_id)
        label = UNKNOWN_MODEL
        code = grpc.StatusCode.CANCELLED
        caller = current_caller()
        client, limits = caller.account.client, caller.account.quota.tighten(self._limits)
        try:
            config_message = await self._first_message(context, limits)
            self._check_welcome()
            config = parse_config(config_message, limits)
            key = resume_key(client, config.resume_token) if config.resume_token else ""
            model, stream, is_resumed = await self._open(config_message.model, config, key)
            label, stream.name = model.label, stream_id
            started = self._started(stream_id, model, config, is_resumed=is_resumed)
            session = Session(
                started=started,
                context=context,
                model=model,
                stream=stream,
                config=config,
                surroundings=replace(self._surroundings, limits=limits),
                caller=caller,
                resume_key=resume_key(client, started.resume_token),
                span=span,
            )
            span.describe(stream=stream_id, model=label, resumed=is_resumed)
            did = "resumed" if is_resumed else "opened"
            logger.info("%s of %s %s by %s at %s", stream_id, label, did, client, context.peer())
            watch = self._surroundings.metrics.streams.watch(label, stream_id, session.figures)
            with self._sessions.keep(session), watch:
                await self._run(session, context)
            code = grpc.StatusCode.OK
        except ServingError as error:
            code = status_of(error).code
            await abort(context, error)
        except Exception:
            if not context.done():  # else the client has gone, and writing to it failed
                code = grpc.StatusCode.INTERNAL
                logger.exception("%s failed: this is a bug", stream_id)
                await context.abort(code, "the server failed: its log says why")
        finally:
            self._surroundings.metrics.stream_ended(label, code.name)
            span.end(code.name)
            logger.info("%s ended: %s", stream_id, code.name)

    async def SegmentImage(  # noqa: N802
        self, request: pb.SegmentImageRequest, context: Context
    ) -> pb.SegmentImageResponse:
        """Segments one image."""
        span = self._surroundings.tracing.serve_call("SegmentImage", context.invocation_metadata() or ())
        code = grpc.StatusCode.INTERNAL  # what else is raised is a bug
        try:
            response = pb.SegmentImageResponse(result=await self._segment_image(request, span))
            code = grpc.StatusCode.OK
            return response
        except ServingError as error:
            code = status_of(error).code
            await abort(context, error)
        finally:
            span.end(code.name)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """The models of the server."""
        del request, context
        return pb.ListModelsResponse(models=[model.describe() for model in self._models])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """One model."""
        try:
            return pb.GetModelResponse(model=self._models.find(request.model).describe())
        except ServingError as error:
            await abort(context, error)

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Version, load and limits."""
        del request, context
        limits = current_caller().account.quota.tighten(self._limits)
        return pb.GetServerInfoResponse(
            version=version("flowseg"),
            draining=self._sessions.is_draining,
            num_streams=len(self._sessions),
            limits=pb.Limits(
                max_streams=limits.max_streams,
                max_in_flight=limits.max_in_flight,
                max_frame_bytes=limits.max_frame_bytes,
                max_frame_pixels=limits.max_frame_pixels,
            ),
        )

    def close(self) -> None:
        """Lets go of the streams that wait to be resumed."""
        self._parking.clear()

    async def _run(self, session: Session, context: StreamContext) -> None:
        """Runs a session; then closes its stream, or keeps it if the client was lost."""
        is_lost = True
        try:
            await session.run()
            is_lost = False
        except ServingError:
            is_lost = False
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not session.has_moved or task is None:
                raise
            task.uncancel()  # this call may still end in good order
            raise StreamMovedError("the stream goes on in another call") from None
        except Exception:
            is_lost = context.done()
            raise
        finally:
            if is_lost:
                self._parking.park(session.resume_key, session.stream, session.model)
            else:
                session.stream.close()
                self._stream_ended(session.model)

    async def _open(self, name: str, config: SessionConfig, key: str) -> tuple[ServedModel, Stream, bool]:
        """The model of that name, a stream in it, and whether that is the one of the resume key; "" is none."""
        if key:
            await self._sessions.give_way(key)
            self._check_welcome()  # again: draining tells those that are open, and this one is not yet
            model = self._parking.model_of(key)
            if model is not None and name in ("", model.name, model.label):
                stream = self._parking.take(key)
                if stream is not None:
                    stream.resize(config.max_in_flight)
                    stream.follow(key_frame_policy(config.key_frames, model.bundle.manifest.baseline))
                    stream.stretch_intervals(1)
                    return model, stream, True
        model = self._models.find(name)
        policy = key_frame_policy(config.key_frames, model.bundle.manifest.baseline)
        try:
            return model, model.open_stream(policy, config.max_in_flight), False
        except StreamLimitError:
            if not self._parking.make_room(model):
                raise
            return model, model.open_stream(policy, config.max_in_flight), False

    def _started(
        self, stream_id: str, model: ServedModel, config: SessionConfig, *, is_resumed: bool
    ) -> pb.StreamStarted:
        return pb.StreamStarted(
            stream_id=stream_id,
            model=model.describe(),
            max_in_flight=config.max_in_flight,
            key_frames=config.key_frames,
            max_consecutive_errors=self._limits.max_consecutive_errors,
            resume_token=new_token(),
            resumed=is_resumed,
            resume_ms=round(self._limits.resume_s * 1e3),
        )

    async def _segment_image(self, request: pb.SegmentImageRequest, span: CallSpan) -> pb.FrameResult:
        received_at = time.perf_counter()
        self._check_welcome()
        account = current_caller().account
        limits = account.quota.tighten(self._limits)
        encoding, size = parse_format(request.format, "format", limits)
        if encoding.is_video:
            raise InvalidRequestError("format.encoding", "an image is no video: send it as JPEG, PNG or raw")
        if len(request.data) > limits.max_frame_bytes:
            raise FrameTooLargeError(
                f"the image has {len(request.data)} bytes, at most {limits.max_frame_bytes} are taken"
            )
        account.charge_image()
        outputs = parse_outputs(request.outputs, "outputs")
        model = self._models.find(request.model)
        run = asyncio.get_running_loop().run_in_executor
        with model.open_stream(Manual(), capacity=1) as stream:
            decoder = open_decoder(encoding, size, max_pixels=limits.max_frame_pixels)
            keeps_native = bool(outputs.overlay)
            decoded = await run(self._surroundings.pool, decode_frame, decoder, request.data, model.size, keeps_native)
            account.charge_pixels(decoded.native_size.width * decoded.native_size.height)
            submitted_at = time.perf_counter()
            result = await asyncio.wrap_future(stream.submit(decoded.image))
        encoder = AnswerEncoder(model, outputs)
        message = await run(self._surroundings.pool, encoder.encode, pb.Frame(), decoded, Outcome(result), received_at)
        if span.wants(message.sequence):
            parts = parts_of(message.timings, received_at, submitted_at)
            span.frame(Part("frame", received_at, parts[-1].ended_at), parts, {"model": model.label})
        return message

    def _check_welcome(self) -> None:
        if self._sessions.is_draining:
            raise UnavailableError("the server shuts down: try again in a moment, or elsewhere")

    def _stream_ended(self, model: ServedModel) -> None:
        if model.is_retiring:
            task = asyncio.ensure_future(self._unload_finished())
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)

    async def _first_message(self, context: StreamContext, limits: Limits) -> pb.StreamConfig:
        reading = asyncio.ensure_future(context.read())
        draining = asyncio.ensure_future(self._sessions.draining.wait())
        try:
            waited_for = {reading, draining}  # who has not said what he wants can still go elsewhere at once
            await asyncio.wait(waited_for, timeout=limits.idle_timeout_s, return_when=asyncio.FIRST_COMPLETED)
            self._check_welcome()
            if not reading.done():
                raise IdleTimeoutError(f"nothing came for {limits.idle_timeout_s:g} s")
            request = reading.result()
        except DecodeError as error:
            raise undecodable() from error
        finally:
            reading.cancel()
            draining.cancel()
        if not isinstance(request, pb.SegmentStreamRequest) or not request.HasField("config"):
            raise InvalidRequestError("body", "the first message must be the configuration of the stream")
        return request.config
