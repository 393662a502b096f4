"""Spans of a stream, from the client's call to the parts of its frames on the server."""

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client import AsyncSegmentationClient, CallError, SegmentationClient, Tracing, open_tracing
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.spans import NO_CALL, NO_TRACING, Part, parts_of
from tests.serving.client.streams import LOSSLESS, frames_of
from tests.serving.conftest import PATIENCE_S, REPOSITORY, STEP_POISON, ServerProcess, start_server, toy_frame
from tests.serving.conversations import in_asyncio
from tests.serving.test_logs import lines_of

CALL = "flowseg.v1.SegmentationService/SegmentStream"
IMAGE = "flowseg.v1.SegmentationService/SegmentImage"
Spans = list[dict[str, Any]]  # Any: JSON


def spans_in(path: Path) -> Spans:
    return [json.loads(line) for line in path.read_text().splitlines()]


def below(spans: Spans, parent: dict[str, Any]) -> Spans:
    return [span for span in spans if span["parent_id"] == parent["context"]["span_id"]]


def of_trace(spans: Spans, call: dict[str, Any]) -> Spans:
    return [span for span in spans if span["context"]["trace_id"] == call["context"]["trace_id"]]


@dataclass(frozen=True)
class Traced:
    client: Spans
    server: Spans
    log: list[dict[str, str]]


