"""ONNX Runtime on the CPU, or on an NVIDIA GPU with state that stays there."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import onnxruntime

from serving.bundle import BundleError, RuntimeName
from serving.runtimes.runtime import Array, Graph, Value, stack, unstack

logger = logging.getLogger(__name__)

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
MAX_BATCH = 64  # of one run on the host; the engine's own bound is lower
# It moves quantisation to before max-pooling, whose kernel for bytes takes six times as long as that for floats: a
# tenth of an 8-bit step. Values are the same either way, and graphs without quantisation do not change.
DISABLED_OPTIMIZERS = ("QDQPropagationTransformer",)


class OnnxRuntime:
    """Runs ONNX graphs on `cpu` or `cuda:N`."""

    def __init__(self, device: str = "cpu", *, threads: int = 0) -> None:
        """Chooses the device.

        Args:
            device: "cpu" or "cuda:N".
            threads: of one graph run on the CPU; 0 takes every core.

        Raises:
            ValueError: if ONNX Runtime has no such device.
        """
        if not re.fullmatch("cpu|cuda(:[0-9]+)?", device):
            raise ValueError(f"{device!r} is no device: choose cpu, cuda or cuda:N")
        kind, _, number = device.partition(":")
        available = onnxruntime.get_available_providers()
        if kind == "cuda" and CUDA not in available:
            raise ValueError(
                f"this ONNX Runtime has no CUDA (it has {', '.join(available)}): install onnxruntime-gpu in place of"
                " onnxruntime, or choose cpu"
            )
        self._kind = kind
        self._number = int(number or 0)
        self._threads = threads

    @property
    def name(self) -> RuntimeName:
        """What a bundle's variants call it."""
        return "onnxruntime-cpu" if self._kind == "cpu" else "onnxruntime-cuda"

    @property
    def description(self) -> str:
        """Runtime, version and device, for people."""
        device = self._kind if self._kind == "cpu" else f"{self._kind}:{self._number}"
        return f"ONNX Runtime {onnxruntime.__version__} on {device}"

    def load(self, path: Path) -> Graph:
        """Loads an ONNX file.

        Raises:
            BundleError: if it holds no graph that ONNX Runtime can run, or the GPU does not start.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4  # what fails raises, and we log it: its own lines would be in no format of ours
        # Threads that spin while they wait take the cores that decode and encode frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = [CPU]  # Any: ONNX Runtime takes names and (name, options) alike
        if self._kind == "cuda":
            providers.insert(0, (CUDA, {"device_id": self._number}))
        try:
            session = onnxruntime.InferenceSession(
                path, options, providers=providers, disabled_optimizers=DISABLED_OPTIMIZERS
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base of their own
            raise BundleError(f"{path} cannot be loaded by {self.description}: {_first_line(error)}") from error
        session.disable_fallback()  # it would move a running stream to the CPU without a word
        if self._kind == "cpu":
            return HostGraph(session)
        if session.get_providers()[0] != CUDA:
            raise BundleError(f"ONNX Runtime could not start CUDA for {path.name}: check the driver, or choose cpu")
        return DeviceGraph(session, self._kind, self._number)

    def to_device(self, array: Array) -> Value:
        """The array itself on the CPU, a copy on a GPU."""
        if self._kind == "cpu":
            return array
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._kind, self._number)

    def to_host(self, value: Value) -> Array:
        """The value as an array."""
        if self._kind == "cpu":
            return cast(Array, value)
        return cast(onnxruntime.OrtValue, value).numpy()  # type: ignore[no-any-return]  # onnxruntime has no types


class HostGraph:
    """A graph on the CPU. Its values are arrays; ONNX Runtime allocates its outputs anew on each run."""

    max_batch = MAX_BATCH

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """Takes a session on the CPU."""
        self._session = session
        self._output_names = [output.name for output in session.get_outputs()]
        self.inputs = frozenset(argument.name for argument in session.get_inputs())
        self.outputs = frozenset(self._output_names)

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the graph on all requests at once."""
        feeds = {name: stack([cast(Array, request[name]) for request in requests]) for name in self.inputs}
        columns = [unstack(batch) for batch in self._session.run(self._output_names, feeds)]
        return [dict(zip(self._output_names, row, strict=True)) for row in zip(*columns, strict=True)]


class DeviceGraph:
    """A graph on a device. Its values are handles, and nothing is copied to the host."""

    max_batch = 1  # ONNX Runtime cannot join tensors on a device outside a graph

    def __init__(self, session: onnxruntime.InferenceSession, device_kind: str, device_number: int) -> None:
        """Takes a session on a device."""
        self._session = session
        self._device = (device_kind, device_number)
        self._output_names = [output.name for output in session.get_outputs()]
        self.inputs = frozenset(argument.name for argument in session.get_inputs())
        self.outputs = frozenset(self._output_names)

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the graph on one request."""
        (request,) = requests
        binding = self._session.io_binding()
        for name in self.inputs:
            binding.bind_ortvalue_input(name, request[name])
        for name in self._output_names:
            # Bound to a device, not to a buffer: ONNX Runtime allocates anew, so no output ever lies on an input.
            binding.bind_output(name, *self._device)
        self._session.run_with_iobinding(binding)
        return [dict(zip(self._output_names, binding.get_outputs(), strict=True))]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
