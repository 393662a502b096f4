"""The bundle: a folder with a manifest and the two graphs of a segmenter. The consumer owns the format.

    key  : frame                          -> state tensors
    step : frame, previous frame, state   -> labels, confidence, quality signals, next state

The manifest wires the graphs, so whoever runs them need not know the model. Its words:

- a graph input is `frame`, `previous_frame` (the frame right before), `key_frame` (the frame of the last key refresh)
  or the name of a state tensor. Frames are uint8 RGB (B, H, W, 3); state tensors float32 (B, *shape);
- `key` outputs every state tensor by its name;
- `step` outputs `labels` (uint8, (B, H, W)), `confidence` (uint8, (B, H/4, W/4), 255 is certain), the signals
  (float32, (B,), 0..1), and `next_NAME` for each state tensor it advances. A state tensor without one keeps the value
  of the last key refresh.

The signals tell without labels how well a network copes: `mean_confidence`; `disagreement`, the share of pixels where
what was propagated from the past has another class than the answer; `mean_entropy` of the class probabilities, 1 where
all classes are equally likely; `warp_residual`, how far the frame is from the earlier one moved along the network's
flow (of a network without flow: from the frame before), as mean absolute difference of quarter-resolution RGB.

A variant is what one kind of runtime runs at one precision and frame size: a CPU and a GPU are fast with different
graphs, and 8-bit integers are written in different ways for different runtimes. Variants may share a key graph.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 3
FRAME_INPUTS = frozenset({"frame", "previous_frame", "key_frame"})
SIGNALS = ("mean_confidence", "disagreement", "mean_entropy", "warp_residual")
RESULTS = ("labels", "confidence", *SIGNALS)
NEXT = "next_"
GraphRuntime = Literal["onnxruntime-cpu", "onnxruntime-cuda", "openvino", "tensorrt"]  # that graphs are written for
RuntimeName = Literal[GraphRuntime, "torch"]
Precision = Literal["fp32", "fp16", "int8"]
DomainName = Literal["source", "target"]  # what the model was trained on with labels, and what it is meant for
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # the highest first
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of models and versions
SIZE_MULTIPLE = 8  # of the frames' sides, in pixels
MAX_CLASSES = 255  # labels are uint8, and 255 stays free for "no class"


class BundleError(ValueError):
    """A bundle that is missing, damaged, or of another format. The message is one sentence for the user."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassInfo(_Part):
    """A class as people see it; its index in the manifest's list is its label."""

    name: str
    color: tuple[Annotated[int, Field(ge=0, le=255)], ...] = Field(min_length=3, max_length=3)  # RGB


