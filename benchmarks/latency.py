"""How long the graphs of bundles take, beside a DeepLab on every frame and the least time their arithmetic can take.

Everything of one frame size runs in turns: the graphs of all bundles, runtimes and precisions, the opponent (a DeepLab
with random weights on every frame, for each runtime and precision), and matrix products, whose speed sets the floor. A
frame of a stream with a key frame every k frames takes step + key / k. Accuracy is what the export found, from the
manifest. Without bundles, --architecture makes networks with random weights, fit for time alone, and torch's programs
of them; TensorRT's engines, and programs of a BUNDLE, must be there. Writes OUT.json, tables as OUT.md, a plot as
OUT.png, and OUT.log. On a busy machine prefer --clock cpu, which takes one thread.
"""

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import tyro

from benchmarks.arithmetic_floor import torch_threads
from benchmarks.interleaving import Clock
from benchmarks.latency_measurement import Measurement, Network, measure
from benchmarks.latency_report import draw_plot, goals, tables
from benchmarks.training_step import machine
from benchmarks.untrained_bundles import (
    parse_architecture,
    per_frame_network,
    untrained_bundle,
    untrained_programs,
)
from export.plan_comparison import EngineError
from export.to_onnx import parse_precisions
from serving.bundle import Bundle, BundleError, Precision, parse_size, read_bundle
from serving.runtimes.cuda_device import CudaError
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Runtime
from serving.runtimes.tensorrt_runtime import TensorRTRuntime
from serving.runtimes.torch_runtime import TorchRuntime
from training.command_line import logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.models.deeplab import BackboneName
from training.run_directory import commit, versions, write_aside

