"""How a call failed, as far as it matters for what to do next."""

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # it ships no py.typed

DOMAIN = "flowseg"  # of the reasons that the server itself gives
DETAILS = "grpc-status-details-bin"
UNREACHABLE = "failed to connect to all addresses"  # begins gRPC's message
# Parts of gRPC's message, and what they mean to people: the same at the next attempt.
HANDSHAKES = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not signed by the CA that was given, or has expired",
    "Hostname Verification Check failed": "its certificate is for another host name or address",
    "WRONG_VERSION_NUMBER": "it does not encrypt: leave the CA away, or ask its operator",
}
SHUT = "Socket closed"  # in gRPC's message when a server hangs up before anything is said


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
    is_handshake: bool = False  # client and server do not agree on how to encrypt

    def error(self, more: str = "") -> CallError:
        """For the user."""
        if self.code == grpc.StatusCode.UNAUTHENTICATED:
            more += " (--token-file FILE)"
        return CallError(self.code, f"the server ended the call with {self.code.name}{more}: {self.message}")


def failure_of(error: grpc.RpcError) -> Failure:
    """What gRPC's exception says; both its kinds, of the blocking and of the asynchronous calls."""
    # AioRpcError has the same methods as grpc.Call without being one
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    message = " ".join((error.details() or "no reason given").split())
    handshake = ""
    if message.startswith(UNREACHABLE):  # with all that gRPC tried on the way
        handshake = next((sentence for part, sentence in HANDSHAKES.items() if part in message), "")
        message = handshake or f"it cannot be reached ({message.rpartition(': ')[2]})"
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
        is_handshake=bool(handshake),
    )


def stream_closed() -> CallError:
    """For a stream that its own user has closed while somebody waits for its answers."""
    return CallError(grpc.StatusCode.CANCELLED, "the stream is closed")


def no_server(server: str, failure: Failure) -> CallError:
    """For a server that was never heard of."""
    message = f"no server answers at {server}: start one with 'python -m serving.server BUNDLE'"
    if failure.is_handshake:
        message = f"the server at {server} is not the one that is wanted: {failure.message}"
    elif SHUT in failure.message:
        message = (
            f"the server at {server} hangs up: it wants an encrypted connection (--ca FILE), or a certificate of the"
            " client that it trusts (--certificate FILE --key FILE)"
        )
    return CallError(grpc.StatusCode.UNAVAILABLE, message)
