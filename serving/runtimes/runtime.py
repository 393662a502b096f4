"""The seam between the engine and whatever runs graphs: ONNX Runtime, TensorRT, torch.

Values are opaque to the engine: it takes them from one graph and hands them to another, so a state tensor can stay on
the device for as long as its stream lives. Only what `to_host` is asked for comes back.

Batching is the runtime's business too, since it alone knows how its values are laid out. The engine gives a list of
requests, each with a batch dimension of 1, and gets a list of answers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.bundle import RuntimeName

Value = object  # a tensor where the runtime keeps it
Array = NDArray[Any]  # uint8 frames and maps, float32 state: the manifest says which


class Graph(Protocol):
    """A loaded graph."""

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs."""
        ...

    @property
    def outputs(self) -> frozenset[str]:
        """Names of the outputs."""
        ...

    @property
    def max_batch(self) -> int:
        """How many requests one call of `run` may hold."""
        ...

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the graph on all requests at once and returns their outputs in the same order.

        Every output is a buffer of its own that later runs leave alone: state and next state never share memory.
        One request that cannot be run may fail them all, with any exception.
        """
        ...


class Runtime(Protocol):
    """Runs graphs on one device."""

    @property
    def name(self) -> RuntimeName:
        """What a bundle's variants call it."""
        ...

    @property
    def description(self) -> str:
        """Runtime, version and device, for people: 'ONNX Runtime 1.32.0 on cpu'."""
        ...

    def load(self, path: Path) -> Graph:
        """Loads a graph.

        Raises:
            BundleError: if the file holds no graph that this runtime can run.
        """
        ...

    def to_device(self, array: Array) -> Value:
        """The array as a value; it must not be written to afterwards."""
        ...

    def to_host(self, value: Value) -> Array:
        """The value as an array, copied if it lies on a device."""
        ...


# What runtimes write when a device is full, in lower case: they have no exception in common.
OUT_OF_MEMORY = ("out of memory", "outofmemory", "failed to allocate memory", "bad allocation", "memoryallocation")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a runtime failed because the device, or the host, has no memory left."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays of batch dimension 1 as one batch; a single one is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def unstack(batch: Array) -> list[Array]:
    """The items of a batch, each with a batch dimension of 1 and memory of its own."""
    # copied: a view would keep the whole batch, that is other streams' state, alive for as long as its stream
    return [batch] if len(batch) == 1 else [batch[index : index + 1].copy() for index in range(len(batch))]
