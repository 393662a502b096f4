"""Writes a bundle as a model of a Triton model repository: python export/to_triton.py BUNDLE --out REPO.

Key and step become one graph, whose state Triton keeps for each sequence of requests. Before it appears its labels are
compared with those of the bundle in our own engine, for two streams in one batch.
"""

import logging
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import onnx
import onnxruntime
import tyro
from numpy.typing import NDArray

from export.triton_config import Device, import_schema, model_config
from export.triton_graph import REFRESH, START, per_frame_graph, stream_graph
from export.verify import KEY_FRAME_INTERVALS, NUM_FRAMES, TOLERANCES, VerificationError
from serving.bundle import (
    NAME_PATTERN,
    NEXT,
    PRECISIONS,
    Bundle,
    BundleError,
    Precision,
    Variant,
    parse_size,
    read_bundle,
)
from serving.engine import Engine
from serving.graphs import pick_variant
from serving.runtimes.onnx_runtime import OnnxRuntime
from training.command_line import logging_to_stderr, user_errors_exit_with_2
from training.data.world.render import render_clip

logger = logging.getLogger(__name__)
MAX_BATCH = 64  # frames
VERSION = "1"  # of the model in its repository: Triton takes whole numbers, bundles have any


@dataclass(frozen=True)
class Options:
    """Options of `export/to_triton.py`."""

    bundle: tyro.conf.Positional[Path]  # folder written by export/to_onnx.py
    out: Path  # model repository, which may hold other models
    device: Device = "cuda"  # that Triton runs the model on
    precision: str = "auto"  # fp32, fp16 or int8; auto is the highest the bundle has for the device
    size: Annotated[str, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = ""  # of the frames in pixels, if there are several
    name: str = ""  # of the model in the repository; empty is the bundle's
    max_batch: int = 4  # frames of different streams in one run

    def check(self) -> None:
        """Refuses values that cannot work; ValueError says which."""
        if self.precision not in ("auto", *PRECISIONS):
            raise ValueError(f"there is no precision {self.precision!r}: choose one of auto, {', '.join(PRECISIONS)}")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise ValueError(f"--max-batch {self.max_batch} is out of range: choose a number within 1..{MAX_BATCH}")
        if self.name and not re.fullmatch(NAME_PATTERN, self.name):
            raise ValueError(f"--name {self.name!r} does not work: use up to 64 letters, digits, '.', '_' and '-'")


def write_model(bundle: Bundle, variant: Variant, repository: Path, name: str, device: Device, max_batch: int) -> Path:
    """Writes, compares and then reveals a model; returns its folder.

    Raises:
        BundleError: if the repository has such a model, or cannot be written.
        ValueError: if tritonclient is missing, or Triton cannot run such a network.
        VerificationError: if the model does not answer like the bundle; nothing is left on disk then.
    """
    import_schema()
    folder = repository / name
    if folder.exists():
        raise BundleError(f"{folder} exists: choose another --name or --out, or remove it")
    model = merged_graph(bundle, variant)
    repository = repository.resolve()
    aside = repository.with_name(f".{repository.name}.{os.getpid()}")  # outside: Triton looks at all of its repository
    try:
        (aside / VERSION).mkdir(parents=True)
        onnx.save_model(model, aside / VERSION / "model.onnx")
        (aside / "config.pbtxt").write_text(model_config(name, model, variant, device, max_batch), encoding="utf-8")
        classes = "".join(f"{entry.name}\n" for entry in bundle.manifest.classes)
        (aside / "labels.txt").write_text(classes, encoding="utf-8")
        compare(aside / VERSION / "model.onnx", bundle, variant)
        repository.mkdir(exist_ok=True)
        aside.rename(folder)
    except OSError as error:
        raise BundleError(f"{folder} cannot be written ({error.strerror}): choose another --out") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def merged_graph(bundle: Bundle, variant: Variant) -> onnx.ModelProto:
    """The one graph of a variant.

    Raises:
        ValueError: if Triton cannot run such a network.
    """
    step = onnx.load(bundle.path(variant.step))
    if variant.state:
        model = stream_graph(onnx.load(bundle.path(variant.key)), step, variant.state)
    else:
        model = per_frame_graph(step)
    for name in ("name", "version"):
        model.metadata_props.add(key=f"flowseg.{name}", value=getattr(bundle.manifest, name))
    return model


def compare(path: Path, bundle: Bundle, variant: Variant) -> None:
    """Streams two clips of the embedded world through a model, as Triton does, and through our engine.

    Raises:
        VerificationError: if their labels differ.
    """
    clips = [render_clip(seed, "target", (variant.height, variant.width), NUM_FRAMES).frames for seed in (1, 2)]
    with Engine(bundle, variant, OnnxRuntime("cpu"), max_streams=1, max_batch=1) as engine:
        for interval in KEY_FRAME_INTERVALS if variant.state else KEY_FRAME_INTERVALS[:1]:
            expected = []
            for clip in clips:
                with engine.open_stream(key_frame_interval=interval) as stream:
                    expected.append([stream.submit(frame).result().labels for frame in clip])
            agreement = float(np.mean(np.stack(_stream(path, clips, interval), axis=1) == np.array(expected)))
            if agreement < TOLERANCES["fp32"].min_label_agreement:  # of any precision: the kernels are the same
                raise VerificationError(
                    f"the model for Triton does not answer like {bundle.folder}: {100 * agreement:.3f} % of labels"
                    " agree; nothing was written, please report this",
                    {"label_agreement": agreement},
                )


def _stream(path: Path, clips: Sequence[NDArray[np.uint8]], interval: int) -> list[NDArray[np.uint8]]:
    """Labels (B, H, W) of each frame of clips that are in step."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    results = [value.name for value in session.get_outputs()]
    memory = {  # Triton's is not initialized either
        value.name: np.full((len(clips), *value.shape[1:]), 255, np.uint8)
        if value.type == "tensor(uint8)"
        else np.full((len(clips), *value.shape[1:]), np.nan, np.float32)
        for value in session.get_inputs()
        if NEXT + value.name in results
    }
    answers = []
    for index, frames in enumerate(zip(*clips, strict=True)):
        feeds: dict[str, NDArray[Any]] = {"frame": np.stack(frames), **memory}
        if memory:
            feeds[START] = np.full((len(clips), 1), index == 0)
            feeds[REFRESH] = np.full((len(clips), 1), index % interval == 0)
        outputs = dict(zip(results, session.run(results, feeds), strict=True))
        memory = {name: outputs[NEXT + name] for name in memory}
        answers.append(outputs["labels"])
    return answers


def main() -> None:
    """Runs the command line."""
    logging_to_stderr()
    options = tyro.cli(Options, prog="export/to_triton.py", description=__doc__)
    with user_errors_exit_with_2(BundleError, VerificationError, ValueError):
        options.check()
        bundle = read_bundle(options.bundle)
        precision = cast("Precision | Literal['auto']", options.precision)
        size = parse_size(options.size) if options.size else None
        runtime: Literal["onnxruntime-cpu", "onnxruntime-cuda"] = (
            "onnxruntime-cpu" if options.device == "cpu" else "onnxruntime-cuda"
        )
        variant = pick_variant(bundle, runtime, precision, size)
        name = options.name or bundle.manifest.name
        folder = write_model(bundle, variant, options.out, name, options.device, options.max_batch)
        logger.info("compared with the bundle and wrote %s", folder)


if __name__ == "__main__":
    main()
