"""Makes torch programs of a bundle for this machine: python export/to_torch.py RUN BUNDLE --precision fp16.

For GPUs without TensorRT and ONNX Runtime's CUDA, and for comparison. RUN is what the bundle was exported from: torch
cannot read the bundle's graphs. Programs that are there already are kept. Each new one is compared with the ONNX graphs
on ONNX Runtime, and one that does not give their labels and state is not kept. They lie in the user's cache, not in the
bundle: loading one may run what is in it.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from export.plan_building import report
from export.plan_comparison import EngineError
from export.to_onnx import trained_segmenter
from export.torch_programs import build_programs
from serving.bundle import BundleError, read_bundle
from serving.plans import default_engines_folder
from serving.runtimes.torch_runtime import TorchRuntime
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.run_directory import RunError, read_run


@dataclass(frozen=True)
class Options:
    """Options of `export/to_torch.py`."""

    run: tyro.conf.Positional[Path]  # run directory that the bundle was exported from
    bundle: tyro.conf.Positional[Path]  # folder written by export/to_onnx.py
    precision: str = "fp32"  # of the graphs to make programs of: fp32 or fp16
    engines: Path = field(default_factory=default_engines_folder)  # folder to keep programs in; must be yours alone
    device: str = "cuda"  # that is to run them: cpu, cuda or cuda:N
    json: bool = False  # print what was made, and the figures of the comparison, as JSON on stdout


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/to_torch.py", description=__doc__)
    with user_errors_exit_with_2(RunError, BundleError, EngineError, ValueError):
        runtime = TorchRuntime(options.device, options.engines)
        bundle = read_bundle(options.bundle)
        segmenter = trained_segmenter(read_run(options.run))
        programs = build_programs(bundle, options.precision, segmenter, runtime, options.engines)
        sys.stdout.write(report(programs, as_json=options.json))


if __name__ == "__main__":
    main()
