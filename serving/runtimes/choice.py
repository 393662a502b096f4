"""Which runtime runs a bundle."""

import logging
from typing import Literal

from serving.bundle import Bundle, BundleError, Precision, RuntimeName
from serving.graphs import pick_variant
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Runtime
from serving.runtimes.tensorrt_runtime import TensorRTRuntime

logger = logging.getLogger(__name__)

RuntimeChoice = Literal["auto", "onnxruntime", "openvino", "tensorrt"]


def open_runtime(
    choice: RuntimeChoice,
    device: str,
    threads: int,
    bundle: Bundle,
    precision: Precision | Literal["auto"] = "auto",
    size: tuple[int, int] | None = None,
) -> Runtime:
    """The runtime of that name, or with "auto" the fastest that is there for the device and has graphs in the bundle.

    On a CPU that is OpenVINO, on a GPU TensorRT, and ONNX Runtime without them; a line of the log says which, and why.

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
        case "auto":
            return _open_fastest(device, threads, bundle, precision, size)


def _open_fastest(
    device: str, threads: int, bundle: Bundle, precision: Precision | Literal["auto"], size: tuple[int, int] | None
) -> Runtime:
    label = f"{bundle.manifest.name}@{bundle.manifest.version}"
    fastest: RuntimeName = "openvino" if device == "cpu" else "tensorrt"
    try:
        if not any(
            fastest in variant.runtimes
            and precision in ("auto", variant.precision)
            and size in (None, (variant.height, variant.width))
            for variant in bundle.manifest.variants
        ):
            raise BundleError(f"the bundle has no such graphs for {fastest}")
        runtime = OpenVinoRuntime(device, threads=threads) if fastest == "openvino" else TensorRTRuntime(device)
        if isinstance(runtime, TensorRTRuntime):
            variant = pick_variant(bundle, fastest, precision, size)
            for graph in (variant.key, variant.step) if variant.state else (variant.step,):
                runtime.find_plan(bundle.path(graph))
    except ValueError as error:
        portable = OnnxRuntime(device, threads=threads)
        logger.info("%s runs by %s: %s", label, portable.description, error)
        return portable
    logger.info("%s runs by %s, the fastest there is for %s", label, runtime.description, device)
    return runtime
