from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from serving.bundle import BundleError
from serving.options import READY_BUNDLE
from serving.runtimes.onnx_runtime import DeviceGraph, OnnxRuntime


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


def test_a_runtime_says_what_it_is() -> None:
    runtime = OnnxRuntime("cpu")
    assert runtime.name == "onnxruntime-cpu"
    assert runtime.description == f"ONNX Runtime {onnxruntime.__version__} on cpu"


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


def optimized(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """What ONNX Runtime makes of a graph when our runtime loads it."""
    made = onnxruntime.SessionOptions

    def that_writes() -> onnxruntime.SessionOptions:
        options = made()
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        return options

    monkeypatch.setattr(onnxruntime, "SessionOptions", that_writes)
    OnnxRuntime("cpu", threads=1).load(path)
    return onnx.load(folder / "optimized.onnx")


@pytest.mark.parametrize("graph", ["key", "step"])
def test_max_pooling_of_a_quantised_graph_is_of_floats(
    graph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bytes it takes six times as long."""
    model = optimized(READY_BUNDLE / f"{graph}.int8.unsigned.96x192.onnx", tmp_path, monkeypatch)
    nodes = list(model.graph.node)
    (pooling,) = (index for index, node in enumerate(nodes) if node.op_type == "MaxPool")
    (before,) = (node for node in nodes[:pooling] if nodes[pooling].input[0] in node.output)
    after = {node.op_type for node in nodes[pooling + 1 :] if set(nodes[pooling].output) & set(node.input)}
    assert before.op_type not in ("QuantizeLinear", "DequantizeLinear")
    assert "QuantizeLinear" in after
