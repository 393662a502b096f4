"""Writes a trained run as a bundle: python export/to_onnx.py RUN --out BUNDLE [--precision fp32,int8].

For each precision and frame size the bundle holds the `key` and `step` graphs in the form that CPUs and GPUs are
fastest with. Each is checked through the served path against the network it was made from; one that fails is dropped,
and a bundle without any is not left on disk.
"""

import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import tyro
from pydantic import JsonValue

from export.baseline import measure_baseline
from export.bundle_report import show
from export.calibration import DomainFrames
from export.graphs import OPSET
from export.variants import VariantWriter
from export.verify import Figures, VerificationError, Verifier
from serving.bundle import (
    NAME_PATTERN,
    PRECISIONS,
    Bundle,
    BundleError,
    ClassInfo,
    Manifest,
    Precision,
    Variant,
    parse_size,
    write_manifest,
)
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.models.video_segmenter import VideoSegmenter
from training.run_directory import Run, RunError, commit, read_run, versions

logger = logging.getLogger(__name__)
Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Options:
    """Options of `export/to_onnx.py`."""

    run: tyro.conf.Positional[Path]  # run directory written by training.train
    out: Path  # bundle folder to write; must not exist
    # comma-separated: fp32, fp16 (for GPUs), int8 (calibrated on frames of the target domain)
    precision: Annotated[str, tyro.conf.arg(metavar="PRECISION[,PRECISION...]")] = "fp32"
    # frame size in pixels, multiples of 8; may be given several times; default is the size validated on
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="HEIGHTxWIDTH")] = ()
    # videos or numbered images of the domain to calibrate int8 on; default is the target the run was trained with
    calibration: Path | None = None
    name: str = "flowseg"  # what clients ask for
    version: str = "1"  # of the model under this name
    json: bool = False  # print the figures of the verification as JSON on stdout


def trained_segmenter(run: Run) -> VideoSegmenter:
    """The segmenter of a run, in evaluation mode.

    Raises:
        RunError: if the run is not finished or trained no segmenter.
    """
    if not run.is_finished():
        raise RunError(
            f"{run.folder} is not finished: go on with it by"
            f" 'python -m training.train {run.name} --out {run.folder} --resume'"
        )
    segmenter = run.networks().get("segmenter")
    if not isinstance(segmenter, VideoSegmenter):
        raise RunError(f"{run.folder} trained no segmenter: export a run whose recipe does")
    return segmenter


