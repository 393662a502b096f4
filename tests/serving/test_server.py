"""The command `python -m serving.server` in a process of its own."""

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.clip_files import RecordingFolder
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from tests.serving.conftest import (
    PATIENCE_S,
    REPOSITORY,
    SERVER_COMMAND,
    ServerProcess,
    open_admin_stub,
    open_stub,
    start_server,
    wait_until,
    write_toy_bundle,
)
from tests.serving.conversations import (
    Call,
    configuration,
    converse,
    hear_out,
    heard,
    in_asyncio,
    label,
    request,
    requests,
    send,
)

SERVICE = "flowseg.v1.SegmentationService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: grpc.aio.Channel, service: str) -> int:
    response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int(response.status)


def open_streams(server: ServerProcess) -> int:
    with grpc.insecure_channel(server.address) as channel:
        return int(open_stub(channel).GetServerInfo(pb.GetServerInfoRequest()).num_streams)


# --- a server that is ready -----------------------------------------------------------------------------------------


def test_the_server_says_where_it_is_in_one_line_of_json(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder)) as server:
        assert server.port != server.http_port
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""


@in_asyncio
async def test_health_is_there_for_the_server_and_each_model(toy_server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(toy_server.address) as channel:
        assert await health(channel, "") == SERVING
        assert await health(channel, SERVICE) == SERVING
        assert await health(channel, "toy@1") == SERVING


def test_http_tells_health_readiness_metrics_and_models(toy_server: ServerProcess) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{toy_server.http_port}") as http:
        assert http.get("/healthz").json() == {"ok": True, "reason": ""}
        assert http.get("/readyz").json() == {"ok": True, "reason": ""}
        assert 'flowseg_open_streams{model="toy@1"}' in http.get("/metrics").text
        (model,) = http.get("/v1/models").json()["models"]
        assert (model["name"], model["version"], model["state"]) == ("toy", "1", "MODEL_STATE_READY")
        assert http.get("/nothing").status_code == 404


@in_asyncio
async def test_options_reach_the_streams(toy_folder: Path, tmp_path: Path) -> None:
    options = ("--key-frame-interval", "2", "--max-in-flight", "3", "--max-consecutive-errors", "2")
    sizes = ("--max-streams", "5", "--max-frame-mb", "0.5", "--max-frame-megapixels", "0.25")
    with start_server(tmp_path / "log", str(toy_folder), *options, *sizes) as server:
        started = (await converse(server.address, configuration())).responses[0].started
        assert (started.key_frames.fixed.interval, started.max_in_flight, started.max_consecutive_errors) == (2, 3, 2)
        async with grpc.aio.insecure_channel(server.address) as channel:
            limits = (await open_stub(channel).GetServerInfo(pb.GetServerInfoRequest())).limits
        assert limits == pb.Limits(max_streams=5, max_in_flight=3, max_frame_bytes=500_000, max_frame_pixels=250_000)
        # a frame at the limit arrives, with what a message has around it; that it is no PNG is for a FrameError to say
        largest = await converse(server.address, configuration(), request(0, b"x" * 500_000))
        assert (largest.code, len(largest.errors)) == (grpc.StatusCode.OK, 1)
        for size in (500_001, 2_000_000):  # which the service refuses, and gRPC itself
            too_large = await converse(server.address, configuration(), request(0, 10), request(1, b"x" * size))
            assert too_large.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: open_streams(server) == 0)


WITHOUT_TORCH = """
import runpy, sys

class NoTorch:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch)
runpy.run_module("serving.server", run_name="__main__")
"""


def test_the_server_starts_with_torch_absent(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder), command=(sys.executable, "-c", WITHOUT_TORCH)) as server:
        assert open_streams(server) == 0
        server.process.terminate()
        assert server.process.wait(PATIENCE_S) == 0


@in_asyncio
async def test_sighup_serves_a_new_version_in_the_same_folder_and_open_streams_go_on(tmp_path: Path) -> None:
    """The folder is a link, as deployments swap them; a broken bundle behind it changes nothing."""
    versions = [write_toy_bundle(tmp_path / f"toy-{version}", version=version) for version in ("1", "2")]
    broken = tmp_path / "broken"
    broken.mkdir()
    served = tmp_path / "served"
    served.symlink_to(versions[0])

    def swap(folder: Path) -> None:
        (tmp_path / "next").symlink_to(folder)
        (tmp_path / "next").rename(served)
        server.process.send_signal(signal.SIGHUP)

    with start_server(tmp_path / "log", str(served)) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call: Call = open_stub(channel).SegmentStream()
            await send(call, configuration(), request(0, 10))
            await heard(call, "started")
            await heard(call, "result")
            swap(broken)
            wait_until(lambda: "is not reloaded" in server.log.read_text())
            swap(versions[1])
            assert (await heard(call, "notice")).notice.model == "toy@2"
            await send(call, request(1, 20))
            assert label((await heard(call, "result")).result) == 30
            conversation = await converse(server.address, configuration(), request(0, 10))
            assert conversation.results[0].provenance.model == "toy@2"
            await call.done_writing()
            assert (await hear_out(call)).code == grpc.StatusCode.OK
        wait_until(lambda: "toy@1 is unloaded" in server.log.read_text())


