"""torch on a CPU or an NVIDIA GPU: runs the programs that `export/to_torch.py` made on this machine.

It is for GPUs where neither TensorRT nor ONNX Runtime's CUDA is at hand, and for comparison. The one module of the
server that imports torch, imported when it is chosen.

A batch is joined into memory of its own and every answer is copied out of the outputs. So state and next state never
share memory, and what a CUDA graph reads and writes stays where it was when the graph was captured: one capture for
each number of frames serves all streams.
"""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from serving.bundle import BundleError, RuntimeName
from serving.plans import Plan, TorchMachine, build_command, default_engines_folder, find_plan
from serving.runtimes.runtime import Array, Graph, Value

logger = logging.getLogger(__name__)

Program = Callable[..., Sequence[Tensor]]
WIRING = "flowseg.json"  # in a program's file: names of its inputs and outputs, in their order
MAX_BATCH = 64  # of one run; the engine's own bound is lower
NUM_WARM_UPS = 3  # runs before a capture, in which libraries choose their kernels


class TorchRuntime:
    """Runs torch programs on `cpu` or `cuda:N`."""

    name: RuntimeName = "torch"

    def __init__(self, device: str = "cpu", engines: Path | None = None, *, threads: int = 0) -> None:
        """Chooses the device.

        Args:
            device: "cpu", "cuda" or "cuda:N".
            engines: folder of the programs; None is the user's cache. Whoever names one vouches for what is in it.
            threads: of all that torch runs on the CPU in this process; 0 leaves it to torch.

        Raises:
            ValueError: if torch has no such device.
        """
        if not re.fullmatch("cpu|cuda(:[0-9]+)?", device):
            raise ValueError(f"{device!r} is no device for torch: choose cpu, cuda or cuda:N")
        kind, _, number = device.partition(":")
        if kind == "cuda":
            if not torch.cuda.is_available():
                raise ValueError(f"no GPU answers torch {torch.__version__}: check the NVIDIA driver, or choose cpu")
            if int(number or 0) >= torch.cuda.device_count():
                there = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
                raise ValueError(f"there is no {device}: the GPUs are {there}")
        self.device = torch.device("cpu" if kind == "cpu" else f"cuda:{number or 0}")
        self.machine = TorchMachine(torch=torch.__version__, device="cpu" if kind == "cpu" else "cuda")
        self.engines = engines or default_engines_folder()
        self._stream = torch.cuda.Stream(self.device) if kind == "cuda" else None  # type: ignore[no-untyped-call]  # torch's
        if kind == "cuda":  # for all that torch runs in this process
            torch.backends.cudnn.allow_tf32 = False  # or "fp32" would mean ten bits of mantissa
            torch.backends.cudnn.benchmark = True  # kernels are chosen by trying: frames are of one size
        elif threads:
            torch.set_num_threads(threads)

    @property
    def description(self) -> str:
        """Runtime, version and device, for people."""
        return f"torch {torch.__version__} on {self.device}"

    def find_plan(self, path: Path) -> Plan:
        """The program of an ONNX file.

        Raises:
            BundleError: if there is none for this torch and kind of device, or it is damaged.
        """
        return find_plan(self.engines, path, self.machine)

    def load(self, path: Path) -> Graph:
        """Loads the program of an ONNX file.

        Raises:
            BundleError: if there is none for this torch and kind of device, or it cannot be loaded.
        """
        plan = self.find_plan(path)
        logger.info("loading the program of %s from %s", path.name, plan.path)
        return self.load_plan(plan.path.read_bytes(), path)

    def load_plan(self, plan: bytes, onnx: Path) -> "TorchGraph":
        """Loads a program, which must be trusted, of an ONNX file.

        Raises:
            BundleError: if torch or the GPU's memory does not take it.
        """
        files = {WIRING: ""}
        try:
            with self.scope():
                exported = move_to_device_pass(torch.export.load(io.BytesIO(plan), extra_files=files), self.device)
                program = exported.module()
                wiring = json.loads(files[WIRING])
                if self._stream is not None:
                    lay_out_for_tensor_cores(program)
        except Exception as error:  # of all kinds, with no base of their own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise BundleError(
                f"{self.description} cannot load the program of {onnx} ({reason}): build it again with"
                f" {build_command(onnx.parent, self.machine)}"
            ) from error
        return TorchGraph(self, program, wiring["inputs"], wiring["outputs"], onnx.name)

    def to_device(self, array: Array) -> Value:
        """A copy on the device."""
        with self.scope():
            return torch.tensor(array, device=self.device)

    def to_host(self, value: Value) -> Array:
        """The value as an array, copied if it lies on a GPU."""
        with self.scope():
            return cast(Tensor, value).cpu().numpy()

    @contextmanager
    def scope(self) -> Iterator[torch.cuda.Stream | None]:
        """In which everything is computed: without gradients, and on a GPU on a stream of the runtime's own."""
        with torch.inference_mode(), nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            yield self._stream


