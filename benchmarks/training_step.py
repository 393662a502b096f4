"""Our step of SFC against the released code's order of operations: time, memory, losses and gradients.

Both run on the same weights and frames in one process, in turns, so that they share what else the machine does; memory
is measured in a fresh process each. The arithmetic of convolutions and matrix products is counted too: the ratio of the
two counts is how much faster savings alone can make the step, if both spend as long on an operation. On a busy machine
trust the CPU time rather than the clock, with OMP_NUM_THREADS=1 so that no thread waits for another. Writes OUT.json,
the table as OUT.md, and OUT.log.
"""

import contextlib
import dataclasses
import json
import logging
import os
import platform
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step_memory import Memory, memory_in_fresh_process
from benchmarks.step_variants import Stage, Step, StepConfig, Variant
from training.command_line import choose_device, logging_to_file, logging_to_stderr, user_errors_exit_with_2
from training.models.deeplab import BackboneName
from training.run_directory import commit, versions, write_aside

logger = logging.getLogger(__name__)
VARIANTS: tuple[Variant, ...] = ("official", "ours")


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.training_step`."""

    stage: Literal["one", "two", "both"] = "both"  # stage of SFC
    size: str = "128x256"  # height x width of the frames in pixels, multiples of 8
    backbone: BackboneName = "resnet101"  # residual network of every DeepLab
    flow_width: float = 1.0  # factor on the channels of flow networks and SFM; 1 is the paper's
    classes: int = 15  # number of classes, 2 to 15
    steps: int = 5  # timed steps of each variant, after one that is not timed
    device: str = "auto"  # "cpu", "cuda", ...; "auto" takes a GPU when there is one
    # bf16 is automatic mixed precision, of all of "official" and of the backbones of "ours"; fp64 compares gradients
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    json: bool = False  # print the figures as JSON on stdout instead of a table
    out: Path = Path("benchmarks/results/training_step")  # name of the results, without ending

    def configs(self) -> list[StepConfig]:
        """The steps to measure.

        Raises:
            ValueError: if an option cannot be used.
        """
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: choose at least 1")
        height, x, width = self.size.partition("x")
        if not (x and height.isdecimal() and width.isdecimal()):
            raise ValueError(f"size {self.size!r} does not read HEIGHTxWIDTH, as in 128x256")
        stages: tuple[Stage, ...] = ("one", "two") if self.stage == "both" else (self.stage,)
        common = StepConfig(
            size=(int(height), int(width)), backbone=self.backbone, flow_width=self.flow_width,
            classes=self.classes, precision=self.precision,
        )  # fmt: skip
        return [dataclasses.replace(common, stage=stage) for stage in stages]


def compare(config: StepConfig, num_steps: int, device: torch.device) -> dict[str, Any]:
    """All figures of one stage."""
    with ThreadPoolExecutor() as pool:  # memory does not mind company
        measured = pool.map(lambda variant: memory_in_fresh_process(config, variant, device), VARIANTS)
    memory = dict(zip(VARIANTS, measured, strict=True))
    steps = {variant: Step(config, variant, device) for variant in VARIANTS}
    live_classes = steps["ours"].live_classes()
    losses = {variant: {name: float(loss) for name, loss in step.run().items()} for variant, step in steps.items()}
    gradient_difference = _relative_difference(steps["ours"], steps["official"])
    gflop = {variant: _gflop(step) for variant, step in steps.items()}
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    cpu_seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for index in range(num_steps):
        for variant in VARIANTS if index % 2 == 0 else VARIANTS[::-1]:
            wall, cpu = _timed(steps[variant], device)
            seconds[variant].append(round(wall, 4))
            cpu_seconds[variant].append(round(cpu, 4))
        logger.info(
            "stage %s, step %d of %d: official %.2f s, ours %.2f s", config.stage, index + 1, num_steps,
            seconds["official"][-1], seconds["ours"][-1],
        )  # fmt: skip
    return {
        "stage": config.stage,
        "variants": {
            variant: {
                "seconds": seconds[variant],
                "cpu_seconds": cpu_seconds[variant],
                "memory_mib": _memory_figures(memory[variant]),
                "losses": losses[variant],
                "gflop": round(gflop[variant], 1),
            }
            for variant in VARIANTS
        },
        "times_faster": _median_ratio(seconds["official"], seconds["ours"]),
        "times_less_cpu_time": _median_ratio(cpu_seconds["official"], cpu_seconds["ours"]),
        "times_less_arithmetic": gflop["official"] / gflop["ours"],
        "share_of_peak_memory": memory["ours"].peak / memory["official"].peak,
        "share_of_memory_growth": memory["ours"].growth / memory["official"].growth,
        "relative_loss_difference": max(
            abs(losses["ours"][name] / value - 1) for name, value in losses["official"].items()
        ),
        "relative_gradient_difference": gradient_difference,
        "live_classes": live_classes,
    }


def _timed(step: Step, device: torch.device) -> tuple[float, float]:
    """Seconds on the clock, and seconds of all cores for this process."""
    began, began_cpu = time.perf_counter(), time.process_time()
    step.run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, time.process_time() - began_cpu


def _gflop(step: Step) -> float:
    """Billions of additions and multiplications in convolutions and matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step.run()
    return float(counter.get_total_flops()) / 1e9


def _relative_difference(ours: Step, official: Step) -> float:
    """Norm of the difference of all gradients, as a share of the official norm."""
    pairs = list(zip(ours.gradients(), official.gradients(), strict=True))
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    return float((difference / sum(float(b.double().square().sum()) for _, b in pairs)) ** 0.5)


def _median_ratio(official: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(official, ours, strict=True))


def _memory_figures(memory: Memory) -> dict[str, float]:
    return {"before": round(memory.before, 1), "peak": round(memory.peak, 1), "growth": round(memory.growth, 1)}


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    options, computer = report["options"], report["machine"]
    lines = [
        f"One training step of SFC (without the optimizer's own), {options['backbone']}, frames of {options['size']},"
        f" {options['classes']} classes, {options['precision']}, batch 1 + 1; {computer['device']},"
        f" {computer['cores']} cores, load {computer['load_average'][0]}; commit {report['commit']}.",
        "",
        "| stage | order | s per step: median (range) | CPU s | GFLOP | peak MiB | of these by the step |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in report["stages"]:
        for variant, figures in stage["variants"].items():
            seconds, memory = figures["seconds"], figures["memory_mib"]
            lines.append(
                f"| {stage['stage']} | {variant} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to"
                f" {max(seconds):.2f}) | {statistics.median(figures['cpu_seconds']):.2f} | {figures['gflop']:.0f} |"
                f" {memory['peak']:.0f} | {memory['growth']:.0f} |"
            )
    lines.append("")
    lines += [
        f"- Stage {stage['stage']}: {stage['times_faster']:.2f} times as fast by the clock,"
        f" {stage['times_less_cpu_time']:.2f} times by CPU time;"
        f" {stage['times_less_arithmetic']:.2f} times less arithmetic;"
        f" {100 * stage['share_of_peak_memory']:.0f} % of the peak memory"
        f" ({100 * stage['share_of_memory_growth']:.0f} % of what the step adds); losses differ by"
        f" {stage['relative_loss_difference']:.1e}, gradients by {stage['relative_gradient_difference']:.1e} of their"
        f" norm; {' and '.join(map(str, stage['live_classes']))} of {options['classes']} classes occur in the"
        " predictions."
        for stage in report["stages"]
    ]
    return "\n".join(lines) + "\n"


def run(options: Options) -> dict[str, Any]:
    """Measures, writes the files and returns the report."""
    configs, device = options.configs(), choose_device(options.device)
    with logging_to_file(options.out.with_suffix(".log"), "w"):
        chosen = {key: value for key, value in dataclasses.asdict(options).items() if key not in ("out", "json")}
        computer = machine(device)  # before this command makes it busy itself
        stages = [compare(config, options.steps, device) for config in configs]
        report = {
            "options": chosen, "machine": computer, "versions": versions(), "commit": commit(), "stages": stages,
        }  # fmt: skip
        text, markdown = json.dumps(report, indent=2) + "\n", table(report)
        write_aside(options.out.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
        write_aside(options.out.with_suffix(".md"), lambda path: path.write_text(markdown, encoding="utf-8"))
        logger.info("%s", markdown)
        logger.info("wrote %s and .md", options.out.with_suffix(".json").name)
    return report


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.training_step", description=__doc__)
    with user_errors_exit_with_2(ValueError):
        report = run(options)
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else table(report))


if __name__ == "__main__":
    main()
