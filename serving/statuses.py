"""The one table from exceptions to gRPC statuses, and the details that tools read."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no py.typed

from serving.errors import (
    DeviceMemoryError,
    FrameFailedError,
    FrameRefusedError,
    FrameTooLargeError,
    IdleTimeoutError,
    InvalidRequestError,
    LastModelError,
    ModelExistsError,
    ModelLoadError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaError,
    ServingError,
    StreamClosedByAdminError,
    StreamLimitError,
    StreamMovedError,
    StreamNotFoundError,
    UnauthenticatedError,
    UnavailableError,
)

RETRY_AFTER_S = 1
DOMAIN = "flowseg"  # of the reasons
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: of whichever messages


class Status(NamedTuple):
    """How a call ends with an error."""

    code: grpc.StatusCode
    reason: str  # for machines, in ErrorInfo
    details: tuple[Callable[[ServingError], Message], ...] = ()


def _bad_request(error: ServingError) -> Message:
    field = error.field if isinstance(error, InvalidRequestError) else "frame.data"
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=str(error))
    return cast("Message", error_details_pb2.BadRequest(field_violations=[violation]))


def _quota_failure(error: ServingError) -> Message:
    subject = {StreamLimitError: "streams", FrameTooLargeError: "frame bytes"}.get(type(error), "device memory")
    if isinstance(error, QuotaError):
        subject = error.subject
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=str(error))
    return cast("Message", error_details_pb2.QuotaFailure(violations=[violation]))


def _retry_info(error: ServingError) -> Message:
    retry_after_s = error.retry_after_s if isinstance(error, QuotaError) else RETRY_AFTER_S
    return cast("Message", error_details_pb2.RetryInfo(retry_delay={"seconds": math.ceil(retry_after_s)}))


# The first that an error is an instance of counts. Frames that are refused or fail end a stream after many in a row.
STATUSES: dict[type[ServingError], Status] = {
    InvalidRequestError: Status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", (_bad_request,)),
    FrameRefusedError: Status(grpc.StatusCode.INVALID_ARGUMENT, "FRAME_REFUSED", (_bad_request,)),
    FrameTooLargeError: Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "FRAME_TOO_LARGE", (_quota_failure,)),
    DeviceMemoryError: Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "DEVICE_MEMORY", (_quota_failure, _retry_info)),
    FrameFailedError: Status(grpc.StatusCode.INTERNAL, "FRAME_FAILED"),
    ModelNotFoundError: Status(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    StreamNotFoundError: Status(grpc.StatusCode.NOT_FOUND, "STREAM_NOT_FOUND"),
    StreamLimitError: Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "STREAM_LIMIT", (_quota_failure, _retry_info)),
    QuotaError: Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA", (_quota_failure, _retry_info)),
    UnauthenticatedError: Status(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDeniedError: Status(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
    UnavailableError: Status(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", (_retry_info,)),
    IdleTimeoutError: Status(grpc.StatusCode.ABORTED, "IDLE_TIMEOUT"),
    StreamMovedError: Status(grpc.StatusCode.ABORTED, "RESUMED_ELSEWHERE"),
    StreamClosedByAdminError: Status(grpc.StatusCode.CANCELLED, "CLOSED_BY_ADMIN"),
    ModelLoadError: Status(grpc.StatusCode.INVALID_ARGUMENT, "BAD_BUNDLE"),
    ModelExistsError: Status(grpc.StatusCode.ALREADY_EXISTS, "MODEL_EXISTS"),
    LastModelError: Status(grpc.StatusCode.FAILED_PRECONDITION, "LAST_MODEL"),
}


def status_of(error: ServingError) -> Status:
    """How a call ends with this error."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


async def abort(context: Context, error: ServingError) -> NoReturn:
    """Ends a call with the error's status and what tools need to know about it."""
    code, reason, details = status_of(error)
    message = status_pb2.Status(code=code.value[0], message=str(error))
    message.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    for detail in details:
        message.details.add().Pack(detail(error))
    await context.abort(code, str(error), (("grpc-status-details-bin", message.SerializeToString()),))
