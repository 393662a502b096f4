"""A toy bundle whose answers can be computed by hand, and the parts of a server around it.

With v(frame) the largest value in a frame:

    key  : total = v(frame), anchor = v(frame)                      fails if v(frame) is 254
    step : labels = (total + red channel) mod 251, per pixel        fails if v(frame) is 255
           next_total = (total + v(frame)) mod 251; the anchor stays that of the key frame
           confidence = anchor
           mean_confidence = v(previous_frame) / 256, disagreement = v(key_frame) / 256
           mean_entropy = v(frame) / 256, warp_residual = |v(frame) - v(previous_frame)| / 256
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from serving.admin import AdminService
from serving.answering import Surroundings
from serving.bundle import (
    NEXT,
    RESULTS,
    SIGNALS,
    Baseline,
    Bundle,
    ClassInfo,
    DomainBaseline,
    GraphFile,
    GraphRuntime,
    Manifest,
    Spread,
    StateTensor,
    Variant,
    file_sha256,
    read_bundle,
    write_manifest,
)
from serving.bundle_roots import BundleRoots
from serving.certificates import Certificates
from serving.clients import Clients
from serving.drift_recorder import DriftRecorder
from serving.engine import Engine
from serving.gatekeeper import Gatekeeper
from serving.generated.flowseg.v1 import segmentation_pb2_grpc
from serving.loading import ModelLoader
from serving.messages import Limits
from serving.models import Models, ServedModel
from serving.observability import Metrics
from serving.options import ServerOptions
from serving.results import StepResult, StepTimings
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.runtime import Array, Graph, Runtime, Value
from serving.service import SegmentationService
from serving.sessions import Sessions

SIZE = 64  # of the toy's frames, in pixels
MODULUS = 251
NUM_CLASSES = 251
KEY_POISON, STEP_POISON = 254, 255
TOO_MUCH = 77  # for the memory of a FullDevice


def toy_frame(value: int) -> NDArray[np.uint8]:
    """A frame of one value."""
    return np.full((SIZE, SIZE, 3), value, np.uint8)


def toy_baseline(value: int = 64) -> Baseline:
    """Of frames of one value, whose standard deviation is 16."""
    still = {name: Spread(mean=0 if name == "warp_residual" else value / 256, std=16 / 256) for name in SIGNALS}
    domain = DomainBaseline(frames=160, clip_frames=11, signals=still)
    return Baseline(key_frame_interval=1000, measured_on="the toy", domains={"target": domain})


def step_result(**fields: object) -> StepResult:
    """A result of zeros, but for some fields."""
    zeros: dict[str, object] = {
        "labels": np.zeros((SIZE, SIZE), np.uint8),
        "confidence": np.zeros((SIZE // 4, SIZE // 4), np.uint8),
        **dict.fromkeys(SIGNALS, 0.0),
        "key_frame_age": 0,
        "refreshes_key": False,
        "batch_size": 1,
        "timings": StepTimings(queue_ms=1.5, key_ms=0.0, step_ms=2.5),
    }
    return StepResult(**(zeros | fields))  # type: ignore[arg-type]  # of any field


def _brightest(frame: str, brightest: str) -> list[onnx.NodeProto]:
    """v(frame), (B, 1)."""
    return [
        helper.make_node("Cast", [frame], [f"{frame}_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", [f"{frame}_float", "image_axes"], [f"{brightest}_column"], keepdims=1),
        helper.make_node("Reshape", [f"{brightest}_column", "column"], [brightest]),
    ]


def _fail_if(brightest: str, poison: str, checked: str) -> list[onnx.NodeProto]:
    """Zero as (B, 1), by a look-up that is out of range for poisoned frames."""
    return [
        helper.make_node("Equal", [brightest, poison], [f"{checked}_is_poison"]),
        helper.make_node("Where", [f"{checked}_is_poison", "out_of_range", "in_range"], [f"{checked}_index"]),
        helper.make_node("Gather", ["zero_table", f"{checked}_index"], [checked], axis=0),
    ]


def _save(path: Path, nodes: list[onnx.NodeProto], inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> None:
    def values(shapes: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
        as_bytes = ("frame", "previous_frame", "key_frame", "labels", "confidence")
        return [
            helper.make_tensor_value_info(
                name, TensorProto.UINT8 if name in as_bytes else TensorProto.FLOAT, ["batch", *shape]
            )
            for name, shape in shapes.items()
        ]

    def constant(name: str, array: NDArray[np.generic]) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.asarray(array), name)

    quarter = SIZE // 4
    constants = [
        constant("image_axes", np.array([1, 2, 3])),
        constant("column", np.array([-1, 1])),
        constant("flat", np.array([-1])),
        constant("square", np.array([-1, 1, 1])),
        constant("confidence_shape", np.array([1, quarter, quarter])),
        constant("zero_table", np.zeros(1, np.float32)),
        constant("in_range", np.array(0, np.int64)),
        constant("out_of_range", np.array(99, np.int64)),
        constant("modulus", np.array(MODULUS, np.float32)),
        constant("scale", np.array(256, np.float32)),
        constant("key_poison", np.array(KEY_POISON, np.float32)),
        constant("step_poison", np.array(STEP_POISON, np.float32)),
        constant("red", np.array(0, np.int64)),
    ]
    graph = helper.make_graph(nodes, path.stem, values(inputs), values(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_toy_bundle(
    folder: Path,
    *,
    name: str = "toy",
    version: str = "1",
    runtimes: tuple[GraphRuntime, ...] = ("onnxruntime-cpu", "onnxruntime-cuda"),
    baseline: Baseline | None = None,
) -> Path:
    """Writes the toy into a new folder."""
    folder.mkdir()
    frame = [SIZE, SIZE, 3]
    key_nodes = [
        *_brightest("frame", "value"),
        *_fail_if("value", "key_poison", "zero"),
        helper.make_node("Add", ["value", "zero"], ["total"]),
        helper.make_node("Identity", ["value"], ["anchor"]),
    ]
    _save(folder / "key.onnx", key_nodes, {"frame": frame}, {"total": [1], "anchor": [1]})
    step_nodes = [
        *_brightest("frame", "value"),
        *_brightest("previous_frame", "previous_value"),
        *_brightest("key_frame", "key_value"),
        *_fail_if("value", "step_poison", "zero"),
        helper.make_node("Add", ["total", "zero"], ["checked_total"]),
        helper.make_node("Add", ["checked_total", "value"], ["sum"]),
        helper.make_node("Mod", ["sum", "modulus"], ["next_total"], fmod=1),
        helper.make_node("Gather", ["frame_float", "red"], ["red_channel"], axis=3),
        helper.make_node("Reshape", ["checked_total", "square"], ["square_total"]),
        helper.make_node("Add", ["red_channel", "square_total"], ["label_sum"]),
        helper.make_node("Mod", ["label_sum", "modulus"], ["float_labels"], fmod=1),
        helper.make_node("Cast", ["float_labels"], ["labels"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["anchor", "square"], ["square_anchor"]),
        helper.make_node("Tile", ["square_anchor", "confidence_shape"], ["float_confidence"]),
        helper.make_node("Cast", ["float_confidence"], ["confidence"], to=TensorProto.UINT8),
        helper.make_node("Div", ["previous_value", "scale"], ["mean_confidence_column"]),
        helper.make_node("Reshape", ["mean_confidence_column", "flat"], ["mean_confidence"]),
        helper.make_node("Div", ["key_value", "scale"], ["disagreement_column"]),
        helper.make_node("Reshape", ["disagreement_column", "flat"], ["disagreement"]),
        helper.make_node("Div", ["value", "scale"], ["mean_entropy_column"]),
        helper.make_node("Reshape", ["mean_entropy_column", "flat"], ["mean_entropy"]),
        helper.make_node("Sub", ["value", "previous_value"], ["change"]),
        helper.make_node("Abs", ["change"], ["size_of_change"]),
        helper.make_node("Div", ["size_of_change", "scale"], ["warp_residual_column"]),
        helper.make_node("Reshape", ["warp_residual_column", "flat"], ["warp_residual"]),
    ]
    step_inputs = {"frame": frame, "previous_frame": frame, "key_frame": frame, "total": [1], "anchor": [1]}
    quarter = [SIZE // 4, SIZE // 4]
    step_outputs = {
        "labels": [SIZE, SIZE],
        "confidence": quarter,
        **{name: [] for name in SIGNALS},
        "next_total": [1],
    }
    _save(folder / "step.onnx", step_nodes, step_inputs, step_outputs)
    variant = Variant(
        precision="fp32",
        runtimes=runtimes,
        height=SIZE,
        width=SIZE,
        state=(StateTensor(name="total", shape=(1,)), StateTensor(name="anchor", shape=(1,))),
        key=_graph_file(folder / "key.onnx", ("frame",), ("total", "anchor")),
        step=_graph_file(folder / "step.onnx", tuple(step_inputs), (*RESULTS, NEXT + "total")),
    )
    classes = tuple(ClassInfo(name=f"class {i}", color=(i, 255 - i, i // 2)) for i in range(NUM_CLASSES))
    write_manifest(
        folder,
        Manifest(
            format="flowseg-bundle",
            format_version=3,
            name=name,
            version=version,
            classes=classes,
            variants=(variant,),
            provenance={"recipe": "toy"},
            verification={},
            baseline=baseline,
        ),
    )
    return folder


def _graph_file(path: Path, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> GraphFile:
    return GraphFile(file=path.name, sha256=file_sha256(path), inputs=inputs, outputs=outputs)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="session")
def toy_bundle(toy_folder: Path) -> Bundle:
    return read_bundle(toy_folder)


class GatedRuntime(OnnxRuntime):
    """ONNX Runtime with a gate before each run, and a record of what ran."""

    def __init__(self) -> None:
        super().__init__("cpu", threads=1)
        self.gate = threading.Event()
        self.gate.set()
        self.arrivals = threading.Semaphore(0)  # one for each run that came to the gate
        self.runs: list[tuple[str, int]] = []  # graph and batch size

    def load(self, path: Path) -> Graph:
        return GatedGraph(super().load(path), path.stem, self)


class GatedGraph:
    def __init__(self, graph: Graph, name: str, runtime: GatedRuntime) -> None:
        self._graph = graph
        self._name = name
        self._runtime = runtime
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self.max_batch = graph.max_batch

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        self._runtime.runs.append((self._name, len(requests)))
        self._runtime.arrivals.release()
        assert self._runtime.gate.wait(timeout=20)
        return self._graph.run(requests)


class FullDevice(OnnxRuntime):
    """Has no room for frames of TOO_MUCH, and says so as CUDA does."""

    def to_device(self, array: Array) -> Value:
        if array.max() == TOO_MUCH:
            raise RuntimeError("cudaMalloc failed on cuda:0, out of memory")
        return super().to_device(array)


@pytest.fixture
def gated_runtime() -> GatedRuntime:
    return GatedRuntime()


@pytest.fixture
def engine(toy_bundle: Bundle, gated_runtime: GatedRuntime) -> Iterator[Engine]:
    with Engine(toy_bundle, toy_bundle.manifest.variants[0], gated_runtime, max_streams=8, max_batch=4) as engine:
        yield engine
        gated_runtime.gate.set()


LIMITS = Limits(
    max_streams=8,
    max_frame_bytes=1_000_000,
    max_frame_pixels=1_000_000,
    max_in_flight=16,
    default_in_flight=8,
    default_key_frame_interval=1000,  # more than any test sends: the toy's total then grows from frame to frame
    max_consecutive_errors=32,
    idle_timeout_s=60.0,
    resume_s=60.0,
)
PATIENCE_S = 30  # for what takes milliseconds
REPOSITORY = Path(__file__).parents[2]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Looks again and again, for what another process or thread does and tells nobody."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_stub(channel: grpc.Channel | grpc.aio.Channel) -> Any:  # Any: grpcio-tools writes no types for stubs
    return segmentation_pb2_grpc.SegmentationServiceStub(channel)  # type: ignore[no-untyped-call]  # the same


def open_admin_stub(channel: grpc.aio.Channel) -> Any:  # Any: as above
    return segmentation_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]  # the same


def served_model(bundle: Bundle, *runtimes: Runtime, max_streams: int = 8) -> ServedModel:
    """The one variant of a toy on one device or several, not yet loaded."""
    runtimes = runtimes or (OnnxRuntime("cpu", threads=1),)
    return ServedModel(bundle, bundle.manifest.variants[0], runtimes, max_streams=max_streams, max_batch=4)


@dataclass(frozen=True)
class LocalServer:
    """A real gRPC server in this process."""

    address: str  # of both services
    sessions: Sessions
    models: Models
    metrics: Metrics


def close_all(models: Models) -> None:
    for model in models:
        model.close()


@contextlib.asynccontextmanager
async def serve_here(
    *models: ServedModel,
    limits: Limits = LIMITS,
    is_loaded: bool = True,
    pool: Executor | None = None,
    recorder: DriftRecorder | None = None,
    clients: Clients | None = None,
    max_open_streams: int = 256,
    roots: BundleRoots | None = None,
    certificates: Certificates | None = None,
) -> AsyncIterator[LocalServer]:
    """Serves models on a free port."""
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        for model in models:
            stack.callback(model.close)
            if is_loaded:
                model.load(metrics.watch_runs(model.label))
        pool = stack.enter_context(pool or ThreadPoolExecutor(2))
        served, sessions = Models(list(models)), Sessions()
        stack.callback(close_all, served)
        loader = ModelLoader(served, ServerOptions(threads=1), metrics)
        surroundings = Surroundings(limits, pool, metrics, recorder)
        service = SegmentationService(served, surroundings, sessions, loader.unload_finished)
        roots = BundleRoots((Path("/"),), ()) if roots is None else roots
        admin = AdminService(served, loader, sessions, sessions.drain, grace_s=10, roots=roots)
        gatekeeper = Gatekeeper(clients, max_open_streams)
        server = grpc.aio.server(interceptors=[gatekeeper], options=[("grpc.so_reuseport", 0)])
        segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # as above
        segmentation_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)  # type: ignore[no-untyped-call]  # as above
        address = "127.0.0.1:0"
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, certificates.grpc_credentials())
        await server.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield LocalServer(f"127.0.0.1:{port}", sessions, served, metrics)
        finally:
            for model in models:
                for runtime in model.runtimes:
                    if isinstance(runtime, GatedRuntime):
                        runtime.gate.set()
            await server.stop(grace=0)
            service.close()


@dataclass(frozen=True)
class ServerProcess:
    """A server that is ready, in a process of its own."""

    process: subprocess.Popen[str]
    log: Path  # what it writes to stderr
    port: int
    http_port: int
    admin_port: int | None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


SERVER_COMMAND = (sys.executable, "-m", "serving.server")


@contextlib.contextmanager
def start_server(
    log: Path, *arguments: str, command: Sequence[str] = SERVER_COMMAND, port: int = 0
) -> Iterator[ServerProcess]:
    """The real command on free ports, or one that was free; killed at the end if it still runs."""
    options = ("--port", str(port), "--http-port", "0", "--threads", "1", "--json")
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*command, *arguments, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=REPOSITORY
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            ready = json.loads(line)
            yield ServerProcess(process, log, ready["port"], ready["http_port"], ready["admin_port"])
        finally:
            process.kill()


@pytest.fixture(scope="session")
def toy_server(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the toy for tests that leave it as it was: it keeps no stream that broke."""
    with start_server(tmp_path_factory.mktemp("server") / "log", str(toy_folder), "--resume-s", "0") as server:
        yield server
