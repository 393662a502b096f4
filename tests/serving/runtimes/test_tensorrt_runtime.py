"""The runtime on a fake GPU: everything but the GPU and TensorRT themselves is real."""

import hashlib
import sys
from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.bundle import Bundle, BundleError, file_sha256
from serving.engine import Engine, open_engine
from serving.plans import Comparison, Sidecar, TensorRTKey, default_engines_folder, write_plan
from serving.runtimes.cuda_device import CudaDevice, CudaError, DeviceArray
from serving.runtimes.runtime import Array, Value
from serving.runtimes.tensorrt_runtime import TensorRTGraph, TensorRTRuntime
from tests import fake_tensorrt
from tests.fake_tensorrt import Behaviour
from tests.serving.conftest import KEY_POISON, toy_frame


def build(path: Path, batches: tuple[int, ...]) -> bytes:
    """A plan, made without `export`."""
    logger = fake_tensorrt.ILogger()
    builder = fake_tensorrt.Builder(logger)
    network = builder.create_network(1 << 3)
    assert fake_tensorrt.OnnxParser(network, logger).parse_from_file(str(path))
    config = builder.create_builder_config()
    config.clear_flag(fake_tensorrt.BuilderFlag.TF32)
    config.set_memory_pool_limit(fake_tensorrt.MemoryPoolType.WORKSPACE, 1)
    for batch in batches:
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shape = (batch, *tensor.shape[1:])
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return plan


def keep(folder: Path, onnx_path: Path, runtime: TensorRTRuntime, batches: tuple[int, ...] = (1, 2, 4)) -> Sidecar:
    """Builds a plan and puts it where the runtime looks."""
    plan = build(onnx_path, batches)
    sidecar = Sidecar(
        graph=onnx_path.name,
        key=TensorRTKey(
            onnx_sha256=file_sha256(onnx_path),
            machine=runtime.machine,
            precision="fp32",
            batches=batches,
            workspace_bytes=1,
            flags=(),
        ),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        build_seconds=1.0,
        comparison=Comparison(label_agreement=1.0, max_state_difference=0.0, frames=1),
    )
    write_plan(folder, plan, sidecar)
    return sidecar


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def runtime(gpu: Behaviour, engines: Path) -> TensorRTRuntime:
    return TensorRTRuntime("cuda", engines)


@pytest.fixture(scope="module")
def counter_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """next_state = state + shift."""
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in names]
        for names in (("state", "shift"), ("next_state",))
    )
    node = helper.make_node("Add", ["state", "shift"], ["next_state"])
    graph = helper.make_graph([node], "counter", inputs, outputs)
    path = tmp_path_factory.mktemp("graphs") / "counter.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def counter(runtime: TensorRTRuntime, counter_path: Path) -> TensorRTGraph:
    return runtime.load_plan(build(counter_path, (1, 2, 4)), counter_path)


def device_array(value: Value) -> DeviceArray:
    assert isinstance(value, DeviceArray)
    return value


def filled(runtime: TensorRTRuntime, number: float) -> DeviceArray:
    return device_array(runtime.to_device(np.full((1, 4), number, np.float32)))


def first(runtime: TensorRTRuntime, value: Value) -> float:
    return float(runtime.to_host(value)[0, 0])


# Runs


def test_values_go_to_the_gpu_and_come_back(runtime: TensorRTRuntime) -> None:
    array: Array = np.arange(24, dtype=np.float32).reshape(1, 4, 6)
    value = runtime.to_device(array)
    assert np.array_equal(runtime.to_host(value), array)
    assert runtime.to_host(value) is not array
    turned = runtime.to_device(array.transpose(0, 2, 1))  # not contiguous
    assert np.array_equal(runtime.to_host(turned), array.transpose(0, 2, 1))


@pytest.mark.parametrize(("num_requests", "num_runs"), [(1, 1), (2, 1), (3, 2), (4, 1), (5, 2), (7, 3), (9, 3)])
def test_a_batch_of_requests_gives_what_each_gives_alone_in_order(
    runtime: TensorRTRuntime, counter: TensorRTGraph, gpu: Behaviour, num_requests: int, num_runs: int
) -> None:
    requests = [{"state": filled(runtime, n), "shift": filled(runtime, 100)} for n in range(num_requests)]
    before = gpu.num_runs
    answers = counter.run(requests)
    assert gpu.num_runs - before == num_runs
    assert [first(runtime, answer["next_state"]) for answer in answers] == [100 + n for n in range(num_requests)]


