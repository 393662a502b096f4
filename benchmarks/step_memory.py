"""Peak memory of one training step, measured in a fresh process: what `training_step` starts for each variant.

On a CPU it is the resident memory that Linux reports, in a process whose allocator returns every freed tensor to the
system, so that what is counted is in use. On a GPU it is what torch's allocator has handed out.
"""

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from benchmarks.step_variants import Step, StepConfig, Variant

MIB = 2**20
MMAP_THRESHOLD = 64 * 1024  # bytes from which glibc gives each allocation pages of its own


@dataclass(frozen=True)
class Memory:
    """Memory around one step, in MiB."""

    before: float  # libraries (on a CPU), weights and inputs
    peak: float  # most at any time of two steps

    @property
    def growth(self) -> float:
        """What the step adds: activations and gradients."""
        return self.peak - self.before


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.step_memory`."""

    variant: Variant  # which order of operations
    step: tyro.conf.OmitArgPrefixes[StepConfig] = field(default_factory=StepConfig)
    device: str = "cpu"  # "cpu", "cuda", ...


def memory_in_fresh_process(config: StepConfig, variant: Variant, device: torch.device) -> Memory:
    """Starts this module and reads what it prints.

    Raises:
        RuntimeError: if it fails.
    """
    fields = {key.replace("_", "-"): value for key, value in dataclasses.asdict(config).items()}
    height, width = fields.pop("size")
    arguments = [f"--{key}={value}" for key, value in fields.items()]
    command = [sys.executable, "-m", "benchmarks.step_memory", "--variant", variant, "--device", str(device)]
    finished = subprocess.run(
        [*command, *arguments, "--size", str(height), str(width)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD)},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"the memory of {variant} could not be measured: {finished.stderr.strip()[-500:]}")
    return Memory(**json.loads(finished.stdout))


def measure(config: StepConfig, variant: Variant, device: torch.device) -> Memory:
    """Memory of this process around two steps; the second one finds what the first has cached."""
    step = Step(config, variant, device)
    before = _resident("VmRSS") if device.type == "cpu" else torch.cuda.memory_allocated(device) / MIB
    for _ in range(2):
        step.run()
    peak = _resident("VmHWM") if device.type == "cpu" else torch.cuda.max_memory_allocated(device) / MIB
    return Memory(before, peak)


def _resident(key: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ValueError("memory on a CPU is read from /proc/self/status: measure on Linux or on a GPU") from error
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Runs the command line; prints the two figures as JSON."""
    options = tyro.cli(Options, prog="python -m benchmarks.step_memory", description=__doc__)
    memory = measure(options.step, options.variant, torch.device(options.device))
    sys.stdout.write(json.dumps(dataclasses.asdict(memory)) + "\n")


if __name__ == "__main__":
    main()
