"""The runtime on the CPU, and its CUDA graphs on a fake that replays what torch did."""

import hashlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._python_dispatch import TorchDispatchMode

from serving.bundle import BundleError, file_sha256
from serving.plans import Comparison, Sidecar, TorchKey, write_plan
from serving.runtimes.runtime import Array
from serving.runtimes.torch_runtime import WIRING, TorchGraph, TorchRuntime


class Copies(nn.Module):
    """What `copies_path` holds: it tempts a runtime to share memory."""

    def forward(self, state: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return state + shift, state, state.view_as(state)


def program() -> bytes:
    """Made without `export`."""
    inputs, batch = (torch.zeros(2, 4), torch.zeros(2, 4)), Dim("batch", min=1)
    exported = torch.export.export(Copies(), inputs, dynamic_shapes=({0: batch}, {0: batch}))
    names = {"inputs": ["state", "shift"], "outputs": ["next_state", "copy", "copy_of_copy"]}
    content = io.BytesIO()
    torch.export.save(exported, content, extra_files={WIRING: json.dumps(names)})
    return content.getvalue()


def keep(folder: Path, onnx_path: Path, runtime: TorchRuntime, content: bytes) -> Sidecar:
    """Puts a program where the runtime looks."""
    sidecar = Sidecar(
        graph=onnx_path.name,
        key=TorchKey(onnx_sha256=file_sha256(onnx_path), machine=runtime.machine, precision="fp32"),
        plan_sha256=hashlib.sha256(content).hexdigest(),
        build_seconds=1.0,
        comparison=Comparison(label_agreement=1.0, max_state_difference=0.0, frames=1),
    )
    write_plan(folder, content, sidecar)
    return sidecar


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def runtime(engines: Path) -> TorchRuntime:
    return TorchRuntime("cpu", engines)


@pytest.fixture
def graph(runtime: TorchRuntime) -> TorchGraph:
    return runtime.load_plan(program(), Path("bundle/copies.onnx"))


def request(state: float, shift: float = 1.0) -> dict[str, object]:
    return {"state": torch.full((1, 4), float(state)), "shift": torch.full((1, 4), float(shift))}


def on_host(runtime: TorchRuntime, answer: dict[str, object]) -> dict[str, Array]:
    return {name: runtime.to_host(value) for name, value in answer.items()}


# Runs


def test_a_runtime_says_what_it_is(runtime: TorchRuntime) -> None:
    assert runtime.name == "torch"
    assert runtime.description == f"torch {torch.__version__} on cpu"


def test_each_request_of_a_batch_has_its_own_answer_in_order(runtime: TorchRuntime, graph: TorchGraph) -> None:
    assert graph.inputs == {"state", "shift"}
    assert graph.outputs == {"next_state", "copy", "copy_of_copy"}
    answers = [on_host(runtime, answer) for answer in graph.run([request(n, shift=100) for n in range(5)])]
    assert [answer["next_state"].tolist() for answer in answers] == [[[100 + n] * 4] for n in range(5)]
    assert [answer["copy_of_copy"].tolist() for answer in answers] == [[[n] * 4] for n in range(5)]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_output_shares_memory_with_an_input_or_another_output_or_another_stream(
    runtime: TorchRuntime, graph: TorchGraph, batch_size: int
) -> None:
    requests = [request(state) for state in range(batch_size)]
    memory = [array for of_one in requests for array in on_host(runtime, of_one).values()]
    for _ in range(2):  # nor with those of the run before
        memory += [array for answer in graph.run(requests) for array in on_host(runtime, answer).values()]
    assert len(memory) == batch_size * (2 + 2 * 3)
    assert not any(np.shares_memory(*pair) for pair in combinations(memory, 2))


def test_no_output_keeps_the_memory_of_a_whole_batch_alive(graph: TorchGraph) -> None:
    for answer in graph.run([request(1)] * 3):
        for value in answer.values():
            assert isinstance(value, Tensor)
            assert value.untyped_storage().nbytes() == 4 * 4


def test_a_request_that_cannot_be_run_raises_and_the_next_one_is_run(runtime: TorchRuntime, graph: TorchGraph) -> None:
    with pytest.raises(Exception, match=r"[Ss]ize|shape|dimension"):
        graph.run([{"state": torch.zeros(1, 5), "shift": torch.zeros(1, 5)}])
    assert on_host(runtime, graph.run([request(1)])[0])["next_state"].tolist() == [[2] * 4]


def test_frames_that_may_not_be_written_to_are_taken(runtime: TorchRuntime) -> None:
    frame = np.full((1, 2, 2, 3), 7, np.uint8)
    frame.flags.writeable = False
    assert np.array_equal(runtime.to_host(runtime.to_device(frame)), frame)


# Files


def test_the_program_of_a_graph_is_found_by_what_is_in_the_graph(
    copies_path: Path, runtime: TorchRuntime, engines: Path
) -> None:
    with pytest.raises(BundleError) as caught:
        runtime.load(copies_path)
    assert str(caught.value) == (
        f"there is no torch program of {copies_path} in {engines}: build it on this machine with 'python"
        f" export/to_torch.py RUN {copies_path.parent}' (with the --precision that is served)"
    )
    keep(engines, copies_path, runtime, program())
    assert runtime.load(copies_path).inputs == {"state", "shift"}


@pytest.mark.parametrize("change", [{"torch": "2.0.0"}, {"device": "cuda"}])
def test_a_program_of_another_torch_or_device_is_refused(
    copies_path: Path, runtime: TorchRuntime, engines: Path, change: dict[str, str]
) -> None:
    here = runtime.machine
    runtime.machine = here.model_copy(update=change)
    keep(engines, copies_path, runtime, program())
    there, runtime.machine = runtime.machine, here
    with pytest.raises(BundleError) as caught:
        runtime.load(copies_path)
    assert f" was built by {there}, here is {here}: build it on this machine with 'python" in str(caught.value)


def test_a_damaged_program_is_refused_before_it_is_loaded(
    copies_path: Path, runtime: TorchRuntime, engines: Path
) -> None:
    path = engines / f"{keep(engines, copies_path, runtime, program()).key.digest()}.pt2"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="does not match its sidecar's SHA-256: it was changed or damaged"):
        runtime.load(copies_path)