logger = logging.getLogger(__name__)
Size = tuple[int, int]  # height, width in pixels
DEFAULT_SIZE = "512x1024"


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.latency`."""

    bundles: tyro.conf.Positional[tuple[Path, ...]] = ()  # folders written by export/to_onnx.py
    # networks with random weights to measure too: Accel of two residual networks, like resnet101/resnet18
    architecture: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="REFERENCE/UPDATE")] = ()
    opponent: BackboneName = "resnet101"  # residual network of the per-frame DeepLab to compare with
    # comma-separated: onnxruntime, openvino, tensorrt, torch
    runtime: Annotated[str, tyro.conf.arg(metavar="RUNTIME[,RUNTIME...]")] = "onnxruntime"
    # comma-separated: fp32, fp16 (on a GPU), int8
    precision: Annotated[str, tyro.conf.arg(metavar="PRECISION[,PRECISION...]")] = "fp32"
    # frame size in pixels; may be given several times; default is every size of the bundles, or 512x1024 without any
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="HEIGHTxWIDTH")] = ()
    device: str = "cpu"  # where graphs run: cpu, cuda or cuda:N
    batch: int = 1  # frames in a run
    threads: int = 1  # of one run on the CPU
    seconds: float = 5.0  # to run each graph for, at each size; longer if one run per round takes longer
    rounds: int = 10  # of turns that this time is split into
    intervals: str = "1,2,5,10"  # comma-separated key-frame intervals in frames
    clock: Clock = "wall"  # what ratios are of: time on the clock, or time on the processor, which takes one thread
    cache: Path = Path("runs/latency")  # folder of exported networks with random weights
    json: bool = False  # print the figures as JSON on stdout instead of tables
    out: Path = Path("benchmarks/results/latency")  # name of the results, without ending


class Plan(NamedTuple):
    """Options, checked."""

    bundles: dict[str, Bundle]  # by the name they are reported by
    architectures: tuple[str, ...]
    runtimes: dict[str, Runtime]  # by the name a user knows
    precisions: tuple[Precision, ...]
    sizes: tuple[Size, ...]
    intervals: tuple[int, ...]


def open_runtime(name: str, device: str, threads: int) -> Runtime:
    """The runtime of a name.

    Raises:
        ValueError: if there is none, it is not installed, or it has no such device.
    """
    match name:
        case "onnxruntime":
            return OnnxRuntime(device, threads=threads)
        case "openvino":
            return OpenVinoRuntime(device, threads=threads)
        case "tensorrt":
            return TensorRTRuntime(device)
        case "torch":
            return TorchRuntime(device, threads=threads)
        case _:
            raise ValueError(f"there is no runtime {name!r}: choose onnxruntime, openvino, tensorrt or torch")


def make_plan(options: Options) -> Plan:
    """Checks options and bundles.

    Raises:
        ValueError: if one cannot be used.
    """
    for option, value in (("batch", options.batch), ("threads", options.threads), ("rounds", options.rounds)):
        if value < 1:
            raise ValueError(f"--{option} is {value}: choose at least 1")
    if not options.seconds > 0:
        raise ValueError(f"--seconds is {options.seconds}: choose more than 0")
    if options.clock == "cpu" and options.threads > 1:
        raise ValueError(
            f"--clock cpu adds up the time of {options.threads} threads: choose --threads 1 or --clock wall"
        )
    if not options.bundles and not options.architecture:
        raise ValueError("there is nothing to measure: give a BUNDLE or --architecture REFERENCE/UPDATE")
    if not all(part.isdecimal() and int(part) > 0 for part in options.intervals.split(",")):
        raise ValueError(f"--intervals {options.intervals!r} does not read as numbers of frames, like 1,2,5,10")
    precisions = parse_precisions(options.precision)
    names = tuple(dict.fromkeys(options.runtime.split(",")))
    if "fp16" in precisions and options.device == "cpu":
        raise ValueError("fp16 graphs are for GPUs and this measures the CPU: choose fp32 or int8")
    if "int8" in precisions and "torch" in names:
        raise ValueError("torch runs no int8 graphs: choose another --precision or --runtime")
    for architecture in options.architecture:
        parse_architecture(architecture)
    runtimes = {name: open_runtime(name, options.device, options.threads) for name in names}
    bundles = {str(folder): read_bundle(folder) for folder in options.bundles}
    sizes = [parse_size(text) for text in options.size] or [
        (variant.height, variant.width) for bundle in bundles.values() for variant in bundle.manifest.variants
    ]
    return Plan(
        bundles=bundles,
        architectures=tuple(dict.fromkeys(options.architecture)),
        runtimes=runtimes,
        precisions=precisions,
        sizes=tuple(dict.fromkeys(sizes or [parse_size(DEFAULT_SIZE)])),
        intervals=tuple(sorted({int(part) for part in options.intervals.split(",")})),
    )


def networks(options: Options, plan: Plan, size: Size) -> list[Network]:
    """What runs at one frame size: the bundles, and those with random weights, made if they are not there."""
    configs = [*map(parse_architecture, plan.architectures), per_frame_network(options.opponent)]
    given = [Network(name, precision, bundle) for precision in plan.precisions for name, bundle in plan.bundles.items()]
    untrained = []
    for precision in plan.precisions:
        for name, config in configs:
            bundle = untrained_bundle(options.cache, name, config, size, precision)
            if isinstance(runtime := plan.runtimes.get("torch"), TorchRuntime):
                untrained_programs(bundle, config, precision, runtime)
            untrained.append(Network(name, precision, bundle))
    return given + untrained


def run(options: Options) -> dict[str, Any]:
    """Measures, writes the files and returns the report."""
    plan = make_plan(options)
    at_commit = commit()  # before the log changes the tree
    with logging_to_file(options.out.with_suffix(".log"), "w"), torch_threads(options.threads):
        chosen = {
            key: value for key, value in dataclasses.asdict(options).items() if key not in ("out", "json", "cache")
        } | {"bundles": list(plan.bundles)}
        computer = machine(torch.device(options.device))  # before this command makes it busy itself
        measurement = Measurement(
            runtimes=plan.runtimes, intervals=plan.intervals, batch=options.batch, device=options.device,
            threads=options.threads, seconds=options.seconds, rounds=options.rounds, clock=options.clock,
        )  # fmt: skip
        opponent, _ = per_frame_network(options.opponent)
        measured = [measure(measurement, size, networks(options, plan, size), opponent) for size in plan.sizes]
        report: dict[str, Any] = {
            "options": chosen, "machine": computer, "versions": versions(), "commit": at_commit,
            "runtimes": [runtime.description for runtime in plan.runtimes.values()],
            "sizes": measured, "goals": goals(measured),
        }  # fmt: skip
        text, markdown, figure = json.dumps(report, indent=2) + "\n", tables(report), draw_plot(report)
        write_aside(options.out.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
        write_aside(options.out.with_suffix(".md"), lambda path: path.write_text(markdown, encoding="utf-8"))
        write_aside(options.out.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=110))
        logger.info("wrote %s, .md and .png", options.out.with_suffix(".json").name)
    return report


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.latency", description=__doc__)
    with user_errors_exit_with_2(BundleError, CudaError, EngineError, ValueError):
        report = run(options)
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else tables(report))


if __name__ == "__main__":
    main()
