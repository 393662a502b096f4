"""A GPU's memory and streams, by cuda-python: what a server needs of CUDA where torch is not installed."""

import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from serving.runtimes.runtime import Array

Handle = Any  # Any: cuda-python has no types


class CudaError(RuntimeError):
    """A call of CUDA that failed. The message is one sentence."""


class CudaDevice:
    """One GPU. Safe to use from any thread."""

    def __init__(self, number: int) -> None:
        """Opens the GPU.

        Raises:
            ValueError: if cuda-python, a driver or this GPU is missing.
        """
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise ValueError(
                "TensorRT needs cuda-bindings: run \"pip install -e '.[tensorrt]'\", or choose ONNX Runtime"
            ) from error
        self._cuda: Any = runtime  # Any: cuda-python has no types
        self.number = number
        try:
            count = self.call("cudaGetDeviceCount")
        except (CudaError, RuntimeError) as error:  # cuda-python 12 raises where there is no driver
            raise ValueError(f"no GPU answers ({error}): check the NVIDIA driver, or choose ONNX Runtime") from error
        if number >= count:
            there = ", ".join(f"cuda:{index}" for index in range(count)) or "none"
            raise ValueError(f"there is no cuda:{number}: the GPUs are {there}")
        properties = self.call("cudaGetDeviceProperties", number)
        self.name = properties.name.decode()
        self.compute_capability = f"{properties.major}.{properties.minor}"
        version = self.call("cudaDriverGetVersion")
        self.driver = f"{version // 1000}.{version % 1000 // 10}"  # the CUDA version it is made for
        self._copies = self.new_stream()

    def call(self, name: str, *arguments: object) -> Any:  # Any: as what is called
        """Calls a function of the CUDA runtime on this GPU and returns what it gives.

        Raises:
            CudaError: if it fails.
        """
        if name != "cudaGetDeviceCount":
            self._check("cudaSetDevice", self._cuda.cudaSetDevice(self.number))  # the choice is a thread's own
        return self._check(name, getattr(self._cuda, name)(*arguments))

    def new_stream(self) -> Handle:
        """A stream that waits for no other. It lasts as long as the process."""
        return self.call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)

    def wait(self, stream: Handle) -> None:
        """Waits until all that was put into the stream is done."""
        self.call("cudaStreamSynchronize", stream)

    def copy(self, destination: int, source: int, num_bytes: int, stream: Handle) -> None:
        """Copies within the GPU's memory, when the stream comes to it."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.call("cudaMemcpyAsync", destination, source, num_bytes, kind, stream)

    def upload(self, destination: int, array: Array) -> None:
        """Copies an array to the GPU, and waits."""
        array = np.ascontiguousarray(array)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", destination, array.ctypes.data, array.nbytes, kind, self._copies)
        # Waited for: copies from pageable memory may return before they arrive, and other streams would not know.
        self.wait(self._copies)

    def download(self, array: Array, source: int) -> None:
        """Fills a contiguous array from the GPU, and waits."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", array.ctypes.data, source, array.nbytes, kind, self._copies)
        self.wait(self._copies)

    def capture(self, stream: Handle, work: Callable[[], None]) -> Handle:
        """What `work` puts into the stream, as a CUDA graph to be launched again and again.

        Raises:
            CudaError: if the stream's work cannot be captured. The stream can be used as before.
            Exception: whatever `work` raises.
        """
        # of this thread alone: other threads may go on to allocate memory
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(stream)  # fails too; what counts is that the capture is over
            self._cuda.cudaGetLastError()  # or the next call would be told of it
            raise
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            return self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self.call("cudaGraphDestroy", graph)

    def _check(self, name: str, answer: tuple[Any, ...]) -> Any:  # Any: cuda-python has no types
        error, *results = answer
        if error != self._cuda.cudaError_t.cudaSuccess:
            self._cuda.cudaGetLastError()  # or the next call would be told of it again
            _, text = self._cuda.cudaGetErrorString(error)
            advice = ""
            if error == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
                advice = ": serve fewer streams or models on this GPU"
            raise CudaError(f"{name} failed on cuda:{self.number}, {text.decode()}{advice}")
        return results[0] if results else None


class DeviceArray:
    """An array in a GPU's memory, which goes back to its pool once nothing refers to the array."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: DTypeLike, pool: "Pool") -> None:
        """Made by `Pool.array`."""
        self.address = address
        self.shape = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)  # Any: uint8 or float32
        self.num_bytes = int(np.prod(shape)) * self.dtype.itemsize
        self._pool = pool  # kept: it frees its memory when it goes


class Pool:
    """Memory of one GPU, used again: `cudaMalloc` waits for all that runs there."""

    def __init__(self, device: CudaDevice) -> None:
        """An empty pool."""
        self._device = device
        # A deque needs no lock, which a finaliser could not take: it may run in the thread that holds it.
        self._free: defaultdict[int, deque[int]] = defaultdict(deque)
        weakref.finalize(self, _free_all, device, self._free).atexit = False

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> DeviceArray:
        """An array of any content, which shares memory with no other.

        Raises:
            CudaError: if the GPU's memory is full.
        """
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        free = self._free[num_bytes]
        try:
            address = free.pop()
        except IndexError:
            address = int(self._device.call("cudaMalloc", num_bytes))
        array = DeviceArray(address, shape, dtype, self)
        weakref.finalize(array, free.append, address).atexit = False
        return array


def _free_all(device: CudaDevice, free: dict[int, deque[int]]) -> None:
    for addresses in free.values():
        for address in addresses:
            device.call("cudaFree", address)
