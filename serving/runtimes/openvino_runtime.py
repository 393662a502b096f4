"""OpenVINO on the CPU: a little faster there than ONNX Runtime, and more than a little in 8-bit integers.

What a graph says in float32 is computed in float32. By itself OpenVINO would take bfloat16 on a CPU that has it: twice
as fast in fp32, a tenth in int8, but then labels differ from one machine to another, and from what was verified.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from serving.bundle import BundleError, RuntimeName
from serving.runtimes.runtime import Array, Graph, Value, stack, unstack

OpenVino = Any  # the module; Any: OpenVINO has no types
TELEMETRY = "openvino_telemetry"
MAX_BATCH = 64  # of one run; the engine's own bound is lower


class OpenVinoRuntime:
    """Runs ONNX graphs on `cpu`."""

    def __init__(self, device: str = "cpu", *, threads: int = 0) -> None:
        """Starts OpenVINO.

        Args:
            device: "cpu".
            threads: of one graph run; 0 takes every core.

        Raises:
            ValueError: if OpenVINO is not installed, or for another device.
        """
        if device != "cpu":
            raise ValueError(f"{device!r} is no device for OpenVINO, which flowseg runs on the CPU: choose cpu")
        openvino = import_openvino()
        self._core = openvino.Core()
        self._options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._version = openvino.__version__.partition("-")[0]  # the commit it was built from follows

    @property
    def name(self) -> RuntimeName:
        """What a bundle's variants call it."""
        return "openvino"

    @property
    def description(self) -> str:
        """Runtime, version and device, for people."""
        return f"OpenVINO {self._version} on cpu"

    def load(self, path: Path) -> Graph:
        """Loads an ONNX file.

        Raises:
            BundleError: if it holds no graph that OpenVINO can run.
        """
        try:
            return OpenVinoGraph(self._core.compile_model(self._core.read_model(path), "CPU", self._options))
        except RuntimeError as error:
            raise BundleError(f"{path} cannot be loaded by {self.description}: {_reason(error)}") from error

    def to_device(self, array: Array) -> Value:
        """The array itself."""
        return array

    def to_host(self, value: Value) -> Array:
        """The value, which is an array."""
        return cast(Array, value)


class OpenVinoGraph:
    """A graph on the CPU. Its values are arrays.

    The batch dimension is open: graphs compiled for a batch of 1 were 2 to 4 % faster at 256x512 in fp32, 9 % in int8.
    """

    max_batch = MAX_BATCH

    def __init__(self, compiled: Any) -> None:  # Any: OpenVINO has no types
        """Takes a compiled model."""
        self._request = compiled.create_infer_request()
        self._output_names = [output.any_name for output in compiled.outputs]
        self.inputs = frozenset(argument.any_name for argument in compiled.inputs)
        self.outputs = frozenset(self._output_names)

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the graph on all requests at once."""
        feeds = {name: stack([cast(Array, request[name]) for request in requests]) for name in self.inputs}
        # Outputs are copied: the next run computes in the same memory.
        outputs = self._request.infer(feeds, share_inputs=True, share_outputs=False)
        columns = [unstack(outputs[name]) for name in self._output_names]
        return [dict(zip(self._output_names, row, strict=True)) for row in zip(*columns, strict=True)]


def import_openvino() -> OpenVino:
    """The module `openvino`, without its telemetry.

    Raises:
        ValueError: if it is not installed.
    """
    if "openvino" not in sys.modules:
        # OpenVINO tells Google Analytics of each import if it finds this module, and does without if there is none.
        sys.modules.setdefault(TELEMETRY, cast(Any, None))  # Any: None is how Python says "there is no such module"
    try:
        import openvino
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise ValueError(
            f"OpenVINO is not installed ({error}): run \"pip install -e '.[openvino]'\", or choose ONNX Runtime"
        ) from error
    finally:
        if sys.modules.get(TELEMETRY, sys) is None:
            del sys.modules[TELEMETRY]
    return openvino


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, less where in its source it says so."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(said)[:300] or type(error).__name__