def test_a_graph_says_what_it_takes_and_gives(counter: TensorRTGraph) -> None:
    assert counter.inputs == {"state", "shift"}
    assert counter.outputs == {"next_state"}
    assert counter.max_batch == 4


def test_state_and_next_state_never_share_memory(runtime: TensorRTRuntime, counter: TensorRTGraph) -> None:
    values = [filled(runtime, 1), filled(runtime, 0)]
    for _ in range(6):
        values.append(device_array(counter.run([{"state": values[-1], "shift": values[0]}])[0]["next_state"]))
    assert [first(runtime, value) for value in values[1:]] == [0, 1, 2, 3, 4, 5, 6]  # later runs left them alone
    for one, other in combinations(values, 2):
        assert abs(one.address - other.address) >= one.num_bytes


def test_memory_is_used_again_once_nobody_refers_to_it(
    runtime: TensorRTRuntime, counter: TensorRTGraph, gpu: Behaviour
) -> None:
    shift, state = filled(runtime, 1), filled(runtime, 0)
    for _ in range(3):
        state = device_array(counter.run([{"state": state, "shift": shift}])[0]["next_state"])
    num_mallocs = gpu.cuda.num_mallocs
    for _ in range(20):
        state = device_array(counter.run([{"state": state, "shift": shift}])[0]["next_state"])
    assert first(runtime, state) == 23
    assert gpu.cuda.num_mallocs == num_mallocs


def test_memory_goes_back_to_the_gpu_with_the_runtime(gpu: Behaviour, counter_path: Path) -> None:
    runtime = TensorRTRuntime("cuda")
    graph = runtime.load_plan(build(counter_path, (1,)), counter_path)
    values = graph.run([{"state": filled(runtime, 1), "shift": filled(runtime, 1)}])
    assert gpu.cuda.memory
    del runtime, graph, values
    assert not gpu.cuda.memory


def test_runs_are_cuda_graphs(runtime: TensorRTRuntime, counter: TensorRTGraph, gpu: Behaviour) -> None:
    for num_requests in (1, 2, 4, 3):
        counter.run([{"state": filled(runtime, 1), "shift": filled(runtime, 1)}] * num_requests)
    assert gpu.cuda.num_launches == 1 + 1 + 1 + 2
    assert len(gpu.cuda.graphs) == 3  # one for each size, whatever the addresses