@pytest.fixture(scope="module")
def traced(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Five frames of which the fourth fails, every second one traced."""
    folder = tmp_path_factory.mktemp("traces")
    told = ("--trace", str(folder / "server"), "--trace-every", "2", "--log-format", "json")
    with start_server(folder / "log", str(toy_folder), *told) as server:
        tracing = open_tracing(str(folder / "client"), every=2, service="camera")
        with SegmentationClient(server.address, tracing=tracing) as client, client.stream(LOSSLESS) as stream:
            answers = list(stream.segment(frames_of(10, 20, STEP_POISON, 30, 40)))
            client.segment_image(toy_frame(10))
            with pytest.raises(CallError):
                client.segment_image(toy_frame(10), model="dog")
        tracing.close()
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
    assert len(answers) == 5
    assert stat.S_IMODE((folder / "server").stat().st_mode) == 0o600
    return Traced(spans_in(folder / "client"), spans_in(folder / "server"), lines_of(folder / "log"))


def test_a_trace_goes_from_the_clients_call_to_the_servers_frames(traced: Traced) -> None:
    (call,) = [span for span in traced.client if span["name"] == CALL]
    (served,) = [span for span in traced.server if span["name"] == CALL]
    assert (call["kind"], served["kind"]) == ("SpanKind.CLIENT", "SpanKind.SERVER")
    assert call["parent_id"] is None
    assert served["parent_id"] == call["context"]["span_id"]
    assert {span["name"] for span in of_trace(traced.client, call)} == {CALL, "client frame"}
    assert len(of_trace(traced.server, call)) == 13  # the call, three frames, and the parts of two
    assert served["attributes"]["flowseg.model"] == "toy@1"
    assert served["attributes"]["flowseg.stream"] == call["attributes"]["flowseg.stream"] == "stream-1"
    assert served["attributes"]["rpc.grpc.status"] == call["attributes"]["rpc.grpc.status"] == "OK"
    assert call["resource"]["attributes"]["service.name"] == "camera"


def test_a_single_image_is_traced_too(traced: Traced) -> None:
    images = [span for span in traced.client if span["name"] == IMAGE]
    assert [image["attributes"]["rpc.grpc.status"] for image in images] == ["OK", "NOT_FOUND"]
    parts = ["decode", "queue", "device.key", "device.step", "encode"]
    served = [[span["name"] for span in of_trace(traced.server, image)] for image in images]
    assert served == [[*parts, "frame", IMAGE], [IMAGE]]


def test_client_and_server_tell_of_the_same_frames(traced: Traced) -> None:
    def frames(spans: Spans, name: str) -> list[tuple[int, str]]:
        (call,) = [span for span in spans if span["name"] == CALL]
        found = [span["attributes"] for span in below(spans, call) if span["name"] == name]
        return [(each["flowseg.sequence"], each["flowseg.outcome"]) for each in found]

    assert frames(traced.client, "client frame") == [(0, "result"), (2, "error"), (4, "result")]
    assert frames(traced.server, "frame") == [
        (0, "result"),
        (2, "error: the model failed on this frame"),
        (4, "result"),
    ]


def test_a_frame_has_its_parts_in_their_order(traced: Traced) -> None:
    frames = [span for span in traced.server if span["name"] == "frame"]
    parts = [[part["name"] for part in below(traced.server, frame)] for frame in frames]
    assert len(parts) == 4  # and that of an image
    assert parts[0] == ["decode", "queue", "device.key", "device.step", "encode"]
    assert parts[1] == []
    assert parts[2] == ["decode", "queue", "device.step", "encode"]
    for frame in frames:
        inner = below(traced.server, frame)
        starts = [part["start_time"] for part in inner]
        assert starts == sorted(starts)
        assert all(frame["start_time"] <= part["start_time"] <= part["end_time"] for part in inner)


def test_the_log_names_the_trace_of_a_stream(traced: Traced) -> None:
    (trace,) = {line["trace"] for line in traced.log if line.get("stream") == "stream-1" and "trace" in line}
    (served,) = [span for span in traced.server if span["name"] == CALL]
    assert f"0x{trace}" == served["context"]["trace_id"]


@in_asyncio
async def test_the_asynchronous_client_traces_too_also_a_stream_that_is_left(
    toy_server: ServerProcess, tmp_path: Path
) -> None:
    tracing = open_tracing(str(tmp_path / "spans"), every=1, service="camera")
    async with AsyncSegmentationClient(toy_server.address, tracing=tracing) as client, client.stream(LOSSLESS) as s:
        async for _ in s.segment(frames_of(*range(10))):
            break
        await client.segment_image(toy_frame(10))
    tracing.close()
    spans = spans_in(tmp_path / "spans")
    assert [span["name"] for span in spans].count(IMAGE) == 1
    (call,) = [span for span in spans if span["name"] == CALL]
    assert call["attributes"]["rpc.grpc.status"] == "CANCELLED"
    assert below(spans, call)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """What takes spans in OTLP, as a collector does, and its address."""
    received: list[bytes] = []

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        received.append(request)
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", received
    server.stop(None).wait()


def test_spans_reach_a_collector(collector: tuple[str, list[bytes]]) -> None:
    address, received = collector
    tracing = open_tracing(address, every=1, service="camera")
    tracing.make_call("SegmentStream").end("OK")
    tracing.close()
    (request,) = received
    assert CALL.encode() in request


def test_what_is_not_traced_costs_and_loads_nothing() -> None:
    assert open_tracing(None, every=1, service="x") is NO_TRACING
    assert type(NO_TRACING.serve_call("SegmentStream", ())) is type(NO_CALL)
    assert (NO_CALL.metadata, NO_CALL.wants(0), NO_CALL.trace_id) == ((), False, "")
    loads = "import serving.server, serving.client, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loads], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    ours = ("opentelemetry.sdk", "opentelemetry.exporter", "serving.tracing")  # FastAPI looks for the API by itself
    assert [name for name in done.stdout.split() if name.startswith(ours)] == []


def test_without_its_libraries_tracing_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "serving.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ValueError, match="install flowseg with its extra 'tracing'"):
        open_tracing("console", every=1, service="x")


@pytest.mark.parametrize("destination", ["udp://127.0.0.1:1", "/no/such/folder/spans"])
def test_a_destination_that_is_none_is_refused(destination: str) -> None:
    with pytest.raises(ValueError, match="trace"):
        open_tracing(destination, every=1, service="x")


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-01", "ff-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 9999])
def test_a_broken_trace_context_begins_a_trace_of_its_own(header: str, tmp_path: Path) -> None:
    tracing: Tracing = open_tracing(str(tmp_path / "spans"), every=1, service="x")
    span = tracing.serve_call("SegmentStream", (("traceparent", header), ("traceparent-bin", b"x")))
    assert len(span.trace_id) == 32
    span.end("OK")
    tracing.close()
    assert spans_in(tmp_path / "spans")[0]["parent_id"] is None


def test_the_parts_of_a_frame_by_hand() -> None:
    timings = pb.Timings(decode_ms=100, queue_ms=200, key_ms=0, step_ms=300, encode_ms=50, total_ms=1000)
    parts = parts_of(timings, received_at=10.0, submitted_at=10.25)
    expected = [("decode", 10, 10.1), ("queue", 10.25, 10.45), ("device.step", 10.45, 10.75), ("encode", 10.95, 11)]
    assert [part.name for part in parts] == [name for name, _, _ in expected]
    for part, (_, start, end) in zip(parts, expected, strict=True):
        assert (part.started_at, part.ended_at) == pytest.approx((start, end))
    held = parts_of(pb.Timings(decode_ms=100, encode_ms=50, total_ms=200), received_at=0.0, submitted_at=None)
    assert [part.name for part in held] == ["decode", "encode"]
    assert isinstance(held[0], Part)
