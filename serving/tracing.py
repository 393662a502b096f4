"""Traces for OpenTelemetry. Nothing but `spans.open_tracing` imports this: its libraries are an extra, `tracing`.

No global of OpenTelemetry is set, so an application that traces itself keeps its own; if it has a span open when our
client calls, the call is below it.
"""

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.spans import Attributes, CallSpan, Part, Tracing

PROPAGATOR = TraceContextTextMapPropagator()
HEADERS = ("traceparent", "tracestate")
EXPORT_S = 3.0  # that a collector may take: one that is gone must not keep a server from leaving
MAX_HEADER = 512  # characters that are read of a client's


class OpenTelemetryTracing(Tracing):
    """Hands spans to an exporter, on a thread of its own whose queue is bounded: what does not fit is lost."""

    def __init__(self, destination: str, *, every: int, service: str) -> None:
        """As `open_tracing`."""
        self._every = every
        exporter, self._file = _open_exporter(destination)
        resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", service)})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("flowseg")

    def make_call(self, method: str) -> CallSpan:
        """Below the span that is open here, if there is one."""
        return _TracedCall(self._tracer, method, SpanKind.CLIENT, None, self._every)

    def serve_call(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallSpan:
        """Below the client's call, if that is traced; whether it is sampled is then the client's choice."""
        carrier = {name: value[:MAX_HEADER] for name, value in metadata if name in HEADERS and isinstance(value, str)}
        return _TracedCall(self._tracer, method, SpanKind.SERVER, PROPAGATOR.extract(carrier, Context()), self._every)

    def close(self) -> None:
        """Hands on what waits, and stops the thread."""
        self._provider.shutdown()
        if self._file is not None:
            self._file.close()


class _TracedCall(CallSpan):
    def __init__(self, tracer: Tracer, method: str, kind: SpanKind, parent: Context | None, every: int) -> None:
        self._tracer, self._every = tracer, every
        self._span = tracer.start_span(
            f"flowseg.v1.SegmentationService/{method}",
            parent,
            kind,
            {"rpc.system": "grpc", "rpc.service": "flowseg.v1.SegmentationService", "rpc.method": method},
        )
        self._context = set_span_in_context(self._span, parent)
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, self._context)
        self.metadata = tuple(carrier.items())

    def describe(self, **attributes: str | bool) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"flowseg.{name}", value)

    def wants(self, sequence: int) -> bool:
        return sequence % self._every == 0 and self._span.is_recording()

    def frame(self, whole: Part, parts: Sequence[Part], attributes: Attributes) -> None:
        to_ns = time.time_ns() - time.perf_counter_ns()  # anew each time: the clocks drift apart in days
        named = {f"flowseg.{name}": value for name, value in attributes.items()}
        span = self._start(whole, self._context, to_ns)
        span.set_attributes(named)
        below = set_span_in_context(span, self._context)
        for part in parts:
            self._start(part, below, to_ns).end(round(part.ended_at * 1e9) + to_ns)
        span.end(round(whole.ended_at * 1e9) + to_ns)

    def end(self, status: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("rpc.grpc.status", status)
            if status not in ("OK", "CANCELLED"):
                self._span.set_status(Status(StatusCode.ERROR, status))
            self._span.end()

    def _start(self, part: Part, context: Context, to_ns: int) -> Span:
        return self._tracer.start_span(part.name, context, start_time=round(part.started_at * 1e9) + to_ns)


def _open_exporter(destination: str) -> tuple[SpanExporter, TextIO | None]:
    """The exporter, and the file to close after it."""
    if destination == "otlp":
        return OTLPSpanExporter(), None
    if destination.startswith(("http://", "https://")):
        return OTLPSpanExporter(endpoint=destination, timeout=EXPORT_S), None
    if "://" in destination:
        raise ValueError(f"{destination} is nowhere to trace to: give http://HOST:PORT, otlp, console or a file")
    if destination == "console":
        return ConsoleSpanExporter(out=sys.stderr, formatter=_line), None
    try:
        descriptor = os.open(Path(destination), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise ValueError(f"{destination} cannot be traced to ({error.strerror}): choose another file") from error
    file = os.fdopen(descriptor, "a", encoding="utf-8")
    return ConsoleSpanExporter(out=file, formatter=_line), file


def _line(span: ReadableSpan) -> str:
    return f"{span.to_json(indent=None)}\n"