def test_a_run_that_cannot_be_captured_runs_as_it_is(
    runtime: TensorRTRuntime, counter_path: Path, gpu: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.capture_fails = True
    graph = runtime.load_plan(build(counter_path, (1, 2)), counter_path)
    answers = graph.run([{"state": filled(runtime, n), "shift": filled(runtime, 1)} for n in range(3)])
    assert [first(runtime, answer["next_state"]) for answer in answers] == [1, 2, 3]
    assert gpu.cuda.num_launches == 0
    assert "counter.onnx runs without a CUDA graph" in caplog.text


def test_a_request_of_another_shape_is_refused_and_the_next_one_is_run(
    runtime: TensorRTRuntime, counter: TensorRTGraph
) -> None:
    good = {"state": filled(runtime, 1), "shift": filled(runtime, 1)}
    for array in (np.zeros((1, 5), np.float32), np.zeros((1, 4), np.uint8), np.zeros((2, 4), np.float32)):
        with pytest.raises(ValueError, match=r"state is .* counter\.onnx takes float32 of shape \(1, 4\)"):
            counter.run([good, good | {"state": runtime.to_device(array)}])
    assert first(runtime, counter.run([good])[0]["next_state"]) == 2


def test_memory_that_runs_out_fails_the_run_with_a_sentence(
    runtime: TensorRTRuntime, counter: TensorRTGraph, gpu: Behaviour
) -> None:
    requests = [{"state": filled(runtime, 1), "shift": filled(runtime, 1)}] * 2
    gpu.cuda.memory_limit = 0
    with pytest.raises(CudaError, match=r"^cudaMalloc failed on cuda:0, out of memory: serve fewer streams or models"):
        counter.run(requests)
    gpu.cuda.memory_limit = 1 << 30
    assert [first(runtime, answer["next_state"]) for answer in counter.run(requests)] == [2, 2]


# Streams


def stream_labels(engine: Engine) -> list[list[int]]:
    """Of three streams at once."""
    streams = [engine.open_stream(key_frame_interval=3) for _ in range(3)]
    futures = [[stream.submit(toy_frame(7 * n + 3 * t)) for t in range(7)] for n, stream in enumerate(streams)]
    return [[int(future.result().labels[0, 0]) for future in own] for own in futures]


def test_streams_have_the_answers_of_onnx_runtime(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path, toy_bundle: Bundle
) -> None:
    for name in ("key.onnx", "step.onnx"):
        keep(engines, toy_folder / name, runtime)
    with Engine(toy_bundle, toy_bundle.manifest.variants[0], runtime) as engine:
        engine.warm_up()
        answers = stream_labels(engine)
        (stream,) = [engine.open_stream()]
        stream.submit(toy_frame(5)).result()
        assert {name: array.tolist() for name, array in stream.state().items()} == {"total": [[5]], "anchor": [[5]]}
    with open_engine(toy_folder, threads=1) as engine:
        assert answers == stream_labels(engine)


def test_a_frame_that_fails_on_the_gpu_fails_alone(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path, toy_bundle: Bundle
) -> None:
    for name in ("key.onnx", "step.onnx"):
        keep(engines, toy_folder / name, runtime)
    with Engine(toy_bundle, toy_bundle.manifest.variants[0], runtime) as engine:
        streams = [engine.open_stream() for _ in range(3)]
        futures = [s.submit(toy_frame(value)) for s, value in zip(streams, (1, KEY_POISON, 3), strict=True)]
        assert futures[1].exception() is not None
        assert [int(future.result().labels[0, 0]) for future in (futures[0], futures[2])] == [2, 6]


# Plans


def test_a_graph_without_a_plan_is_refused_with_the_command(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path
) -> None:
    with pytest.raises(BundleError) as caught:
        runtime.load(toy_folder / "key.onnx")
    assert str(caught.value) == (
        f"there is no TensorRT plan of {toy_folder}/key.onnx in {engines}: build it on this machine with"
        f" 'python export/to_trt.py {toy_folder}' (with the --precision that is served)"
    )


@pytest.mark.parametrize(
    "change", [{"tensorrt": "10.3.0"}, {"gpu": "NVIDIA Other"}, {"compute_capability": "8.0"}, {"driver": "12.4"}]
)
def test_a_plan_of_another_machine_is_refused_with_the_command(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path, change: dict[str, str]
) -> None:
    here = runtime.machine
    runtime.machine = here.model_copy(update=change)
    keep(engines, toy_folder / "key.onnx", runtime)
    runtime.machine = here
    with pytest.raises(BundleError) as caught:
        runtime.load(toy_folder / "key.onnx")
    text = str(caught.value)
    assert next(iter(change.values())) in text
    assert f"here is TensorRT {here.tensorrt} on NVIDIA Imaginary 100" in text
    assert "build it on this machine with 'python export/to_trt.py" in text


def test_a_plan_of_another_graph_is_not_taken(runtime: TensorRTRuntime, engines: Path, toy_folder: Path) -> None:
    keep(engines, toy_folder / "key.onnx", runtime)
    with pytest.raises(BundleError, match=r"there is no TensorRT plan of .*step\.onnx"):
        runtime.load(toy_folder / "step.onnx")


def test_of_several_plans_the_one_for_the_largest_batch_is_taken(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path
) -> None:
    for batches in ((1, 2), (1, 8), (1, 4)):
        keep(engines, toy_folder / "key.onnx", runtime, batches)
    assert runtime.load(toy_folder / "key.onnx").max_batch == 8


@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_a_damaged_plan_is_refused_before_it_is_loaded(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path, damage: str
) -> None:
    path = engines / f"{keep(engines, toy_folder / 'key.onnx', runtime).key.digest()}.plan"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else content[:-1] + b"?")
    with pytest.raises(BundleError, match="does not match its sidecar's SHA-256: it was changed or damaged, build it"):
        runtime.load(toy_folder / "key.onnx")


