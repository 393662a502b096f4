"""Builds TensorRT engines of a bundle on the GPU that is to run them: python export/to_trt.py BUNDLE --precision fp16.

Takes minutes. Engines that are there already are kept. Each new one is compared with the ONNX graphs on ONNX Runtime,
and one that does not give their labels and state is not kept. They lie in the user's cache, not in the bundle: an
engine is machine code for one GPU, TensorRT and driver, to be trusted only where it was built.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from export.plan_building import report
from export.plan_comparison import EngineError
from export.tensorrt_engines import BuildOptions, build_engines
from serving.bundle import BundleError, read_bundle
from serving.plans import default_engines_folder
from serving.runtimes.cuda_device import CudaError
from serving.runtimes.tensorrt_runtime import TensorRTRuntime
from training.command_line import logging_to_stderr, user_errors_exit_with_2

MAX_BATCH = 64  # frames
UNITS = {"MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Options:
    """Options of `export/to_trt.py`."""

    bundle: tyro.conf.Positional[Path]  # folder written by export/to_onnx.py
    precision: str = "fp32"  # of the graphs to build: fp32, fp16 or int8
    batch: str = "1,4"  # numbers of frames in one run, each with kernels of its own; 1 must be among them
    workspace: str = "4GiB"  # of the GPU's memory that kernels may use beside weights and activations, in MiB or GiB
    engines: Path = field(default_factory=default_engines_folder)  # folder to keep engines in; must be yours alone
    device: str = "cuda"  # cuda or cuda:N
    json: bool = False  # print what was built, and the figures of the comparison, as JSON on stdout


def parse_batches(text: str) -> tuple[int, ...]:
    """Numbers of frames, ascending.

    Raises:
        ValueError: if they are not numbers within 1..64, or 1 is not among them.
    """
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text):
        raise ValueError(f"--batch {text!r} does not read as numbers of frames, like 1,4,16")
    batches = tuple(sorted({int(part) for part in text.split(",")}))
    if not 1 <= batches[0] <= batches[-1] <= MAX_BATCH:
        raise ValueError(f"--batch {text} is out of range: name numbers within 1..{MAX_BATCH}")
    if batches[0] != 1:
        raise ValueError(f"--batch {text} lacks 1, which a frame that is alone needs: use --batch 1,{text}")
    return batches


def parse_memory(text: str) -> int:
    """Bytes.

    Raises:
        ValueError: if the text is no positive number of MiB or GiB.
    """
    match = re.fullmatch(r"(\d{1,9})(MiB|GiB)", text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"--workspace {text!r} does not read as an amount of memory, like 512MiB or 4GiB")
    return int(match[1]) * UNITS[match[2]]


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/to_trt.py", description=__doc__)
    with user_errors_exit_with_2(BundleError, EngineError, CudaError, ValueError):
        build_options = BuildOptions(parse_batches(options.batch), parse_memory(options.workspace))
        bundle = read_bundle(options.bundle)
        runtime = TensorRTRuntime(options.device, options.engines)
        engines = build_engines(bundle, options.precision, build_options, runtime, options.engines)
        sys.stdout.write(report(engines, as_json=options.json))


if __name__ == "__main__":
    main()
