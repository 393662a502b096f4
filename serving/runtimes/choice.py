"""Which runtime runs a bundle."""

import logging
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from serving.bundle import Bundle, BundleError, Precision
from serving.graphs import pick_variant
from serving.plans import Plan
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Runtime
from serving.runtimes.tensorrt_runtime import TensorRTRuntime

logger = logging.getLogger(__name__)

RuntimeChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt", "torch"]


def open_runtime(
    choice: RuntimeChoice,
    device: str,
    threads: int,
    bundle: Bundle,
    precision: Precision | Literal["auto"] = "auto",
    size: tuple[int, int] | None = None,
) -> Runtime:
    """The runtime of that name, or with "auto" the fastest that is there for the device and has graphs in the bundle.

    On a CPU that is OpenVINO, on a GPU TensorRT or else torch, each once it has plans of the graphs, and ONNX Runtime
    without them; a line of the log says which, and why.

    Args:
        choice: of the runtime.
        device: "cpu", "cuda" or "cuda:N".
        threads: of one run on the CPU; 0 takes every core.
        bundle: that is to be run.
        precision: of its graphs.
        size: (height, width) of its graphs, or None for any.

    Raises:
        ValueError: if the runtime is not installed or has no such device.
    """
    match choice:
        case "onnxruntime":
            return OnnxRuntime(device, threads=threads)
        case "openvino":
            return OpenVinoRuntime(device, threads=threads)
        case "tensorrt":
            return TensorRTRuntime(device)
        case "torch":
            return _open_torch(device, threads)
        case "auto":
            return _open_fastest(device, threads, bundle, precision, size)


@runtime_checkable
class _PlanFinder(Protocol):
    """A runtime that runs plans, if it has them."""

    def find_plan(self, path: Path) -> Plan:
        """The plan of an ONNX file; BundleError without one."""
        ...


def _open_torch(device: str, threads: int) -> Runtime:
    """The runtime by torch, which is imported only now: servers start without it.

    Raises:
        ValueError: if it is not installed or has no such device.
    """
    try:
        from serving.runtimes.torch_runtime import TorchRuntime
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise ValueError(
            f"torch is not installed ({error}): run \"pip install -e '.[training]'\", or choose ONNX Runtime"
        ) from error
    return TorchRuntime(device, threads=threads)


def _open_fastest(
    device: str, threads: int, bundle: Bundle, precision: Precision | Literal["auto"], size: tuple[int, int] | None
) -> Runtime:
    label = f"{bundle.manifest.name}@{bundle.manifest.version}"
    fastest_first: tuple[Literal["openvino", "tensorrt", "torch"], ...] = (
        ("openvino",) if device == "cpu" else ("tensorrt", "torch")
    )
    reasons: list[str] = []  # why not those before
    for name in fastest_first:
        try:
            if not any(
                variant.suits(name)
                and precision in ("auto", variant.precision)
                and size in (None, (variant.height, variant.width))
                for variant in bundle.manifest.variants
            ):
                raise BundleError(f"the bundle has no such graphs for {name}")
            runtime = open_runtime(name, device, threads, bundle)
            if isinstance(runtime, _PlanFinder):
                variant = pick_variant(bundle, name, precision, size)
                for graph in (variant.key, variant.step) if variant.state else (variant.step,):
                    runtime.find_plan(bundle.path(graph))
        except ValueError as error:
            reasons.append(str(error))
        else:
            why = f": {'; '.join(reasons)}" if reasons else f", the fastest there is for {device}"
            logger.info("%s runs by %s%s", label, runtime.description, why)
            return runtime
    portable = OnnxRuntime(device, threads=threads)
    logger.info("%s runs by %s: %s", label, portable.description, "; ".join(reasons))
    return portable