def test_a_sidecar_that_is_none_is_ignored(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep(engines, toy_folder / "key.onnx", runtime)
    (engines / "notes.json").write_text("{")
    runtime.load(toy_folder / "key.onnx")
    assert "notes.json is no sidecar of a plan and is ignored" in caplog.text


def test_plans_that_others_may_have_put_there_are_not_loaded(
    runtime: TensorRTRuntime, engines: Path, toy_folder: Path
) -> None:
    keep(engines, toy_folder / "key.onnx", runtime)
    assert engines.stat().st_mode & 0o777 == 0o700
    engines.chmod(0o777)
    with pytest.raises(BundleError, match=r"^other users can put plans into .*, and loading a plan runs its"):
        runtime.load(toy_folder / "key.onnx")


def test_a_plan_that_tensorrt_does_not_take_is_refused_with_what_it_said(
    runtime: TensorRTRuntime, counter_path: Path
) -> None:
    with pytest.raises(BundleError, match=r"cannot load the plan of .* \(magic tag does not match\): build it again"):
        runtime.load_plan(b"no plan", counter_path)


def test_a_plan_for_which_memory_is_short_is_refused(
    runtime: TensorRTRuntime, counter_path: Path, gpu: Behaviour
) -> None:
    plan = build(counter_path, (1,))
    gpu.cuda.memory_limit = 20
    with pytest.raises(BundleError, match=r"counter\.onnx cannot be loaded by TensorRT .*: cudaMalloc failed on"):
        runtime.load_plan(plan, counter_path)


def test_plans_lie_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_engines_folder() == Path("/somewhere/flowseg/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_engines_folder() == Path.home() / ".cache" / "flowseg" / "engines"


# Machines


def test_a_runtime_says_what_it_is(runtime: TensorRTRuntime) -> None:
    assert runtime.description == f"TensorRT {runtime.machine.tensorrt} on cuda:0"
    assert (runtime.machine.gpu, runtime.machine.compute_capability, runtime.machine.driver) == (
        "NVIDIA Imaginary 100", "9.0", "13.0",
    )  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "", "cuda:", "cuda:-1", "gpu"])
def test_a_device_that_is_no_gpu_is_refused(gpu: Behaviour, device: str) -> None:
    with pytest.raises(ValueError, match=f"^'{device}' is no device for TensorRT: choose cuda or cuda:N$"):
        TensorRTRuntime(device)


def test_a_gpu_that_is_not_there_is_refused_with_those_there_are(gpu: Behaviour) -> None:
    gpu.cuda.num_devices = 2
    assert TensorRTRuntime("cuda:1").description.endswith("on cuda:1")
    with pytest.raises(ValueError, match=r"^there is no cuda:2: the GPUs are cuda:0, cuda:1$"):
        TensorRTRuntime("cuda:2")


def test_a_machine_without_a_driver_is_told_so(gpu: Behaviour) -> None:
    gpu.cuda.without_driver = True
    with pytest.raises(ValueError, match=r"^no GPU answers \(cudaGetDeviceCount failed .*driver version is"):
        TensorRTRuntime("cuda")


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "12.0.1"])
def test_another_tensorrt_is_refused_with_those_that_are_known(
    gpu: Behaviour, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", version)
    with pytest.raises(ValueError, match=f"^TensorRT {version} is installed, flowseg knows 10 and 11: install one of"):
        TensorRTRuntime("cuda")


def test_a_machine_without_tensorrt_is_told_what_to_install(gpu: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ValueError, match=r"^TensorRT is not installed \(.*\): run \"pip install -e '\.\[tensorrt\]'\""):
        TensorRTRuntime("cuda")


def test_a_machine_without_cuda_python_is_told_what_to_install(gpu: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
    with pytest.raises(ValueError, match=r"^TensorRT needs cuda-bindings: run \"pip install -e '\.\[tensorrt\]'\""):
        CudaDevice(0)