@in_asyncio
async def test_administrators_have_a_port_of_their_own_and_clients_none_of_it(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--admin-port", "0") as server:
        async with (
            grpc.aio.insecure_channel(server.address) as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.admin_port}") as admin_channel,
        ):
            assert list((await open_admin_stub(admin_channel).ListStreams(pb.ListStreamsRequest())).streams) == []
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await open_admin_stub(channel).ListStreams(pb.ListStreamsRequest())
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


@in_asyncio
async def test_a_model_on_two_devices_serves_more_streams_than_one(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--device", "cpu,cpu") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            model = (await open_stub(channel).GetModel(pb.GetModelRequest())).model
        assert model.runtime.count("on cpu") == 2
        assert (await converse(server.address, configuration(), *requests(1, 2))).labels == [2, 3]


@in_asyncio
async def test_several_bundles_are_served_side_by_side(toy_folder: Path, tmp_path: Path) -> None:
    other = write_toy_bundle(tmp_path / "other", name="other")
    with start_server(tmp_path / "log", str(toy_folder), str(other)) as server:
        for name in ("toy", "other"):
            conversation = await converse(server.address, configuration(model=name), *requests(10, 20))
            assert conversation.labels == [20, 30]
            assert conversation.results[0].provenance.model == f"{name}@1"


@in_asyncio
async def test_each_bundle_has_the_fastest_runtime_that_it_has_graphs_for(toy_folder: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    other = write_toy_bundle(tmp_path / "other", name="other", runtimes=("openvino",))
    with start_server(tmp_path / "log", str(toy_folder), str(other)) as server:
        for name in ("toy", "other"):
            assert (await converse(server.address, configuration(model=name), *requests(10, 20))).labels == [20, 30]
        models = httpx.get(f"http://127.0.0.1:{server.http_port}/v1/models").json()["models"]
        assert [model["runtime"].split()[0] for model in models] == ["ONNX", "OpenVINO"]
        assert "toy@1 runs by ONNX Runtime" in server.log.read_text()
        assert "other@1 runs by OpenVINO" in server.log.read_text()
    with start_server(tmp_path / "log", str(other), "--runtime", "openvino") as server:
        assert (await converse(server.address, configuration(), *requests(10, 20))).labels == [20, 30]
        assert " runs by " not in server.log.read_text()


def test_a_runtime_that_the_bundle_has_no_graphs_for_is_refused(toy_folder: Path) -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    sentence = refusal(str(toy_folder), "--runtime", "openvino")
    assert sentence.startswith(f"{toy_folder} has these graphs for openvino: none; 'fp32' picks 0 of them")


# --- shutting down --------------------------------------------------------------------------------------------------


@in_asyncio
async def test_sigterm_tells_open_streams_and_waits_for_them(toy_folder: Path, tmp_path: Path) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--grace-s", "25") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call: Call = open_stub(channel).SegmentStream()
            await send(call, configuration(keyFrames={"fixed": {"interval": 9}}), request(0, 10))
            before = [await heard(call, "started"), await heard(call, "result")]
            server.process.terminate()
            notice = (await heard(call, "notice")).notice
            assert (notice.kind, notice.grace_ms) == (pb.NOTICE_KIND_DRAINING, 25_000)
            assert await health(channel, "") == NOT_SERVING
            assert await health(channel, SERVICE) == NOT_SERVING
            assert await health(channel, "toy@1") == NOT_SERVING
            readiness = httpx.get(f"http://127.0.0.1:{server.http_port}/readyz")
            assert (readiness.status_code, readiness.json()["reason"]) == (503, "the server shuts down")
            refused = await converse(server.address, configuration(), *requests(1))
            assert (refused.code, refused.asks_to_retry) == (grpc.StatusCode.UNAVAILABLE, True)
            await send(call, request(1, 20), request(2, 30))
            await call.done_writing()
            conversation = await hear_out(call, *before)
        assert conversation.code == grpc.StatusCode.OK
        assert conversation.labels == [20, 30, 60]
        assert conversation.summary.num_frames == 3
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@in_asyncio
async def test_streams_that_stay_beyond_the_grace_are_ended_properly(
    toy_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--grace-s", "0") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            calls: list[Call] = [open_stub(channel).SegmentStream() for _ in range(4)]
            for call in calls:
                await send(call, configuration(), request(0, 10))
                await heard(call, "started")
                assert label((await heard(call, "result")).result) == 20
            server.process.send_signal(number)
            for call in calls:
                await heard(call, "notice")
                conversation = await hear_out(call)
                assert conversation.code == grpc.StatusCode.UNAVAILABLE
                assert conversation.message == "the server shuts down: open the stream again, or elsewhere"
                assert conversation.asks_to_retry
                assert conversation.summary == pb.StreamSummary(num_frames=1, num_results=1, num_key_frames=1)
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@in_asyncio
async def test_a_client_that_never_sent_its_configuration_does_not_delay_the_end(
    toy_folder: Path, tmp_path: Path
) -> None:
    with start_server(tmp_path / "log", str(toy_folder), "--grace-s", "1000") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = open_stub(channel)
            call: Call = stub.SegmentStream()
            await call.wait_for_connection()
            await stub.GetServerInfo(pb.GetServerInfoRequest())  # answered after the call before it has begun
            server.process.terminate()
            assert server.process.wait(PATIENCE_S) == 0
            refused = await hear_out(call)
            assert (refused.code, refused.asks_to_retry) == (grpc.StatusCode.UNAVAILABLE, True)


# --- clients that vanish --------------------------------------------------------------------------------------------

ENDLESS_CLIENT = """
import itertools, sys
import numpy as np
from serving.client import SegmentationClient

frame = np.full((64, 64, 3), 7, np.uint8)
with SegmentationClient(sys.argv[1]) as client, client.stream() as stream:
    for answer in stream.segment(itertools.repeat(frame)):
        print(answer.sequence, flush=True)
"""


@in_asyncio
async def test_a_client_that_is_killed_frees_its_slot_and_disturbs_no_other(toy_folder: Path, tmp_path: Path) -> None:
    values = [10, 20, 30, 40]
    with start_server(tmp_path / "log", str(toy_folder), "--max-streams", "2", "--resume-s", "0") as server:
        undisturbed = await converse(server.address, configuration(), *requests(*values))
        async with grpc.aio.insecure_channel(server.address) as channel:
            call: Call = open_stub(channel).SegmentStream()
            await send(call, configuration(), *requests(*values[:2]))
            before = [await heard(call, kind) for kind in ("started", "result", "result")]
            command = [sys.executable, "-c", ENDLESS_CLIENT, server.address]
            with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == b"0\n"
                assert open_streams(server) == 2
                full = await converse(server.address, configuration(), *requests(1))
                assert full.code == grpc.StatusCode.RESOURCE_EXHAUSTED
                client.kill()
            wait_until(lambda: open_streams(server) == 1)
            await send(call, *(request(sequence, values[sequence]) for sequence in (2, 3)))
            await call.done_writing()
            conversation = await hear_out(call, *before)
        assert conversation.code == grpc.StatusCode.OK
        assert [result.labels for result in conversation.results] == [result.labels for result in undisturbed.results]
        assert conversation.answered == undisturbed.answered
        assert (await converse(server.address, configuration(), *requests(1))).labels == [2]
        assert "Traceback" not in server.log.read_text()


# --- what the user got wrong ----------------------------------------------------------------------------------------


def refusal(*arguments: str) -> str:
    """The one sentence, after any lines of the log, with which the command ends."""
    done = subprocess.run([*SERVER_COMMAND, *arguments], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def folder(toy_folder: Path, tmp_path: Path) -> Path:
    """A toy that a test may damage."""
    return Path(shutil.copytree(toy_folder, tmp_path / "toy"))


def test_a_port_that_is_taken_is_refused(toy_server: ServerProcess, toy_folder: Path) -> None:
    for option, other, port in (
        ("--port", "--http-port", toy_server.port),
        ("--http-port", "--port", toy_server.http_port),
    ):
        sentence = refusal(str(toy_folder), option, str(port), other, "0")
        assert sentence == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert open_streams(toy_server) == 0


def test_both_servers_on_one_port_are_refused(toy_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    sentence = refusal(str(toy_folder), "--port", port, "--http-port", port)
    assert sentence == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_a_folder_to_record_into_that_is_taken_or_cannot_be_made_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    ports = ("--port", "0", "--http-port", "0")
    recordings = RecordingFolder(tmp_path / "drifted", 1000)
    sentence = refusal(str(toy_folder), "--record-drift", str(tmp_path / "drifted"), *ports)
    assert sentence == f"another server records into {tmp_path / 'drifted'}: give each a folder of its own"
    recordings.close()
    (tmp_path / "file").touch()
    sentence = refusal(str(toy_folder), "--record-drift", str(tmp_path / "file"), *ports)
    assert sentence == f"{tmp_path / 'file'} cannot be recorded into (File exists): choose another folder"


def change_a_byte(folder: Path) -> None:
    graph = folder / "step.onnx"
    encoded = bytearray(graph.read_bytes())
    encoded[len(encoded) // 2] ^= 1
    graph.write_bytes(encoded)


def lie_about_an_output(folder: Path) -> None:
    """Found only when the graphs are loaded, with both ports bound."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (variant,) = manifest["variants"]
    variant["state"].append({"name": "ghost", "shape": [1]})
    variant["key"]["outputs"].append("ghost")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (shutil.rmtree, "there is no bundle at {folder}: make one with 'python export/to_onnx.py RUN --out {folder}'"),
        (lambda folder: (folder / "manifest.json").unlink(), "{folder} is no bundle: it has no manifest.json"),
        (
            lambda folder: (folder / "key.onnx").unlink(),
            "{folder}/key.onnx is missing from the bundle: export the bundle again",
        ),
        (
            change_a_byte,
            "{folder}/step.onnx does not match the manifest's SHA-256: it was changed or damaged, export it again",
        ),
        (
            lie_about_an_output,
            "key.onnx in {folder} has the outputs ['anchor', 'total'], its manifest says"
            " ['anchor', 'ghost', 'total']: export the bundle again",
        ),
    ],
    ids=["no folder", "no manifest", "no graph", "changed byte", "graph unlike manifest"],
)
def test_a_bundle_that_cannot_be_served_is_refused(
    folder: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(folder)
    assert refusal(str(folder), "--port", "0", "--http-port", "0") == sentence.format(folder=folder)


PICKS = (
    "{folder} has these graphs for onnxruntime-cpu: fp32 64x64; '{wanted}' picks 0 of them, choose one by --precision"
    " and --size"
)


EXPOSED = (
    "on {host} others than this machine reach the server: give --certificate and --key and --tokens, or --insecure if"
    " your network is trusted or something else protects it (serving/SECURITY.md)"
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-streams", "0"], "--max-streams must be 1 or more, not 0"),
        (["--port", "65536"], "--port must be within 0..65535, not 65536"),
        (["--device", "abacus"], "'abacus' is no device: choose cpu, cuda or cuda:N"),
        (["--record-drift-mb", "9"], "--record-drift-mb does nothing without --record-drift DIR: give both"),
        (["--runtime", "tensorrt"], "'cpu' is no device for TensorRT: choose cuda or cuda:N"),
        (
            ["--runtime", "openvino", "--device", "cuda"],
            "'cuda' is no device for OpenVINO, which flowseg runs on the CPU: choose cpu",
        ),
        (["--precision", "int8"], PICKS.format(folder="{folder}", wanted="int8")),
        (["--size", "64x128"], PICKS.format(folder="{folder}", wanted="fp32 64x128")),
        (["--size", "128"], "size '128' does not read HEIGHTxWIDTH, like 512x1024"),
        (["--host", "no such host"], EXPOSED.format(host="no such host")),
        (
            ["{folder}"],
            "two bundles have the same name and version: serve one of them, or export with --version",
        ),
    ],
    ids=["value", "port", "device", "no folder", "no GPU", "no CPU", "precision", "size", "no size", "host", "twice"],
)
def test_an_option_that_cannot_work_is_refused(toy_folder: Path, arguments: list[str], sentence: str) -> None:
    given = [argument.format(folder=toy_folder) for argument in arguments]
    ports = [] if "--port" in given else ["--port", "0", "--http-port", "0"]
    assert refusal(str(toy_folder), *given, *ports) == sentence.format(folder=toy_folder)


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["--port", "http"], ["--precision", "fp64"]], ids=lambda value: str(value)
)
def test_a_command_line_that_does_not_parse_ends_with_status_2(toy_folder: Path, arguments: list[str]) -> None:
    command = [*SERVER_COMMAND, str(toy_folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
