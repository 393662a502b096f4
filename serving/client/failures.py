"""How a call failed, as far as it matters for what to do next."""

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no py.typed

DOMAIN = "flowseg"  # of the reasons that the server itself gives
DETAILS = "grpc-status-details-bin"
UNREACHABLE = "failed to connect to all addresses"  # begins gRPC's message


class CallError(Exception):
    """A call that could not be made or broke, in one sentence for the user."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        """Keeps the status of the call."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The status of a call that was not OK."""

    code: grpc.StatusCode
    message: str
    reason: str = ""  # of ErrorInfo, if flowseg gave one: then it is no accident of the transport
    retry_after_s: float = 0.0  # of RetryInfo
    asks_to_retry: bool = False  # whether there is a RetryInfo

    def error(self, more: str = "") -> CallError:
        """For the user."""
        return CallError(self.code, f"the server ended the call with {self.code.name}{more}: {self.message}")


def failure_of(error: grpc.RpcError) -> Failure:
    """What gRPC's exception says; both its kinds, of the blocking and of the asynchronous calls."""
    # AioRpcError has the same methods as grpc.Call without being one
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    message = " ".join((error.details() or "no reason given").split())
    if message.startswith(UNREACHABLE):  # with all that gRPC tried on the way
        message = f"it cannot be reached ({message.rpartition(': ')[2]})"
    reason, retry_after_s, asks_to_retry = "", 0.0, False
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo.FromString(detail.value)
                    reason = info.reason if info.domain == DOMAIN else ""
                elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                    delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                    retry_after_s, asks_to_retry = delay.seconds + delay.nanos / 1e9, True
    return Failure(
        code=error.code(),
        message=message,
        reason=reason,
        retry_after_s=retry_after_s,
        asks_to_retry=asks_to_retry,
    )


def stream_closed() -> CallError:
    """For a stream that its own user has closed while somebody waits for its answers."""
    return CallError(grpc.StatusCode.CANCELLED, "the stream is closed")


def no_server(server: str) -> CallError:
    """For a server that was never heard of."""
    message = f"no server answers at {server}: start one with 'python -m serving.server BUNDLE'"
    return CallError(grpc.StatusCode.UNAVAILABLE, message)