@pytest.mark.parametrize("way", ["writable", "foreign"])
def test_programs_that_others_may_have_put_there_are_not_loaded(
    copies_path: Path, runtime: TorchRuntime, engines: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(engines, copies_path, runtime, program())
    runtime.load(copies_path)
    if way == "writable":
        engines.chmod(0o777)
    elif os.getuid() == 0:
        os.chown(engines, 12345, -1)
    else:
        own = os.getuid()
        monkeypatch.setattr("serving.plans.os.getuid", lambda: own + 1)
    with pytest.raises(BundleError, match="other users can put plans into"):
        runtime.load(copies_path)


@pytest.mark.parametrize("content", [b"", b"no program"])
def test_a_file_that_is_no_program_is_refused_in_one_line(
    copies_path: Path, runtime: TorchRuntime, engines: Path, content: bytes
) -> None:
    keep(engines, copies_path, runtime, content)
    with pytest.raises(BundleError, match=r"cannot load the program of .*: build it again with 'python") as caught:
        runtime.load(copies_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["tpu", "", "cpu:0", "cuda:one", "mps"])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(ValueError, match=f"^'{device}' is no device for torch: choose cpu, cuda or cuda:N$"):
        TorchRuntime(device)


def test_the_number_of_threads_is_that_of_torch(engines: Path) -> None:
    before = torch.get_num_threads()
    try:
        TorchRuntime("cpu", engines, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_server_starts_without_importing_torch() -> None:
    """Nothing but the choice of it brings torch in."""
    check = "import sys, serving.server, serving.plans; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[3])


# CUDA graphs


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Notes every operation with what it read and wrote."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, outputs))
        return outputs


class FakeCuda:
    """As much of `torch.cuda` as the runtime uses: a graph that is replayed writes to where it wrote at its capture."""

    def __init__(self) -> None:
        self.num_captures = self.num_replays = 0
        self.refusal: str | None = None
        fake = self

        class CUDAGraph:
            def replay(self) -> None:
                fake.num_replays += 1
                for function, args, kwargs, outputs in self.calls:
                    again = function(*args, **kwargs)
                    if outputs.data_ptr() != again.data_ptr():
                        outputs.copy_(again)

            calls: list[tuple[Any, ...]]

        @contextmanager
        def graph(captured: CUDAGraph, stream: object, capture_error_mode: str) -> Iterator[None]:
            assert capture_error_mode == "thread_local"
            if fake.refusal is not None:
                raise RuntimeError(fake.refusal)
            fake.num_captures += 1
            with Recorder() as recorder:
                yield
            captured.calls = recorder.calls

        self.CUDAGraph, self.graph = CUDAGraph, graph
        self.stream = lambda stream: nullcontext()

    def synchronize(self) -> None:
        """As a stream."""


@pytest.fixture
def fake(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for name in ("CUDAGraph", "graph", "stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    monkeypatch.setattr(runtime, "_stream", fake)
    return fake


def test_a_batch_size_is_captured_once_and_replayed(runtime: TorchRuntime, graph: TorchGraph, fake: FakeCuda) -> None:
    for round_number in range(4):
        for size in (1, 3):
            requests = [request(10 * round_number + n, shift=100 * size) for n in range(size)]
            answers = [on_host(runtime, answer) for answer in graph.run(requests)]
            expected = [100.0 * size + 10 * round_number + n for n in range(size)]
            assert [float(answer["next_state"][0, 0]) for answer in answers] == expected
    assert (fake.num_captures, fake.num_replays) == (2, 2 * 3)


def test_a_state_that_goes_from_run_to_run_is_written_to_by_no_replay(
    runtime: TorchRuntime, graph: TorchGraph, fake: FakeCuda
) -> None:
    """Two streams, alone and together, each of which keeps all its states."""
    states = [[torch.full((1, 4), float(start))] for start in (0, 1000)]
    for who in ((0,), (0,), (1,), (0, 1), (1, 0), (1,), (0, 1)):
        answers = graph.run([{"state": states[index][-1], "shift": torch.ones(1, 4)} for index in who])
        for index, answer in zip(who, answers, strict=True):
            value = answer["next_state"]
            assert isinstance(value, Tensor)
            states[index].append(value)
    assert [[float(state[0, 0]) for state in own] for own in states] == [
        [start + step for step in range(6)] for start in (0, 1000)
    ]
    assert len({state.data_ptr() for own in states for state in own}) == 12


def test_a_run_that_cannot_be_captured_is_called_and_the_log_says_so(
    runtime: TorchRuntime, graph: TorchGraph, fake: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    fake.refusal = "operation not permitted\nwhen stream is capturing"
    with caplog.at_level(logging.WARNING):
        for state in range(3):
            assert on_host(runtime, graph.run([request(state)])[0])["next_state"].tolist() == [[state + 1] * 4]
    (record,) = caplog.records
    assert record.getMessage() == (
        "copies.onnx runs without a CUDA graph, a little slower: operation not permitted when stream is capturing"
    )


def test_a_request_of_another_type_is_not_converted_by_a_captured_run(
    runtime: TorchRuntime, graph: TorchGraph, fake: FakeCuda
) -> None:
    for _ in range(2):
        graph.run([request(1)])
    with pytest.raises(
        ValueError, match=r"an input is torch\.int64 of shape \(1, 4\), it was captured for torch\.float"
    ):
        graph.run([{"state": torch.ones(1, 4, dtype=torch.int64), "shift": torch.ones(1, 4)}])
    assert on_host(runtime, graph.run([request(5)])[0])["next_state"].tolist() == [[6] * 4]


def test_a_request_that_fails_before_the_capture_does_not_prevent_it(graph: TorchGraph, fake: FakeCuda) -> None:
    with pytest.raises(Exception, match=r"[Ss]ize|shape|dimension"):
        graph.run([{"state": torch.zeros(1, 5), "shift": torch.zeros(1, 5)}])
    graph.run([request(1)])
    assert fake.num_captures == 1


@pytest.mark.gpu
def test_a_gpu_captures_each_batch_size_and_keeps_streams_apart(
    copies_path: Path, engines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = TorchRuntime("cuda", engines)
    graph = runtime.load_plan(program(), copies_path)
    shift = runtime.to_device(np.ones((1, 4), np.float32))
    states = [[runtime.to_device(np.full((1, 4), start, np.float32))] for start in (0, 1000)]
    for who in ((0,), (0,), (1,), (0, 1), (1, 0), (1,), (0, 1)):
        answers = graph.run([{"state": states[index][-1], "shift": shift} for index in who])
        for index, answer in zip(who, answers, strict=True):
            states[index].append(answer["next_state"])
    assert [[float(runtime.to_host(state)[0, 0]) for state in own] for own in states] == [
        [start + step for step in range(6)] for start in (0, 1000)
    ]
    assert "without a CUDA graph" not in caplog.text
