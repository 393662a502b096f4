"""Asks whether a published advisory names a version that constraints.txt pins: `python -m benchmarks.advisories`.

pip-audit asks. It needs a service, and calls a package clean that the service does not know; so this says how many were
really looked up. Exit status 1 if an advisory names one; with --strict also if not all could be looked up.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
# That were looked at and do not concern us, with the reason. Each is read again when its package gets another version.
IGNORED: dict[str, str] = {}
COMMAND = (
    sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.advisories`."""

    strict: bool = False  # fail also if the service does not answer, or does not know every package
    timeout_s: float = 60.0  # seconds for all packages together


class Verdict(NamedTuple):
    """What pip-audit found out."""

    num_audited: int  # packages that the service knows
    num_unknown: int  # packages that it does not
    findings: tuple[str, ...]  # a line for each advisory


class NoServiceError(Exception):
    """The service did not answer."""


def read_verdict(document: dict[str, Any]) -> Verdict:
    """What pip-audit's JSON says."""
    audited = [package for package in document["dependencies"] if "skip_reason" not in package]
    findings = tuple(
        f"{package['name']} {package['version']}: {advisory['id']}, fixed in"
        f" {', '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in audited
        for advisory in package["vulns"]
    )
    return Verdict(len(audited), len(document["dependencies"]) - len(audited), findings)


def look_up(command: Sequence[str], timeout_s: float) -> Verdict:
    """Runs pip-audit on the constraints.

    Raises:
        NoServiceError: if there is no answer within the time.
    """
    ignored = [argument for advisory in IGNORED for argument in ("--ignore-vuln", advisory)]
    arguments = [*command, "--timeout", "5", "--requirement", str(CONSTRAINTS), *ignored]
    try:
        audit = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout_s, check=False)
        return read_verdict(json.loads(audit.stdout))
    except subprocess.TimeoutExpired as error:
        raise NoServiceError(f"no answer within {timeout_s:g} s") from error
    except ValueError as error:
        last = (audit.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise NoServiceError(last[:200]) from error


def main() -> int:
    """Runs the command."""
    options = tyro.cli(Options, prog="python -m benchmarks.advisories", description=__doc__)
    try:
        verdict = look_up(COMMAND, options.timeout_s)
    except NoServiceError as error:
        sys.stderr.write(f"pip-audit: nothing was looked up, the advisory service cannot be reached ({error})\n")
        return int(options.strict)
    for finding in verdict.findings:
        sys.stderr.write(f"pip-audit: {finding}\n")
    unknown = f"; the service does not know {verdict.num_unknown} more" if verdict.num_unknown else ""
    sys.stderr.write(
        f"pip-audit: {verdict.num_audited} packages were looked up, {len(verdict.findings)} advisories{unknown}\n"
    )
    return int(bool(verdict.findings) or (options.strict and verdict.num_unknown > 0))


if __name__ == "__main__":
    sys.exit(main())
