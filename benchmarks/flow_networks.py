"""What a flow between two frames costs: arithmetic, weights and time of every flow network, RAFT at several iterations.

Arithmetic is that of convolutions and matrix products in one pass forward, in GMAC: billions of multiplications, each
with its addition. It is counted without computing anything. Time is measured with random weights, the networks in turns
so that they share what else the machine does; on a busy machine trust the time on the processor rather than the clock,
with OMP_NUM_THREADS=1 so that no thread waits for another.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import tyro
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_step import machine
from serving.bundle import parse_size
from training.command_line import choose_device, logging_to_stderr, user_errors_exit_with_2
from training.models import FlowNetConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet
from training.models.raft import RaftConfig
from training.run_directory import commit, versions


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.flow_networks`."""

    size: str = "512x1024"  # height x width of the frames in pixels
    iterations: str = "4,8,12,20"  # refinements of RAFT, comma-separated
    runs: int = 3  # timed passes of each network, after one that is not timed; 0 counts only
    device: str = "auto"  # "cpu", "cuda", ...; "auto" takes a GPU when there is one
    json: bool = False  # print the figures as JSON on stdout instead of a table

    def networks(self) -> list["Contestant"]:
        """The networks to measure.

        Raises:
            ValueError: if an option cannot be used.
        """
        if self.runs < 0:
            raise ValueError(f"runs is {self.runs}: choose 0 or more")
        counts = self.iterations.split(",")
        if not all(count.isdecimal() for count in counts):
            raise ValueError(f"iterations {self.iterations!r} are not numbers: give such as 4,12")
        rafts = [Contestant("raft", int(count), RaftConfig(iterations=int(count))) for count in counts]
        return [Contestant("flownet_s", 1, FlowNetSConfig()), *rafts]


class Contestant(NamedTuple):
    """A flow network to measure."""

    name: str
    iterations: int
    config: FlowNetConfig


def giga_multiplications(network: FlowNet, size: tuple[int, int]) -> float:
    """GMAC of one pass for frames of a size; `network` is on the meta device."""
    frame = torch.zeros(1, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(frame, frame)
    return float(counter.get_total_flops()) / 2e9


def measure(options: Options) -> dict[str, Any]:
    """All figures."""
    contestants, size, device = options.networks(), parse_size(options.size), choose_device(options.device)
    computer = machine(device)  # before this command makes it busy itself
    figures: list[dict[str, Any]] = []
    for name, iterations, config in contestants:
        with torch.device("meta"):
            network = config.build().eval()
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        gmac = round(giga_multiplications(network, size), 2)
        figures.append({"network": name, "iterations": iterations, "parameters": num_parameters, "gmac": gmac})
    if options.runs:
        networks = [contestant.config.build().eval().to(device) for contestant in contestants]
        frames = torch.rand(2, 1, 3, *size, device=device)
        passes = [_pass(network, frames, device) for network in networks]
        timed = [[_milliseconds(run) for run in passes] for _ in range(options.runs + 1)][1:]
        for place, entry in enumerate(figures):
            wall, cpu = zip(*(turn[place] for turn in timed), strict=True)
            entry |= {"ms": wall, "cpu_ms": cpu}
    return {
        "options": asdict(options), "machine": computer, "versions": versions(), "commit": commit(),
        "networks": figures,
    }  # fmt: skip


def _pass(network: FlowNet, frames: Tensor, device: torch.device) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            network(frames[0], frames[1])
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _milliseconds(run: Callable[[], None]) -> tuple[float, float]:
    """On the clock, and of all cores for this process."""
    began, began_cpu = time.perf_counter(), time.process_time()
    run()
    return round(1e3 * (time.perf_counter() - began), 2), round(1e3 * (time.process_time() - began_cpu), 2)


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    options, computer = report["options"], report["machine"]
    lines = [
        f"One flow between frames of {options['size']}, random weights; {computer['device']}, {computer['cores']} cores"
        f" ({computer['torch_threads']} used), load {computer['load_average'][0]}; commit {report['commit']}.",
        "",
        "| flow network | iterations | M parameters | GMAC | ms: median (range) | CPU ms |",
        "|---|---|---|---|---|---|",
    ]
    for entry in report["networks"]:
        ms, cpu_ms = entry.get("ms"), entry.get("cpu_ms")
        spread = f"{statistics.median(ms):.0f} ({min(ms):.0f} to {max(ms):.0f})" if ms else "-"
        lines.append(
            f"| {entry['network']} | {entry['iterations']} | {entry['parameters'] / 1e6:.2f} | {entry['gmac']:.1f} |"
            f" {spread} | {f'{statistics.median(cpu_ms):.0f}' if cpu_ms else '-'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="python -m benchmarks.flow_networks", description=__doc__)
    with user_errors_exit_with_2(ValueError):
        report = measure(options)
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else table(report))


if __name__ == "__main__":
    main()
