"""OpenVINO itself, on the toy; networks run on it in tests/export."""

import importlib.util
import subprocess
import sys

import pytest

from serving.bundle import Bundle
from serving.engine import Engine
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime, import_openvino
from serving.runtimes.runtime import Runtime
from tests.serving.conftest import REPOSITORY, toy_frame


@pytest.fixture
def runtime() -> OpenVinoRuntime:
    if importlib.util.find_spec("openvino") is None:  # an import would start its telemetry
        pytest.skip("it is not installed")
    return OpenVinoRuntime("cpu", threads=1)


def test_it_says_what_it_is(runtime: OpenVinoRuntime) -> None:
    assert runtime.name == "openvino"
    version = import_openvino().__version__.split("-")[0]
    assert runtime.description == f"OpenVINO {version} on cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "GPU", ""])
def test_another_device_is_refused(device: str) -> None:
    with pytest.raises(
        ValueError, match=f"^'{device}' is no device for OpenVINO, which flowseg runs on the CPU: choose"
    ):
        OpenVinoRuntime(device)


def test_where_it_is_not_installed_the_user_is_told_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        ValueError, match=r"^OpenVINO is not installed \(.+\): run \"pip install -e '\.\[openvino\]'\", or"
    ):
        OpenVinoRuntime("cpu")


def test_nobody_is_told_that_it_was_imported() -> None:
    """OpenVINO's own telemetry would be a thread that talks to Google Analytics."""
    if importlib.util.find_spec("openvino_telemetry") is None:
        pytest.skip("there is nobody to tell")
    program = (
        "import sys, threading; from serving.runtimes.openvino_runtime import OpenVinoRuntime; OpenVinoRuntime('cpu');"
        "assert 'openvino' in sys.modules; assert threading.active_count() == 1, threading.enumerate();"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')];"
        "import openvino_telemetry"  # whoever wants it can have it afterwards
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def stream_labels(bundle: Bundle, runtime: Runtime) -> list[list[int]]:
    """Of three streams at once."""
    with Engine(bundle, bundle.manifest.variants[0], runtime) as engine:
        engine.warm_up()
        streams = [engine.open_stream(key_frame_interval=3) for _ in range(3)]
        futures = [[stream.submit(toy_frame(7 * n + 3 * t)) for t in range(7)] for n, stream in enumerate(streams)]
        return [[int(future.result().labels[0, 0]) for future in own] for own in futures]


def test_streams_have_the_answers_of_onnx_runtime(toy_bundle: Bundle, runtime: OpenVinoRuntime) -> None:
    assert stream_labels(toy_bundle, runtime) == stream_labels(toy_bundle, OnnxRuntime("cpu", threads=1))
