"""Writes a trained run as a bundle: python export/to_onnx.py RUN --out BUNDLE [--size 512x1024].

The bundle holds the `key` and `step` graphs for each frame size. It is checked through the served path, and one that
fails is not left on disk.
"""

import json
import logging
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import JsonValue

from export.graphs import (
    OPSET,
    SIZE_MULTIPLE,
    graph_inputs,
    graph_outputs,
    state_shapes,
    write_key_graph,
    write_step_graph,
)
from export.verify import VerificationError, verify
from serving.bundle import (
    NAME_PATTERN,
    BundleError,
    ClassInfo,
    GraphFile,
    Manifest,
    StateTensor,
    Variant,
    file_sha256,
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
    # frame size in pixels, multiples of 8; may be given several times; default is the size validated on
    size: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="HEIGHTxWIDTH")] = ()
    name: str = "flowseg"  # what clients ask for
    version: str = "1"  # of the model under this name
    json: bool = False  # print the figures of the verification as JSON on stdout


def export_bundle(run: Run, folder: Path, sizes: tuple[Size, ...], name: str, version: str) -> Manifest:
    """Writes, verifies and then reveals a bundle.

    Raises:
        BundleError: if `folder` exists or cannot be written, or `name` or `version` is none a bundle can have.
        RunError: if the run is not finished or trained no segmenter.
        VerificationError: if the graphs do not answer like the run's network; nothing is left on disk then.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: choose another --out or remove it")
    for option, text in (("--name", name), ("--version", version)):
        if not re.fullmatch(NAME_PATTERN, text):
            raise BundleError(f"{option} {text!r} does not work: use up to 64 letters, digits, '.', '_' and '-'")
    if not run.is_finished():
        raise RunError(
            f"{run.folder} is not finished: go on with it by"
            f" 'python -m training.train {run.name} --out {run.folder} --resume'"
        )
    segmenter = run.networks().get("segmenter")
    if not isinstance(segmenter, VideoSegmenter):
        raise RunError(f"{run.folder} trained no segmenter: export a run whose recipe does")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    try:
        manifest = _write(run, segmenter, aside, sizes, name, version)
        verification = verify(segmenter, aside, sizes)
        manifest = manifest.model_copy(update={"verification": verification})
        write_manifest(aside, manifest)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _write(
    run: Run, segmenter: VideoSegmenter, folder: Path, sizes: tuple[Size, ...], name: str, version: str
) -> Manifest:
    label_space = run.recipe.source.label_space
    manifest = Manifest(
        format="flowseg-bundle",
        format_version=1,
        name=name,
        version=version,
        classes=tuple(ClassInfo(name=entry.name, color=entry.color) for entry in label_space.classes),
        variants=tuple(_write_variant(segmenter, folder, size, name) for size in sizes),
        provenance=_provenance(run),
        verification={},
    )
    write_manifest(folder, manifest)
    return manifest


def _write_variant(segmenter: VideoSegmenter, folder: Path, size: Size, name: str) -> Variant:
    height, width = size
    started = time.monotonic()
    folded = segmenter.folded()
    metadata = {"flowseg.name": name}
    if folded is not segmenter:
        metadata["flowseg.state_semantics"] = "merge_folded"
    key_path = folder / f"key.fp32.{height}x{width}.onnx"
    step_path = folder / f"step.fp32.{height}x{width}.onnx"
    write_key_graph(folded, height, width, key_path, {**metadata, "flowseg.graph": "key"})
    write_step_graph(folded, height, width, step_path, {**metadata, "flowseg.graph": "step"})
    logger.info("wrote the graphs for %dx%d in %.0f s", height, width, time.monotonic() - started)
    state = state_shapes(folded, height, width)
    return Variant(
        precision="fp32",
        height=height,
        width=width,
        state=tuple(StateTensor(name=tensor.name, shape=tensor.shape) for tensor in state),
        key=_graph_file(key_path),
        step=_graph_file(step_path),
    )


def _graph_file(path: Path) -> GraphFile:
    return GraphFile(file=path.name, sha256=file_sha256(path), inputs=graph_inputs(path), outputs=graph_outputs(path))


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


def parse_size(text: str) -> Size:
    """HEIGHTxWIDTH in pixels.

    Raises:
        ValueError: unless both are positive multiples of 8, naming the next size that is.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(f"size {text!r} does not read HEIGHTxWIDTH, like 512x1024")
    height, width = int(match[1]), int(match[2])
    valid = [max(SIZE_MULTIPLE, round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE) for side in (height, width)]
    if [height, width] != valid:
        raise ValueError(f"size {text} is no multiple of {SIZE_MULTIPLE}: use --size {valid[0]}x{valid[1]}")
    return height, width


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/to_onnx.py", description=__doc__)
    with user_errors_exit_with_2(RunError, BundleError, VerificationError, ValueError):
        run = read_run(options.run)
        height, width = run.recipe.validation.data.size
        sizes = tuple(dict.fromkeys(parse_size(text) for text in options.size or (f"{height}x{width}",)))
        manifest = export_bundle(run, options.out, sizes, options.name, options.version)
        logger.info("verified and wrote %s: %s", options.out, json.dumps(manifest.verification))
        if options.json:
            sys.stdout.write(json.dumps(manifest.verification) + "\n")


if __name__ == "__main__":
    main()
