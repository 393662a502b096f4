import importlib.util
import logging
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch

from serving.bundle import Bundle, BundleError, Precision, RuntimeName
from serving.graphs import pick_variant
from serving.runtimes.choice import RuntimeChoice, open_runtime
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.tensorrt_runtime import TensorRTRuntime
from serving.runtimes.torch_runtime import TorchRuntime
from tests.fake_tensorrt import Behaviour
from tests.serving.runtimes.test_tensorrt_runtime import keep
from tests.serving.runtimes.test_torch_runtime import keep as keep_program

ALL: tuple[RuntimeName, ...] = ("onnxruntime-cpu", "openvino", "onnxruntime-cuda", "tensorrt")


def for_runtimes(bundle: Bundle, *runtimes: RuntimeName, precision: Precision = "fp32") -> Bundle:
    """The toy, as if its graphs had been written for others."""
    (variant,) = bundle.manifest.variants
    variants = (variant.model_copy(update={"runtimes": runtimes, "precision": precision}),)
    return bundle.model_copy(update={"manifest": bundle.manifest.model_copy(update={"variants": variants})})


def chosen(bundle: Bundle, caplog: pytest.LogCaptureFixture, device: str = "cpu") -> tuple[str, str]:
    """The name of the automatic runtime, and the one line about it."""
    with caplog.at_level(logging.INFO, "serving.runtimes.choice"):
        runtime = open_runtime("auto", device, 1, bundle)
    (record,) = (record for record in caplog.records if record.name == "serving.runtimes.choice")
    assert record.levelno == logging.INFO
    assert "\n" not in record.getMessage()
    return runtime.name, record.getMessage()


@pytest.fixture
def with_openvino() -> None:
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("it is not installed")


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])


