"""TensorRT on an NVIDIA GPU: runs the plans that `export/to_trt.py` built on this machine.

TensorRT 10 and 11 by the calls that both have. A plan has one optimisation profile for each of its batch sizes, and a
graph has one `Slot` for each profile: a context, a stream, buffers for inputs and outputs, and a CUDA graph of the run.
A list of requests is split into batches of those sizes, largest first; all are started before the first is waited for.

Requests come in memory of their own, since each stream's state lives as long as its stream. A slot copies them, on the
GPU, to their rows of its input buffers, and the rows of its output buffers to new arrays. So state and next state never
share memory, a batch is one dense run, and one CUDA graph per slot is enough: without the copies there would be one
for each pair of addresses that a state has been at. A frame of 512x1024 with its state is 10 MB to copy, microseconds.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np

from serving.bundle import BundleError, RuntimeName
from serving.plans import Plan, TensorRTMachine, build_command, default_engines_folder, find_plan
from serving.runtimes.cuda_device import CudaDevice, CudaError, DeviceArray, Handle, Pool
from serving.runtimes.runtime import Array, Graph, Value

logger = logging.getLogger(__name__)

TensorRT = Any  # the module; Any: TensorRT has no types
MAJORS = ("10", "11")  # versions that the code is written for


class TensorRTRuntime:
    """Runs TensorRT plans on `cuda:N`."""

    def __init__(self, device: str, engines: Path | None = None) -> None:
        """Chooses the GPU.

        Args:
            device: "cuda" or "cuda:N".
            engines: folder of the plans; None is the user's cache. Whoever names one vouches for what is in it.

        Raises:
            ValueError: if there is no such GPU, or TensorRT, a supported version of it, or cuda-bindings is missing.
        """
        if not re.fullmatch("cuda(:[0-9]+)?", device):
            raise ValueError(f"{device!r} is no device for TensorRT: choose cuda or cuda:N")
        self.tensorrt = import_tensorrt()
        self.device = CudaDevice(int(device.partition(":")[2] or 0))
        self.machine = TensorRTMachine(
            tensorrt=self.tensorrt.__version__,
            gpu=self.device.name,
            compute_capability=self.device.compute_capability,
            driver=self.device.driver,
        )
        self.messages = Messages(self.tensorrt)
        self._engines = engines or default_engines_folder()
        self._pool = Pool(self.device)
        self._runtime: Any = None  # Any: TensorRT has no types. Made when it is first needed: building needs none

    @property
    def name(self) -> RuntimeName:
        """What a bundle's variants call it."""
        return "tensorrt"

    @property
    def description(self) -> str:
        """Runtime, version and device, for people."""
        return f"TensorRT {self.machine.tensorrt} on cuda:{self.device.number}"

    def find_plan(self, path: Path) -> Plan:
        """The plan of an ONNX file.

        Raises:
            BundleError: if there is none that was built on a machine like this one, or it is damaged.
        """
        return find_plan(self._engines, path, self.machine)

    def load(self, path: Path) -> Graph:
        """Loads the plan of an ONNX file.

        Raises:
            BundleError: if there is none that was built on a machine like this one, or it cannot be loaded.
        """
        plan = self.find_plan(path)
        logger.info("loading the plan of %s from %s", path.name, plan.path)
        return self.load_plan(plan.path.read_bytes(), path)

    def load_plan(self, plan: bytes, onnx: Path) -> "TensorRTGraph":
        """Loads a plan, which must be trusted, of an ONNX file.

        Raises:
            BundleError: if TensorRT or the GPU's memory does not take it.
        """
        try:
            self.device.call("cudaSetDevice", self.device.number)  # TensorRT takes the thread's GPU
            self.messages.forget_errors()
            if self._runtime is None:
                self._runtime = self.tensorrt.Runtime(self.messages.logger)
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise BundleError(
                    f"{self.description} cannot load the plan of {onnx}{self.messages.reason()}: build it again with"
                    f" {build_command(onnx.parent, self.machine)}"
                )
            return TensorRTGraph(self, engine, onnx.name)
        except CudaError as error:
            raise BundleError(f"the plan of {onnx} cannot be loaded by {self.description}: {error}") from error
        except TypeError as error:  # what the bindings make of a runtime that is null
            raise BundleError(f"{self.description} does not start{self.messages.reason()}: check the driver") from error

    def new_array(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:  # Any: whatever NumPy takes for a dtype
        """An array of any content on the GPU."""
        return self._pool.array(shape, dtype)

    def to_device(self, array: Array) -> Value:
        """A copy on the GPU."""
        value = self.new_array(array.shape, array.dtype)
        self.device.upload(value.address, array)
        return value

    def to_host(self, value: Value) -> Array:
        """A copy of what lies on the GPU."""
        value = cast(DeviceArray, value)
        array = np.empty(value.shape, value.dtype)
        self.device.download(array, value.address)
        return array


class TensorRTGraph:
    """A plan on a GPU. Its values are `DeviceArray`s."""

    def __init__(self, runtime: TensorRTRuntime, engine: Any, name: str) -> None:  # Any: TensorRT has no types
        """Makes a slot for each profile of the engine.

        Raises:
            CudaError: if the GPU's memory is full, or the engine does not run.
        """
        trt = runtime.tensorrt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = frozenset(name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)
        self.outputs = frozenset(names) - self.inputs
        self._runtime = runtime
        self._slots = sorted(
            (Slot(runtime, engine, profile, self.inputs, name) for profile in range(engine.num_optimization_profiles)),
            key=lambda slot: -slot.batch,
        )
        self.max_batch = self._slots[0].batch

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the graph on all requests, in as few batches as the plan has sizes for."""
        outputs: list[dict[str, Value]] = []
        with ExitStack() as started:
            while len(outputs) < len(requests):
                num_left = len(requests) - len(outputs)
                # `to_trt` sees to a slot for a batch of 1
                slot = next(slot for slot in self._slots if slot.batch <= num_left)
                # waited for also if another fails: what is written to must not be used for something else
                started.callback(slot.wait)
                outputs += slot.start(cast(Any, requests[len(outputs) : len(outputs) + slot.batch]))  # Any: DeviceArray
        return outputs


class Slot:
    """Runs batches of one size: a context, a stream, buffers and, if it can be captured, a CUDA graph of its own."""

    def __init__(
        self,
        runtime: TensorRTRuntime,
        engine: Any,  # Any: TensorRT has no types
        profile: int,
        inputs: frozenset[str],
        name: str,
    ) -> None:
        """Allocates everything, runs once, and captures the run."""
        trt = runtime.tensorrt
        self._runtime = runtime
        self._device = runtime.device
        self._name = name
        self._stream = self._device.new_stream()
        # Sized for its one profile: by default each context takes the memory of the largest.
        self._context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE)
        if self._context is None:
            raise CudaError(f"TensorRT has no memory left to run {name}{runtime.messages.reason()}")
        self._must(self._context.set_optimization_profile_async(profile, int(self._stream)))
        self._device.wait(self._stream)
        shapes = {tensor: tuple(engine.get_tensor_profile_shape(tensor, profile)[2]) for tensor in inputs}
        self.batch = next(iter(shapes.values()))[0]
        for tensor, shape in shapes.items():
            self._must(self._context.set_input_shape(tensor, shape))
        self._inputs: dict[str, DeviceArray] = {}
        self._outputs: dict[str, DeviceArray] = {}
        for index in range(engine.num_io_tensors):
            tensor = engine.get_tensor_name(index)
            shape = tuple(self._context.get_tensor_shape(tensor))
            array = runtime.new_array(shape, trt.nptype(engine.get_tensor_dtype(tensor)))
            self._must(self._context.set_tensor_address(tensor, array.address))
            if tensor in inputs:
                self._device.upload(array.address, np.zeros(shape, array.dtype))  # what the first run is on
                self._inputs[tensor] = array
            else:
                self._outputs[tensor] = array
        self._graph = self._capture()

    def start(self, requests: Sequence[Mapping[str, DeviceArray]]) -> list[dict[str, Value]]:
        """Starts a batch and returns its outputs to be: nobody may read them before `wait`.

        Raises:
            ValueError: if a request is not of the graph's shapes and types.
        """
        for name, batch in self._inputs.items():
            for row, request in enumerate(requests):
                value = request[name]
                if (value.shape, value.dtype) != ((1, *batch.shape[1:]), batch.dtype):
                    raise ValueError(
                        f"{name} is {value.dtype} of shape {value.shape}, {self._name} takes {batch.dtype} of shape"
                        f" {(1, *batch.shape[1:])}"
                    )
                self._device.copy(batch.address + row * value.num_bytes, value.address, value.num_bytes, self._stream)
        if self._graph is None:
            self._enqueue()
        else:
            self._device.call("cudaGraphLaunch", self._graph, self._stream)
        answers: list[dict[str, Value]] = []
        for row in range(len(requests)):
            answer: dict[str, Value] = {}
            for name, batch in self._outputs.items():
                value = self._runtime.new_array((1, *batch.shape[1:]), batch.dtype)
                self._device.copy(value.address, batch.address + row * value.num_bytes, value.num_bytes, self._stream)
                answer[name] = value
            answers.append(answer)
        return answers

    def wait(self) -> None:
        """Waits until all that was started is done."""
        self._device.wait(self._stream)

    def _enqueue(self) -> None:
        self._must(self._context.execute_async_v3(int(self._stream)))

    def _capture(self) -> Handle | None:
        self._enqueue()  # the first run of a shape does what cannot be captured
        self._device.wait(self._stream)
        try:
            return self._device.capture(self._stream, self._enqueue)
        except CudaError as error:
            logger.warning("%s runs without a CUDA graph, a little slower: %s", self._name, error)
            return None

    def _must(self, has_succeeded: bool) -> None:
        if not has_succeeded:
            raise CudaError(f"TensorRT failed to run {self._name}{self._runtime.messages.reason()}")


class Messages:
    """What TensorRT says: to the log, and its errors for the sentence that tells the user."""

    def __init__(self, trt: TensorRT) -> None:
        """Makes the `logger` that TensorRT's objects take; it must outlive them."""
        self._errors: list[str] = []
        severities = trt.ILogger.Severity
        levels = {
            severities.INTERNAL_ERROR: logging.WARNING,  # the caller says what it means
            severities.ERROR: logging.WARNING,
            severities.WARNING: logging.INFO,
            severities.INFO: logging.DEBUG,
        }
        errors = self._errors

        class Logger(trt.ILogger):  # type: ignore[misc]  # TensorRT has no types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)  # not super(): the bindings want it called by name

            def log(self, severity: object, message: str) -> None:
                if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                    errors.append(message)
                if severity in levels:  # VERBOSE is a flood
                    logger.log(levels[severity], "TensorRT: %s", message)

        self.logger = Logger()

    def forget_errors(self) -> None:
        """Before something that may fail."""
        self._errors.clear()

    def reason(self) -> str:
        """The first error since then, in brackets; empty if TensorRT said none."""
        return f" ({' '.join(self._errors[0].split())[:300]})" if self._errors else ""


def import_tensorrt() -> TensorRT:
    """The module `tensorrt`.

    Raises:
        ValueError: if it is missing, or of a version that this code is not written for.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise ValueError(
            f"TensorRT is not installed ({error}): run \"pip install -e '.[tensorrt]'\", or choose ONNX Runtime"
        ) from error
    version = str(getattr(tensorrt, "__version__", "of no known version"))
    if version.partition(".")[0] not in MAJORS:
        raise ValueError(f"TensorRT {version} is installed, flowseg knows {' and '.join(MAJORS)}: install one of them")
    return tensorrt