class GraphFile(_Part):
    """A graph in the bundle's folder."""

    # a plain name that a disk can hold: never a path out of the folder
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=255)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class StateTensor(_Part):
    """A float32 tensor that a stream carries from frame to frame."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # without the batch dimension


class Variant(_Part):
    """The two graphs at one precision and one frame size, as some runtimes take them."""

    precision: Precision
    runtimes: tuple[GraphRuntime, ...] = Field(min_length=1)  # that these graphs were written for
    height: int = Field(gt=0, multiple_of=SIZE_MULTIPLE)  # of the frames, in pixels
    width: int = Field(gt=0, multiple_of=SIZE_MULTIPLE)
    state: tuple[StateTensor, ...]
    key: GraphFile
    step: GraphFile

    def suits(self, runtime: RuntimeName) -> bool:
        """Whether a runtime can run these graphs.

        torch runs programs of its own that stand for graphs: for those with the plain tail and in floating point, as
        ONNX Runtime's CUDA takes them.
        """
        return ("onnxruntime-cuda" if runtime == "torch" else runtime) in self.runtimes

    @model_validator(mode="after")
    def _wired(self) -> Self:
        names = {tensor.name for tensor in self.state}
        if len(names) < len(self.state) or names & (FRAME_INPUTS | set(RESULTS)):
            raise ValueError("names of state tensors must be unique and differ from those of frames and results")
        if set(self.key.inputs) - {"frame"}:
            raise ValueError(f"the key graph may take 'frame' alone, not {self.key.inputs}")
        if set(self.key.outputs) != names:
            raise ValueError(f"the key graph must give the state {sorted(names)}, not {sorted(self.key.outputs)}")
        if unknown := set(self.step.inputs) - FRAME_INPUTS - names:
            raise ValueError(f"the step graph takes unknown inputs {sorted(unknown)}")
        if set(self.step.outputs) - {NEXT + name for name in names} != set(RESULTS):
            raise ValueError(f"the step graph must give {', '.join(RESULTS)} and next state tensors alone")
        return self


class Spread(_Part):
    """How a signal is distributed over frames."""

    mean: float
    std: float = Field(ge=0)


class DomainBaseline(_Part):
    """The signals of a model on videos of one domain."""

    frames: int = Field(gt=0)  # that they were measured on
    clip_frames: int = Field(gt=1)  # of each clip, the first of which does not count
    signals: dict[str, Spread]  # by name, one for each of `SIGNALS`

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if set(self.signals) != set(SIGNALS):
            raise ValueError(f"a baseline must have {', '.join(SIGNALS)}, not {', '.join(self.signals) or 'nothing'}")
        return self


class Baseline(_Part):
    """What the signals are where the model was trained: those that leave it tell of drift."""

    key_frame_interval: int = Field(gt=0)  # frames
    measured_on: str  # variant and runtime, for people
    domains: dict[DomainName, DomainBaseline]  # that were at hand


class Manifest(_Part):
    """All a server needs to know about a bundle."""

    format: Literal["flowseg-bundle"]
    format_version: Literal[3]
    name: str = Field(pattern=NAME_PATTERN)  # what clients ask for
    version: str = Field(pattern=NAME_PATTERN)
    classes: tuple[ClassInfo, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    variants: tuple[Variant, ...] = Field(min_length=1)
    provenance: dict[str, JsonValue]  # recipe, commit, metrics, versions: for people
    # how far the graphs were from torch when they were written: of "variants", in their order, and of "dropped" ones
    verification: dict[str, list[dict[str, JsonValue]]]
    baseline: Baseline | None = None  # None if it was not measured, as of networks with random weights


class Bundle(_Part):
    """A folder whose manifest and files were checked."""

    folder: Path
    manifest: Manifest

    def path(self, graph: GraphFile) -> Path:
        """Where a graph of this bundle lies."""
        return self.folder / graph.file


def read_bundle(folder: Path) -> Bundle:
    """Reads and checks a bundle: format, wiring, and the SHA-256 of every file.

    Raises:
        BundleError: with one sentence that says what is wrong and what to do.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise BundleError(
            f"there is no bundle at {folder}: make one with 'python export/to_onnx.py RUN --out {folder}'"
        )
    if not path.is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST_FILE}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}): export the bundle again") from error
    if not isinstance(document, dict) or document.get("format") != "flowseg-bundle":
        raise BundleError(f"{path} is not the manifest of a flowseg bundle")
    if document.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            f"{folder} has bundle format {document.get('format_version')!r}, this server reads {FORMAT_VERSION}:"
            " export the bundle again with this version"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(f"{path} is not valid at {where}: {first['msg']}") from error
    bundle = Bundle(folder=folder, manifest=manifest)
    for variant in manifest.variants:
        for graph in (variant.key, variant.step):
            _check(bundle.path(graph), graph.sha256)
    return bundle


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest into a folder that already holds the graphs it names."""
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in pixels of HEIGHTxWIDTH.

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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing from the bundle: export the bundle again")
    if file_sha256(path) != sha256:
        raise BundleError(f"{path} does not match the manifest's SHA-256: it was changed or damaged, export it again")