@pytest.mark.usefixtures("with_openvino")
def test_on_a_cpu_openvino_comes_first(toy_bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    name, line = chosen(for_runtimes(toy_bundle, *ALL), caplog)
    assert name == "openvino"
    assert line.startswith("toy@1 runs by OpenVINO 20")


def test_where_openvino_is_missing_the_log_says_so(
    toy_bundle: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    name, line = chosen(for_runtimes(toy_bundle, *ALL), caplog)
    assert name == "onnxruntime-cpu"
    assert line.startswith(f"toy@1 runs by {OnnxRuntime('cpu').description}: OpenVINO is not installed (")


def test_a_runtime_without_graphs_in_the_bundle_is_passed_over(
    toy_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    assert chosen(toy_bundle, caplog) == (
        "onnxruntime-cpu",
        f"toy@1 runs by {OnnxRuntime('cpu').description}: the bundle has no such graphs for openvino",
    )


@pytest.mark.parametrize(("precision", "size"), [("int8", None), ("fp32", (64, 128))])
def test_graphs_of_another_precision_or_size_do_not_count(
    toy_bundle: Bundle, precision: Precision, size: tuple[int, int] | None
) -> None:
    bundle = for_runtimes(toy_bundle, *ALL)
    assert open_runtime("auto", "cpu", 1, bundle, precision, size).name == "onnxruntime-cpu"


@pytest.mark.usefixtures("with_cuda")
def test_on_a_gpu_tensorrt_comes_first_once_its_engines_are_built(
    toy_bundle: Bundle,
    gpu: Behaviour,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = for_runtimes(toy_bundle, *ALL)
    name, line = chosen(bundle, caplog, "cuda")
    assert name == "onnxruntime-cuda"
    assert f"on cuda:0: there is no TensorRT plan of {bundle.folder}/key.onnx in {tmp_path}" in line
    runtime = TensorRTRuntime("cuda")
    for graph in ("key.onnx", "step.onnx"):
        assert open_runtime("auto", "cuda", 1, bundle).name == "onnxruntime-cuda"
        keep(tmp_path / "flowseg" / "engines", bundle.folder / graph, runtime)
    caplog.clear()
    assert chosen(bundle, caplog, "cuda") == (
        "tensorrt",
        f"toy@1 runs by {runtime.description}, the fastest there is for cuda",
    )


@pytest.mark.usefixtures("with_cuda")
def test_where_tensorrt_is_missing_the_log_says_so(
    toy_bundle: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    name, line = chosen(for_runtimes(toy_bundle, *ALL), caplog, "cuda:1")
    assert name == "onnxruntime-cuda"
    assert "on cuda:1: TensorRT is not installed (" in line


@pytest.fixture
def with_torch_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as finding a program goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)


@pytest.mark.usefixtures("with_cuda", "with_torch_on_cuda")
def test_on_a_gpu_without_tensorrt_torch_comes_next_once_its_programs_are_there(
    toy_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = for_runtimes(toy_bundle, *ALL)
    name, line = chosen(bundle, caplog, "cuda:1")
    assert name == "onnxruntime-cuda"
    assert "on cuda:1: TensorRT is not installed (" in line
    assert f"; there is no torch program of {bundle.folder}/key.onnx in {tmp_path}" in line
    runtime = TorchRuntime("cuda:1")
    for graph in ("key.onnx", "step.onnx"):
        assert open_runtime("auto", "cuda:1", 1, bundle).name == "onnxruntime-cuda"
        keep_program(tmp_path / "flowseg" / "engines", bundle.folder / graph, runtime, b"never loaded here")
    caplog.clear()
    name, line = chosen(bundle, caplog, "cuda:1")
    assert name == "torch"
    assert line.startswith(f"toy@1 runs by torch {torch.__version__} on cuda:1: TensorRT is not installed (")


def test_on_a_cpu_torch_is_not_chosen_unasked(
    toy_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for graph in ("key.onnx", "step.onnx"):
        engines = tmp_path / "flowseg" / "engines"
        keep_program(engines, toy_bundle.folder / graph, TorchRuntime("cpu"), b"never loaded here")
    assert open_runtime("auto", "cpu", 1, toy_bundle).name == "onnxruntime-cpu"
    assert open_runtime("torch", "cpu", 1, toy_bundle).name == "torch"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_runs_graphs_of_any_bundle_that_onnx_runtime_does_on_a_gpu(
    toy_bundle: Bundle, precision: Precision
) -> None:
    on_gpu = for_runtimes(toy_bundle, "onnxruntime-cuda", "tensorrt", precision=precision)
    assert pick_variant(on_gpu, "torch", "auto", None) == on_gpu.manifest.variants[0]
    others: tuple[tuple[RuntimeName, ...], ...] = (("onnxruntime-cpu", "openvino"), ("tensorrt",))
    for runtimes in others:  # with the fast tail; in 8-bit integers
        with pytest.raises(BundleError, match="has these graphs for torch: none"):
            pick_variant(for_runtimes(toy_bundle, *runtimes, precision=precision), "torch", "auto", None)


@pytest.mark.usefixtures("with_openvino", "with_cuda")
@pytest.mark.parametrize(
    ("choice", "device", "name"),
    [
        ("onnxruntime", "cpu", "onnxruntime-cpu"),
        ("onnxruntime", "cuda", "onnxruntime-cuda"),
        ("openvino", "cpu", "openvino"),
        ("tensorrt", "cuda", "tensorrt"),
        ("torch", "cpu", "torch"),
    ],
)
def test_what_is_asked_for_is_what_one_gets(
    toy_bundle: Bundle, gpu: Behaviour, choice: RuntimeChoice, device: str, name: RuntimeName
) -> None:
    assert open_runtime(choice, device, 1, toy_bundle).name == name


@pytest.mark.parametrize(
    ("choice", "missing", "device", "sentence"),
    [
        (
            "openvino",
            "openvino",
            "cpu",
            r"^OpenVINO is not installed \(.*\): run \"pip install -e '\.\[openvino\]'\", or",
        ),
        (
            "tensorrt",
            "tensorrt",
            "cuda",
            r"^TensorRT is not installed \(.*\): run \"pip install -e '\.\[tensorrt\]'\", or",
        ),
        ("torch", "torch", "cpu", r"^torch is not installed \(.*\): run \"pip install -e '\.\[training\]'\", or"),
        ("openvino", None, "cuda", "^'cuda' is no device for OpenVINO"),
        ("tensorrt", None, "cpu", "^'cpu' is no device for TensorRT"),
        ("auto", None, "abacus", "^'abacus' is no device: choose cpu, cuda or cuda:N$"),
    ],
)
def test_what_cannot_be_had_is_refused(
    toy_bundle: Bundle,
    choice: RuntimeChoice,
    missing: str | None,
    device: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
        monkeypatch.delitem(sys.modules, "serving.runtimes.torch_runtime")  # imported when it is chosen
    with pytest.raises(ValueError, match=sentence):
        open_runtime(choice, device, 1, for_runtimes(toy_bundle, *ALL))
