"""What can go wrong with a stream or one of its frames. `service.py` holds the one table from these to status codes."""


class ServingError(Exception):
    """A failure with a sentence that may be shown to a client: it names no path and no line of code."""


class FrameRefusedError(ServingError):
    """A frame that cannot be segmented as it was sent; the stream goes on."""


class FrameFailedError(ServingError):
    """A frame on which the runtime failed; the stream goes on from the state before it."""


class FrameDroppedError(ServingError):
    """A frame that made way for newer ones before any work was done on it."""


class InvalidRequestError(ServingError):
    """A request that breaks the protocol; ends the stream."""

    def __init__(self, field: str, message: str) -> None:
        """Blames a field of the request."""
        super().__init__(f"{field}: {message}")
        self.field = field


class ModelNotFoundError(ServingError):
    """No model of that name and version."""


class StreamLimitError(ServingError):
    """No room for another stream."""


class UnavailableError(ServingError):
    """The server, or the model, is starting or shutting down."""


class StreamClosedError(UnavailableError):
    """The stream, or the engine below it, was closed while the frame waited."""


class IdleTimeoutError(ServingError):
    """The client sent nothing for too long."""
