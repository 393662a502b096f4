from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from serving.bundle import BundleError
from serving.runtimes.onnx_runtime import DeviceGraph, OnnxRuntime
from serving.runtimes.runtime import Array, Value
from tests.serving.conftest import toy_frame


@pytest.fixture
def runtime() -> OnnxRuntime:
    return OnnxRuntime("cpu", threads=1)


@pytest.fixture(scope="module")
def copies_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that tempts a runtime to share memory: next_state = state + shift, and two copies of state."""
    nodes = [
        helper.make_node("Add", ["state", "shift"], ["next_state"]),
        helper.make_node("Identity", ["state"], ["copy"]),
        helper.make_node("Identity", ["copy"], ["copy_of_copy"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in names]
        for names in (("state", "shift"), ("next_state", "copy", "copy_of_copy"))
    )
    graph = helper.make_graph(nodes, "copies", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path_factory.mktemp("graphs") / "copies.onnx"
    onnx.save(model, path)
    return path


def request(state: float, shift: float = 1.0) -> dict[str, Array]:
    return {"state": np.full((1, 4), state, np.float32), "shift": np.full((1, 4), shift, np.float32)}


def arrays(outputs: dict[str, Value]) -> dict[str, Array]:
    assert all(isinstance(value, np.ndarray) for value in outputs.values())
    return outputs  # type: ignore[return-value]  # just checked


# Devices


@pytest.mark.parametrize("device", ["tpu", "", "CPU", "cpu:0", "cuda:", "cuda:one", "cuda:-1", "cuda:0:1"])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(ValueError, match=f"^'{device}' is no device: choose cpu, cuda or cuda:N$"):
        OnnxRuntime(device)


@pytest.fixture
def without_cuda() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none_is_refused_with_what_to_install(device: str) -> None:
    with pytest.raises(ValueError, match=r"^this ONNX Runtime has no CUDA \(it has .*CPU.*\): install onnxruntime-gpu"):
        OnnxRuntime(device)


@pytest.mark.usefixtures("without_cuda")
def test_cuda_that_does_not_start_is_refused_rather_than_replaced(
    copies_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where onnxruntime-gpu is installed and the driver is not: ONNX Runtime itself would go on with the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    runtime = OnnxRuntime("cuda:3")
    assert runtime.description == f"ONNX Runtime {onnxruntime.__version__} on cuda:3"
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BundleError, match=r"^ONNX Runtime could not start CUDA for copies.onnx: check the driver, or"),
    ):
        runtime.load(copies_path)


def test_a_runtime_says_what_it_is(runtime: OnnxRuntime) -> None:
    assert runtime.description == f"ONNX Runtime {onnxruntime.__version__} on cpu"


# Files


@pytest.mark.parametrize("content", [b"", b"no graph, only words", b"\x08\x0a"])
def test_a_file_that_is_no_onnx_is_refused_in_one_line(tmp_path: Path, runtime: OnnxRuntime, content: bytes) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"/graph\.onnx cannot be loaded by ONNX Runtime .* on cpu: .") as caught:
        runtime.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, runtime: OnnxRuntime) -> None:
    with pytest.raises(BundleError, match=r"/absent\.onnx cannot be loaded by ONNX Runtime"):
        runtime.load(tmp_path / "absent.onnx")


def test_a_graph_names_its_inputs_and_outputs(copies_path: Path, runtime: OnnxRuntime) -> None:
    graph = runtime.load(copies_path)
    assert graph.inputs == {"state", "shift"}
    assert graph.outputs == {"next_state", "copy", "copy_of_copy"}


# Runs


def test_each_request_of_a_batch_has_its_own_answer_in_order(copies_path: Path, runtime: OnnxRuntime) -> None:
    answers = runtime.load(copies_path).run([request(state, shift=100) for state in range(5)])
    assert [arrays(answer)["next_state"].tolist() for answer in answers] == [[[100 + n] * 4] for n in range(5)]
    assert [arrays(answer)["copy"].tolist() for answer in answers] == [[[n] * 4] for n in range(5)]


def test_a_batch_gives_the_bits_that_each_request_gives_alone(toy_folder: Path, runtime: OnnxRuntime) -> None:
    graph = runtime.load(toy_folder / "key.onnx")
    requests = [{"frame": toy_frame(value)[None]} for value in (3, 141, 59)]
    alone = [graph.run([request])[0] for request in requests]
    for together, reference in zip(graph.run(requests), alone, strict=True):
        for name, array in arrays(reference).items():
            assert np.array_equal(arrays(together)[name], array)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_output_shares_memory_with_an_input_or_another_output_or_another_stream(
    copies_path: Path, runtime: OnnxRuntime, batch_size: int
) -> None:
    graph = runtime.load(copies_path)
    requests = [request(state) for state in range(batch_size)]
    memory = [array for of_one in requests for array in of_one.values()]
    for _ in range(2):  # nor with those of the run before
        memory += [array for answer in graph.run(requests) for array in arrays(answer).values()]
    assert len(memory) == batch_size * (2 + 2 * 3)
    assert not any(np.shares_memory(*pair) for pair in combinations(memory, 2))


def test_no_output_keeps_the_memory_of_a_whole_batch_alive(copies_path: Path, runtime: OnnxRuntime) -> None:
    for answer in runtime.load(copies_path).run([request(1)] * 3):
        for array in arrays(answer).values():
            assert array.shape == (1, 4)
            assert array.base is None


def test_later_runs_leave_outputs_alone(copies_path: Path, runtime: OnnxRuntime) -> None:
    graph = runtime.load(copies_path)
    (first,) = graph.run([request(1)])
    kept = {name: array.copy() for name, array in arrays(first).items()}
    for state in range(10):
        graph.run([request(50 + state), request(70 + state)])
    assert all(np.array_equal(array, kept[name]) for name, array in arrays(first).items())


def test_a_request_that_cannot_be_run_raises_and_the_next_one_is_run(copies_path: Path, runtime: OnnxRuntime) -> None:
    graph = runtime.load(copies_path)
    with pytest.raises(Exception, match="Got: 5 Expected: 4"):
        graph.run([{"state": np.zeros((1, 5), np.float32), "shift": np.zeros((1, 5), np.float32)}])
    assert arrays(graph.run([request(1)])[0])["next_state"].tolist() == [[2] * 4]


def test_on_the_cpu_values_are_the_arrays_themselves(runtime: OnnxRuntime) -> None:
    array = np.zeros((1, 4), np.float32)
    assert runtime.to_host(runtime.to_device(array)) is array


def test_values_on_a_device_go_from_run_to_run_and_never_share_memory(copies_path: Path) -> None:
    """The binding of values to a device, with the host's memory for the device's."""
    session = onnxruntime.InferenceSession(copies_path, providers=["CPUExecutionProvider"])
    graph = DeviceGraph(session, "cpu", 0)
    assert graph.max_batch == 1
    shift = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones((1, 4), np.float32))
    state = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, 4), np.float32))
    values = [shift, state]
    for _ in range(3):
        (outputs,) = graph.run([{"state": values[-1], "shift": shift}])
        values += [outputs["copy"], outputs["copy_of_copy"], outputs["next_state"]]
    assert [value.numpy()[0, 0] for value in values[1:]] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert len({value.data_ptr() for value in values}) == len(values)