def export_bundle(
    run: Run,
    folder: Path,
    sizes: Sequence[Size],
    name: str,
    version: str,
    precisions: Sequence[Precision] = ("fp32",),
    calibration: Path | None = None,
) -> Manifest:
    """Writes, verifies and then reveals a bundle.

    Raises:
        BundleError: if `folder` exists or cannot be written, or `name` or `version` is none a bundle can have.
        RunError: if the run is not finished or trained no segmenter.
        ValueError: if int8 is asked for and there are no frames to calibrate on.
        VerificationError: if no graphs answer like the run's network; nothing is left on disk then.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: choose another --out or remove it")
    for option, text in (("--name", name), ("--version", version)):
        if not re.fullmatch(NAME_PATTERN, text):
            raise BundleError(f"{option} {text!r} does not work: use up to 64 letters, digits, '.', '_' and '-'")
    segmenter = trained_segmenter(run)
    domain = DomainFrames(run.recipe, calibration)
    if "int8" in precisions:
        domain.check(sizes[0])
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        writing = _Writing(run, segmenter, aside, domain, name, version)
        for size in sizes:
            writing.write(size, precisions)
        manifest = writing.finish()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


class _Writing:
    """A bundle while it is written: the variants that were verified, and those that were dropped."""

    def __init__(
        self, run: Run, segmenter: VideoSegmenter, folder: Path, domain: DomainFrames, name: str, version: str
    ) -> None:
        self._run, self._segmenter, self._folder, self._domain = run, segmenter, folder, domain
        self._name, self._version = name, version
        self._variants: list[Variant] = []
        self._verified: list[Figures] = []
        self._dropped: list[VerificationError] = []

    def write(self, size: Size, precisions: Sequence[Precision]) -> None:
        """Writes and verifies all variants of one frame size."""
        folded = self._segmenter.folded()
        metadata = {"flowseg.name": self._name}
        if folded is not self._segmenter:
            metadata["flowseg.state_semantics"] = "merge_folded"
        domain = self._domain
        labelled, pairs = (domain.labelled(size), domain.pairs(size)) if "int8" in precisions else ((), ())
        writer = VariantWriter(folded, *size, self._folder, metadata, pairs)
        verifier = Verifier(self._segmenter, size, self._run.recipe.source.label_space, labelled)
        for precision in precisions:
            started = time.monotonic()
            variants = list(writer.write(precision))
            logger.info("wrote the %s graphs for %dx%d in %.0f s", precision, *size, time.monotonic() - started)
            for variant in variants:
                self._verify(verifier, variant)

    def _verify(self, verifier: Verifier, variant: Variant) -> None:
        about: Figures = {
            "precision": variant.precision,
            "height": variant.height,
            "width": variant.width,
            "runtimes": list(variant.runtimes),
        }
        try:
            figures = verifier.verify(Bundle(folder=self._folder, manifest=self._manifest((variant,))), variant)
        except VerificationError as error:
            error.figures = {**about, **error.figures}
            self._dropped.append(error)
            if variant.precision == "fp32":
                raise VerificationError(f"{error}; no bundle was written, please report this", error.figures) from error
            logger.warning("dropped: %s", error)
        else:
            self._variants.append(variant)
            self._verified.append({**about, **figures})

    def finish(self) -> Manifest:
        """Writes the manifest, and removes the graphs that are in no variant.

        Raises:
            VerificationError: if there are no others.
        """
        if not self._variants:
            raise VerificationError(f"{self._dropped[0]}; no bundle was written", self._dropped[0].figures)
        manifest = self._manifest(tuple(self._variants))
        bundle = Bundle(folder=self._folder, manifest=manifest)
        baseline = measure_baseline(bundle, self._variants[0], self._run.recipe.source, self._domain.target)
        manifest = manifest.model_copy(update={"baseline": baseline})
        kept = {graph.file for variant in self._variants for graph in (variant.key, variant.step)}
        for path in self._folder.glob("*.onnx"):
            if path.name not in kept:
                path.unlink()
        write_manifest(self._folder, manifest)
        return manifest

    def _manifest(self, variants: tuple[Variant, ...]) -> Manifest:
        label_space = self._run.recipe.source.label_space
        dropped: list[Figures] = [{**error.figures, "reason": str(error)} for error in self._dropped]
        return Manifest(
            format="flowseg-bundle",
            format_version=3,
            name=self._name,
            version=self._version,
            classes=tuple(ClassInfo(name=entry.name, color=entry.color) for entry in label_space.classes),
            variants=variants,
            provenance=_provenance(self._run),
            verification={"variants": [*self._verified], "dropped": dropped},
        )


def _provenance(run: Run) -> dict[str, JsonValue]:
    recipe = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))["recipe"]
    measures: dict[str, JsonValue] = dict(run.measures())
    exported_with: dict[str, JsonValue] = dict(versions())
    return {
        "run": run.name,
        "recipe": recipe,
        "measures": measures,
        "trained": run.provenance,
        "exported": {"commit": commit(), "versions": exported_with, "opset": OPSET},
    }


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """Precisions of a comma-separated list, each once.

    Raises:
        ValueError: if there is one that does not exist.
    """
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in PRECISIONS:
            raise ValueError(f"there is no precision {name!r}: choose from {', '.join(PRECISIONS)}")
    return cast("tuple[Precision, ...]", names)


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/to_onnx.py", description=__doc__)
    with user_errors_exit_with_2(RunError, BundleError, VerificationError, ValueError):
        run = read_run(options.run)
        height, width = run.recipe.validation.data.size
        sizes = tuple(dict.fromkeys(parse_size(text) for text in options.size or (f"{height}x{width}",)))
        precisions = parse_precisions(options.precision)
        manifest = export_bundle(
            run, options.out, sizes, options.name, options.version, precisions, options.calibration
        )
        logger.info("verified and wrote %s", options.out)
        if options.json:
            sys.stdout.write(json.dumps(manifest.verification) + "\n")
        else:
            show(Bundle(folder=options.out, manifest=manifest))


if __name__ == "__main__":
    main()
