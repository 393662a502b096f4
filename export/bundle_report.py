"""Prints what a bundle holds: python -m export.inspect BUNDLE [--json].

Reads it as a server does, so a damaged file or a hash that does not match is told.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from serving.bundle import SIGNALS, Baseline, Bundle, BundleError, Variant, read_bundle
from training.command_line import user_errors_exit_with_2


@dataclass(frozen=True)
class Options:
    """Options of `export.inspect`."""

    bundle: tyro.conf.Positional[Path]  # folder written by export/to_onnx.py
    json: bool = False  # print it as JSON on stdout


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a bundle holds, for machines."""
    manifest = bundle.manifest
    verified = manifest.verification.get("variants", [{} for _ in manifest.variants])
    return {
        "name": manifest.name,
        "version": manifest.version,
        "classes": [{"name": info.name, "color": list(info.color)} for info in manifest.classes],
        "megabytes": _megabytes({bundle.path(graph) for each in manifest.variants for graph in (each.key, each.step)}),
        "variants": [
            _describe_variant(bundle, variant) | {"verification": figures}
            for variant, figures in zip(manifest.variants, verified, strict=True)
        ],
        "dropped": manifest.verification.get("dropped", []),
        "baseline": None if manifest.baseline is None else manifest.baseline.model_dump(),
        "provenance": manifest.provenance,
    }


def _describe_variant(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    return {
        "precision": variant.precision,
        "height": variant.height,
        "width": variant.width,
        "runtimes": list(variant.runtimes),
        "files": {"key": variant.key.file, "step": variant.step.file},
        "megabytes": _megabytes({bundle.path(variant.key), bundle.path(variant.step)}),
        "state": {tensor.name: list(tensor.shape) for tensor in variant.state},
    }


def _megabytes(paths: set[Path]) -> float:
    return round(sum(path.stat().st_size for path in paths) / 1e6, 2)


def variant_table(report: dict[str, Any]) -> Table:
    """The variants of a described bundle: what they are for, weigh, and how far they are from the network."""
    table = Table(title=f"{report['name']}@{report['version']}, {report['megabytes']} MB")
    for title in ("graphs", "for"):
        table.add_column(title, no_wrap=True)
    for title in ("MB", "equal labels", "state differs", "mIoU (network's)"):
        table.add_column(title, justify="right")
    for variant in report["variants"]:
        figures = variant["verification"]
        table.add_row(
            f"{variant['precision']} {_size(variant)}",
            "\n".join(variant["runtimes"]),
            f"{variant['megabytes']:.1f}",
            f"{figures['label_agreement']:.3%}" if "label_agreement" in figures else "",
            f"{figures['max_state_difference']:.0e}" if "max_state_difference" in figures else "",
            f"{figures['miou']:.1f} ({figures['miou_of_network']:.1f})" if "miou" in figures else "",
        )
    return table


def _baseline_table(baseline: Baseline) -> Table:
    """What the signals are where the model was trained."""
    table = Table(title=f"signals, a key frame every {baseline.key_frame_interval} frames, {baseline.measured_on}")
    for title in ("domain", "frames", *(name.replace("_", " ") for name in SIGNALS)):
        table.add_column(title, justify="left" if title == "domain" else "right")
    for name, domain in baseline.domains.items():
        cells = (f"{domain.signals[signal].mean:.3f} ± {domain.signals[signal].std:.3f}" for signal in SIGNALS)
        table.add_row(name, str(domain.frames), *cells)
    return table


def show(bundle: Bundle) -> None:
    """Prints a bundle for people."""
    report, console = describe(bundle), Console(soft_wrap=True, highlight=False)
    console.print(variant_table(report))
    for dropped in report["dropped"]:
        console.print(f"dropped: {dropped['reason']}")
    if bundle.manifest.baseline is not None:
        console.print(_baseline_table(bundle.manifest.baseline))
    state = ", ".join(f"{name} {shape}" for name, shape in report["variants"][0]["state"].items()) or "none"
    console.print(f"state of a stream, {_size(report['variants'][0])}: {state}")
    console.print(f"classes: {', '.join(info['name'] for info in report['classes'])}")
    provenance = report["provenance"]
    if "run" in provenance:
        measures = ", ".join(f"{name} {value:.4g}" for name, value in provenance["measures"].items())
        console.print(f"made from: run {provenance['run']} of commit {provenance['trained']['commit']}; {measures}")


def _size(variant: dict[str, Any]) -> str:
    return f"{variant['height']}x{variant['width']}"


def main() -> None:
    """Runs the command line."""
    options = tyro.cli(Options, prog="python -m export.inspect", description=__doc__)
    with user_errors_exit_with_2(BundleError):
        bundle = read_bundle(options.bundle)
        if options.json:
            sys.stdout.write(json.dumps(describe(bundle), indent=2) + "\n")
        else:
            show(bundle)


if __name__ == "__main__":
    main()