class TorchGraph:
    """A program on a device. Its values are tensors there."""

    max_batch = MAX_BATCH

    def __init__(
        self, runtime: TorchRuntime, program: Program, inputs: Sequence[str], outputs: Sequence[str], name: str
    ) -> None:
        """Takes a program with the names of what it takes and gives, in order."""
        self._runtime = runtime
        self._program = program
        self._input_names, self._output_names = inputs, outputs
        self._name = name
        self._captured: dict[int, CapturedRun | None] = {}  # by batch size; None where it cannot be captured
        self.inputs, self.outputs = frozenset(inputs), frozenset(outputs)

    def run(self, requests: Sequence[Mapping[str, Value]]) -> list[dict[str, Value]]:
        """Runs the program on all requests at once."""
        with self._runtime.scope() as stream:
            batches = [torch.cat([cast(Tensor, request[name]) for request in requests]) for name in self._input_names]
            outputs = self._program(*batches) if stream is None else self._run_on_gpu(stream, batches)
            answers: list[dict[str, Value]] = [
                # copied: outputs may lie on each other, on the program's constants, or where the next run writes
                {name: batch[row : row + 1].clone() for name, batch in zip(self._output_names, outputs, strict=True)}
                for row in range(len(requests))
            ]
            if stream is not None:
                stream.synchronize()
        return answers

    def _run_on_gpu(self, stream: torch.cuda.Stream, batches: list[Tensor]) -> Sequence[Tensor]:
        size = len(batches[0])
        if size not in self._captured:
            for _ in range(NUM_WARM_UPS):
                outputs = self._program(*batches)
            stream.synchronize()
            try:
                self._captured[size] = CapturedRun(self._program, batches, stream)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                logger.warning("%s runs without a CUDA graph, a little slower: %s", self._name, reason)
                self._captured[size] = None
            return outputs
        captured = self._captured[size]
        return self._program(*batches) if captured is None else captured(batches)


class CapturedRun:
    """A program's run on one batch size, as a CUDA graph."""

    def __init__(self, program: Program, batches: list[Tensor], stream: torch.cuda.Stream) -> None:
        """Captures; `batches` become the memory that every run reads.

        Raises:
            RuntimeError: if the run cannot be captured.
        """
        self._inputs = batches
        self._graph = torch.cuda.CUDAGraph()
        # of this thread alone: other threads may go on to allocate memory
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = program(*batches)

    def __call__(self, batches: list[Tensor]) -> Sequence[Tensor]:
        """The outputs, in memory that the next run writes to.

        Raises:
            ValueError: if a batch is not of the shape and type that was captured.
        """
        for own, batch in zip(self._inputs, batches, strict=True):
            if (own.shape, own.dtype) != (batch.shape, batch.dtype):  # copying would convert it without a word
                raise ValueError(
                    f"an input is {batch.dtype} of shape {tuple(batch.shape)}, it was captured for {own.dtype} of shape"
                    f" {tuple(own.shape)}"
                )
        for own, batch in zip(self._inputs, batches, strict=True):
            own.copy_(batch)
        self._graph.replay()
        return self._outputs


def lay_out_for_tensor_cores(program: torch.nn.Module) -> None:
    """Puts the channels of all kernels last, and with them those of what convolutions give."""
    for parameter in program.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
