# ruff: noqa: N801, N802, N815  # names are CUDA's own
"""`cuda.bindings.runtime` with the host's memory for a GPU's: as much of it as `serving/runtimes/cuda_device.py` calls.

Streams are as lazy as the real ones may be: what is put into one is done when it is waited for, no sooner. Memory is
full of nonsense when it is allocated, and touching what is not allocated is an error.
"""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], None]


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class Properties:
    name = b"NVIDIA Imaginary 100"
    major = 9
    minor = 0


class FakeCuda:
    """Stands for the module."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaStreamNonBlocking = 1

    def __init__(self) -> None:
        self.num_devices = 1
        self.driver_version = 13000
        self.name = b"NVIDIA Imaginary 100"
        self.memory_limit = 1 << 40  # bytes
        self.without_driver = False
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.num_mallocs = 0
        self.num_launches = 0
        self.streams: dict[int, list[Work]] = {}
        self.captures: dict[int, list[Work] | None] = {}  # by stream; None: invalidated
        self.graphs: dict[int, list[Work]] = {}
        self._next_handle = 1000

    # What tests and the fake TensorRT use

    def enqueue(self, stream: int, work: Work) -> None:
        if stream in self.captures:
            capture = self.captures[stream]
            if capture is not None:
                capture.append(work)
        else:
            self.streams[stream].append(work)

    def view(self, address: int, num_bytes: int) -> NDArray[np.uint8]:
        """Allocated memory."""
        for start, block in self.memory.items():
            if start <= address and address + num_bytes <= start + len(block):
                return block[address - start : address - start + num_bytes]
        raise AssertionError(f"{num_bytes} bytes at {address} are not allocated")

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle

    # The module

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if self.without_driver:
            return cudaError_t.cudaErrorInsufficientDriver, None
        return cudaError_t.cudaSuccess, self.num_devices

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        properties = Properties()
        properties.name = self.name
        return cudaError_t.cudaSuccess, properties

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return cudaError_t.cudaSuccess, self.driver_version

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        assert 0 <= device < self.num_devices
        return (cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, error: int) -> tuple[Any, ...]:
        texts: dict[int, bytes] = {
            cudaError_t.cudaErrorMemoryAllocation: b"out of memory",
            cudaError_t.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
        }
        return cudaError_t.cudaSuccess, texts.get(error, b"unspecified failure")

    def cudaGetLastError(self) -> tuple[Any, ...]:
        return (cudaError_t.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if sum(len(block) for block in self.memory.values()) + size > self.memory_limit:
            return cudaError_t.cudaErrorMemoryAllocation, None
        block = np.full(size, 0xAB, np.uint8)
        self.memory[block.ctypes.data] = block
        self.num_mallocs += 1
        return cudaError_t.cudaSuccess, block.ctypes.data

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, destination: int, source: int, count: int, kind: int, stream: int) -> tuple[Any, ...]:
        def copy() -> None:
            if kind != cudaMemcpyKind.cudaMemcpyHostToDevice:
                self.view(source, count)
            if kind != cudaMemcpyKind.cudaMemcpyDeviceToHost:
                self.view(destination, count)
            ctypes.memmove(destination, source, count)

        self.enqueue(stream, copy)
        return (cudaError_t.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        stream = self._handle()
        self.streams[stream] = []
        return cudaError_t.cudaSuccess, stream

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert stream not in self.captures
        works, self.streams[stream] = self.streams[stream], []
        try:
            for work in works:
                work()
        except AssertionError:
            raise
        except Exception:  # of ONNX Runtime, in place of a kernel that fails
            return (cudaError_t.cudaErrorLaunchFailure,)
        return (cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.captures[stream] = []
        return (cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        works = self.captures.pop(stream)
        if works is None:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        graph = self._handle()
        self.graphs[graph] = works
        return cudaError_t.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert flags == 0
        executable = self._handle()
        self.graphs[executable] = list(self.graphs[graph])
        return cudaError_t.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (cudaError_t.cudaSuccess,)

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[Any, ...]:
        self.num_launches += 1
        for work in self.graphs[executable]:
            self.enqueue(stream, work)
        return (cudaError_t.cudaSuccess,)
