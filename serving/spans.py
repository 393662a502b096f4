"""What client and server tell of a call for its trace. The classes here tell nobody; `tracing.py` tells OpenTelemetry.

A trace is that of one stream: the client's call, the server's below it, and below each of them spans of frames. The
server's frames have parts: decode, queue, device, encode. A stream may last for days, so one frame in so many is told,
the same ones by client and server: those whose sequence number is a multiple.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from serving.generated.flowseg.v1 import segmentation_pb2 as pb

Attributes: TypeAlias = Mapping[str, str | int | float | bool]


class Part(NamedTuple):
    """A piece of time."""

    name: str
    started_at: float  # seconds, of time.perf_counter
    ended_at: float  # the same


class CallSpan:
    """A call that is not traced."""

    trace_id = ""  # 32 hex digits
    metadata: tuple[tuple[str, str], ...] = ()  # with which a client hands the trace on (W3C trace context)

    def describe(self, **attributes: str | bool) -> None:
        """Says more of the call."""

    def wants(self, sequence: int) -> bool:
        """Whether this frame is to be told."""
        del sequence
        return False

    def frame(self, whole: Part, parts: Sequence[Part], attributes: Attributes) -> None:
        """Tells of a frame that is wanted, once it is answered."""

    def end(self, status: str) -> None:
        """Tells the end of the call, with its gRPC status; the first one counts."""


class Tracing:
    """Traces nothing."""

    def make_call(self, method: str) -> CallSpan:
        """A call of a client."""
        del method
        return CallSpan()

    def serve_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallSpan:
        """A call that a server answers, with what came with it."""
        del method, metadata
        return CallSpan()

    def close(self) -> None:
        """Tells what has not been told yet; may take seconds."""


NO_CALL = CallSpan()
NO_TRACING = Tracing()


def open_tracing(destination: str | None, *, every: int, service: str) -> Tracing:
    """Tells of one frame in `every`, as a service of that name; None traces nothing, and loads nothing.

    Args:
        destination: http(s)://HOST:PORT of an OTLP collector (gRPC), otlp for that of OTEL_EXPORTER_OTLP_ENDPOINT,
            console for stderr, or a file that spans are added to, one object of JSON a line.
        every: frames.
        service: for who looks at the trace.

    Raises:
        ValueError: if OpenTelemetry is not installed, or the destination is none.
    """
    if destination is None:
        return NO_TRACING
    try:
        from serving.tracing import OpenTelemetryTracing
    except ModuleNotFoundError as error:
        raise ValueError(f"tracing needs {error.name}: install flowseg with its extra 'tracing'") from error
    return OpenTelemetryTracing(destination, every=every, service=service)


def parts_of(timings: pb.Timings, received_at: float, submitted_at: float | None) -> list[Part]:
    """The parts of a frame that was answered. Times between them are waits: for threads, and for earlier answers.

    Args:
        timings: as they were measured.
        received_at: when the frame was read, in seconds of time.perf_counter.
        submitted_at: when the engine got it; None if it did not, for a frame that was held.
    """
    parts = [Part("decode", received_at, received_at + timings.decode_ms / 1e3)]
    if submitted_at is not None:
        at = submitted_at
        for name, milliseconds in (
            ("queue", timings.queue_ms), ("device.key", timings.key_ms), ("device.step", timings.step_ms),
        ):  # fmt: skip
            if milliseconds:
                parts.append(Part(name, at, at := at + milliseconds / 1e3))
    ended_at = received_at + timings.total_ms / 1e3
    return [*parts, Part("encode", ended_at - timings.encode_ms / 1e3, ended_at)]
