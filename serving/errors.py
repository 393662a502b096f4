"""What can go wrong with a stream or one of its frames. `statuses.py` holds the one table from these to statuses."""

from enum import Enum


class ServingError(Exception):
    """A failure with a sentence that may be shown to a client: it names no path and no line of code."""


class FrameRefusedError(ServingError):
    """A frame that cannot be segmented as it was sent; the stream goes on."""


class FrameFailedError(ServingError):
    """A frame on which the runtime failed; the stream goes on from the state before it."""


class DeviceMemoryError(FrameFailedError):
    """A frame for which the device had no memory left."""


class DropReason(Enum):
    """Why a frame was dropped; the value is for people."""

    SUPERSEDED = "a newer frame took its place"
    DEADLINE = "its deadline passed"
    OVERLOAD = "the latency objective could not be held with it"
    QUOTA = "the quota of its client was used up"


class FrameDroppedError(ServingError):
    """A frame that was given up before any work was done on it."""

    def __init__(self, reason: DropReason) -> None:
        """Keeps the reason."""
        super().__init__(reason.value)
        self.reason = reason


class InvalidRequestError(ServingError):
    """A request that breaks the protocol; ends the stream."""

    def __init__(self, field: str, message: str) -> None:
        """Blames a field of the request."""
        super().__init__(f"{field}: {message}")
        self.field = field


class ModelNotFoundError(ServingError):
    """No model of that name and version."""


class StreamNotFoundError(ServingError):
    """No open stream of that name."""


class StreamLimitError(ServingError):
    """No room for another stream."""


class QuotaError(ServingError):
    """A client has used up what it may have."""

    def __init__(self, subject: str, message: str, retry_after_s: float) -> None:
        """Names what is used up, and when there will be more of it."""
        super().__init__(message)
        self.subject = subject
        self.retry_after_s = retry_after_s


class UnauthenticatedError(ServingError):
    """Nobody knows who calls."""


class PermissionDeniedError(ServingError):
    """A client that may not do this."""


class UnavailableError(ServingError):
    """The server, or the model, is starting or shutting down."""


class StreamClosedError(UnavailableError):
    """The stream, or the engine below it, was closed while the frame waited."""


class IdleTimeoutError(ServingError):
    """The client sent nothing, or took nothing, for too long."""


class FrameTooLargeError(ServingError):
    """A frame of more bytes than the server takes; ends the stream."""


class StreamMovedError(ServingError):
    """Another call goes on with the stream."""


class StreamClosedByAdminError(ServingError):
    """An administrator closed the stream."""


class ModelLoadError(ServingError):
    """A bundle that cannot be served."""


class ModelExistsError(ServingError):
    """A model of that name and version is served already."""


class LastModelError(ServingError):
    """Without this model the server would have none."""
