"""What both runtimes on the CPU must do."""

import importlib.util
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from serving.bundle import BundleError
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Array, Runtime, Value
from tests.serving.conftest import toy_frame

RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVinoRuntime]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVinoRuntime,
}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip("it is not installed")
    return RUNTIMES[request.param]("cpu", threads=1)


def request(state: float, shift: float = 1.0) -> dict[str, Array]:
    return {"state": np.full((1, 4), state, np.float32), "shift": np.full((1, 4), shift, np.float32)}


def arrays(outputs: dict[str, Value]) -> dict[str, Array]:
    assert all(isinstance(value, np.ndarray) for value in outputs.values())
    return outputs  # type: ignore[return-value]  # just checked


# Files


@pytest.mark.parametrize("content", [b"", b"no graph, only words", b"\x08\x0a"])
def test_a_file_that_is_no_onnx_is_refused_in_one_line(tmp_path: Path, runtime: Runtime, content: bytes) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"/graph\.onnx cannot be loaded by .* on cpu: .") as caught:
        runtime.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(BundleError, match=r"/absent\.onnx cannot be loaded by"):
        runtime.load(tmp_path / "absent.onnx")


def test_a_graph_names_its_inputs_and_outputs(copies_path: Path, runtime: Runtime) -> None:
    graph = runtime.load(copies_path)
    assert graph.inputs == {"state", "shift"}
    assert graph.outputs == {"next_state", "copy", "copy_of_copy"}


# Runs


def test_each_request_of_a_batch_has_its_own_answer_in_order(copies_path: Path, runtime: Runtime) -> None:
    answers = runtime.load(copies_path).run([request(state, shift=100) for state in range(5)])
    assert [arrays(answer)["next_state"].tolist() for answer in answers] == [[[100 + n] * 4] for n in range(5)]
    assert [arrays(answer)["copy"].tolist() for answer in answers] == [[[n] * 4] for n in range(5)]


def test_a_batch_gives_the_bits_that_each_request_gives_alone(toy_folder: Path, runtime: Runtime) -> None:
    graph = runtime.load(toy_folder / "key.onnx")
    requests = [{"frame": toy_frame(value)[None]} for value in (3, 141, 59)]
    alone = [graph.run([request])[0] for request in requests]
    for together, reference in zip(graph.run(requests), alone, strict=True):
        for name, array in arrays(reference).items():
            assert np.array_equal(arrays(together)[name], array)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_output_shares_memory_with_an_input_or_another_output_or_another_stream(
    copies_path: Path, runtime: Runtime, batch_size: int
) -> None:
    graph = runtime.load(copies_path)
    requests = [request(state) for state in range(batch_size)]
    memory = [array for of_one in requests for array in of_one.values()]
    for _ in range(2):  # nor with those of the run before
        memory += [array for answer in graph.run(requests) for array in arrays(answer).values()]
    assert len(memory) == batch_size * (2 + 2 * 3)
    assert not any(np.shares_memory(*pair) for pair in combinations(memory, 2))


def test_no_output_keeps_the_memory_of_a_whole_batch_alive(copies_path: Path, runtime: Runtime) -> None:
    for answer in runtime.load(copies_path).run([request(1)] * 3):
        for array in arrays(answer).values():
            assert array.shape == (1, 4)
            assert array.base is None


def test_later_runs_leave_outputs_alone(copies_path: Path, runtime: Runtime) -> None:
    graph = runtime.load(copies_path)
    (first,) = graph.run([request(1)])
    kept = {name: array.copy() for name, array in arrays(first).items()}
    for state in range(10):
        graph.run([request(50 + state), request(70 + state)])
    assert all(np.array_equal(array, kept[name]) for name, array in arrays(first).items())


def test_a_request_that_cannot_be_run_raises_and_the_next_one_is_run(copies_path: Path, runtime: Runtime) -> None:
    graph = runtime.load(copies_path)
    with pytest.raises(Exception, match=r"Got: 5 Expected: 4|shape=\(1\.5\)"):
        graph.run([{"state": np.zeros((1, 5), np.float32), "shift": np.zeros((1, 5), np.float32)}])
    assert arrays(graph.run([request(1)])[0])["next_state"].tolist() == [[2] * 4]


def test_values_are_the_arrays_themselves(runtime: Runtime) -> None:
    array = np.zeros((1, 4), np.float32)
    assert runtime.to_host(runtime.to_device(array)) is array
