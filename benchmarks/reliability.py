"""What is promised about failures, shown at length: `python -m benchmarks.reliability fuzz --inputs 1000000`.

fuzz    Malformed inputs for everything that comes from outside: the protocol, images and videos, label maps, bundles,
        checkpoints, data sets. Each target is fed in a process of its own. Writes OUT/fuzz.json, OUT/fuzz.md, and of
        each defect the first input that shows it into OUT/inputs. Exit status 1 if there is a defect.
"""

import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.reliability_answers import ANSWERS
from benchmarks.reliability_bundles import BUNDLES
from benchmarks.reliability_codecs import CODECS
from benchmarks.reliability_fuzzing import Outcome, fuzz
from benchmarks.reliability_protocol import PROTOCOL
from benchmarks.reliability_report import markdown
from benchmarks.reliability_target import Target
from benchmarks.reliability_training_files import TRAINING_FILES
from benchmarks.reliability_worker import MEMORY_BOUND_MB
from benchmarks.training_step import machine
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.run_directory import commit, versions, write_aside

logger = logging.getLogger(__name__)
TARGETS: dict[str, Target] = {
    target.name: target for target in (*PROTOCOL, *CODECS, *ANSWERS, *BUNDLES, *TRAINING_FILES)
}


@dataclass(frozen=True, kw_only=True)
class FuzzOptions:
    """Malformed inputs for everything that comes from outside."""

    inputs: int = 20_000  # of all targets together; each has its share
    seconds: float = 600.0  # at most, for each target
    targets: tuple[str, ...] = ()  # names of those to fuzz; none are all
    seed: int = 0  # of the inputs: the same seed makes the same ones
    hang_s: float = 20.0  # seconds without an answer to one input that are a hang
    jobs: int = 1  # targets that are fuzzed at a time
    out: Path = Path("runs/reliability")  # folder to write

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        for name in ("inputs", "seconds", "hang_s", "jobs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')} must be more than 0, not {getattr(self, name)}")
        if unknown := set(self.targets) - TARGETS.keys():
            raise ValueError(f"there is no target {sorted(unknown)[0]!r}: choose from {', '.join(TARGETS)}")


def run_fuzz(options: FuzzOptions) -> dict[str, Any]:
    """Fuzzes the targets, writes the files and returns the report.

    Raises:
        ValueError: for options that cannot work.
    """
    options.check()
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    shares = sum(target.share for target in targets)

    def fuzz_one(target: Target) -> Outcome:
        num_inputs = -(-options.inputs * target.share // shares)  # rounded up: all together are as many as was said
        outcome = fuzz(
            target, seed=options.seed, num_inputs=num_inputs, seconds=options.seconds, hang_s=options.hang_s,
            kept=options.out / "inputs",
        )  # fmt: skip
        logger.info("%s: %d inputs, %d unexpected, %g s", target.name, outcome.inputs, outcome.unexpected,
                    outcome.seconds)  # fmt: skip
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(fuzz_one, targets))
    report: dict[str, Any] = {
        "options": asdict(options) | {"out": options.out.name},
        "memory_bound_mb": MEMORY_BOUND_MB,
        "machine": machine(torch.device("cpu")),
        "versions": versions(),
        "commit": commit(),
        "targets": [asdict(outcome) for outcome in outcomes],
    }
    text = json.dumps(report, indent=2) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    write_aside(options.out / "fuzz.json", lambda path: path.write_text(text, encoding="utf-8"))
    write_aside(options.out / "fuzz.md", lambda path: path.write_text(markdown(report), encoding="utf-8"))
    return report


COMMANDS: dict[str, Callable[..., FuzzOptions]] = {"fuzz": FuzzOptions}


def main() -> int:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="python -m benchmarks.reliability", description=__doc__
    )
    with user_errors_exit_with_2(ValueError):
        report = run_fuzz(options)
    sys.stdout.write(markdown(report))
    return int(any(target["unexpected"] for target in report["targets"]))


if __name__ == "__main__":
    sys.exit(main())
