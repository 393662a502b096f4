"""The options of the throughput benchmark, and what is made of them: bundles, a runtime, encoded frames."""

import dataclasses
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import JsonValue

from benchmarks.throughput_environments import PEERS, default_peers_folder
from benchmarks.untrained_bundles import parse_architecture, per_frame_network, untrained_bundle
from serving.bundle import Bundle, Precision, parse_size, read_bundle
from serving.graphs import pick_variant
from serving.runtimes.choice import RuntimeChoice, open_runtime
from serving.videos import open_video
from training.data.world.render import render_clip
from training.models.accel import AccelConfig
from training.models.deeplab import BACKBONES, BackboneName
from training.models.video_segmenter import SegmenterConfig
from training.recipes.demo import ACCEL

NUM_FRAMES = 30  # that are sent, forth and back: as long as a drive in the world sees one street
SEED, LOOK = 5, "mid"  # of that drive
JPEG_QUALITY = 90
MAX_STREAMS = 64  # that our server takes unasked
RUNTIMES = {"onnxruntime-cpu": "onnxruntime", "openvino": "openvino"}  # packages by what bundles call them
Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Options:
    """Options of `benchmarks.throughput`."""

    # folder written by export/to_onnx.py; without one, --architecture gets random weights
    bundle: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[BUNDLE]")] = ()
    # bundle of the per-frame network that peers serve; without one, --opponent gets random weights
    per_frame: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="BUNDLE")] = ()
    # without a BUNDLE: "demo", or Accel of two residual networks, like resnet101/resnet18
    architecture: Annotated[str, tyro.conf.arg(metavar="demo|REFERENCE/UPDATE")] = "demo"
    opponent: str = "auto"  # residual network of the per-frame DeepLab; "auto" is that of the key frames' branch
    # frames that a network with random weights works on, in pixels
    size: Annotated[str, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = "96x192"
    precision: Precision = "int8"  # of all graphs
    runtime: RuntimeChoice = "auto"  # of all graphs, the peers' too; "auto" is the fastest that is there
    threads: int = 1  # of one run of a graph
    video: str = ""  # file whose first frames are sent; empty is the embedded world
    encoding: Literal["jpeg", "raw"] = "jpeg"  # how frames are sent
    streams: str = "1,2,4,8,16"  # comma-separated numbers of streams
    key_frames: str = "1,5,10,adaptive"  # comma-separated key-frame intervals in frames, or adaptive
    in_flight: int = 2  # frames of one stream without an answer, 2 or more; beside it, one stream runs in lockstep
    seconds: float = 1.0  # of one turn, after everyone's first answer and the warm-up
    warm_up: float = 0.3  # seconds of a turn before answers count
    rounds: int = 4  # in each of which all contestants have a turn
    # comma-separated: mlserver, ray, triton; or none
    peers: Annotated[str, tyro.conf.arg(metavar="PEER[,PEER...]")] = "mlserver,ray,triton"
    peers_dir: Path = field(default_factory=default_peers_folder)  # folder of their environments
    cache: Path = Path("runs/latency")  # folder of exported networks with random weights
    json: bool = False  # print the figures as JSON on stdout instead of tables
    out: Path = Path("benchmarks/results/throughput")  # name of the results, without ending


class Plan(NamedTuple):
    """Options, checked, and what they name."""

    options: Options
    bundle: Bundle  # ours
    per_frame: Bundle  # the peers'
    per_frame_graph: Path  # of the variant that is run
    size: Size  # of the frames that ours works on
    runtime: str  # onnxruntime or openvino
    runtime_description: str
    streams: tuple[int, ...]  # ascending
    key_frames: tuple[str, ...]
    peers: tuple[str, ...]
    frames: tuple[bytes, ...]  # encoded
    frame_size: Size  # of them

    @property
    def graph_arguments(self) -> list[str]:
        """What our server and the bare loop are told of the graphs."""
        options = self.options
        return ["--precision", options.precision, "--runtime", self.runtime, "--threads", str(options.threads)]

    def chosen(self) -> dict[str, JsonValue]:
        """The options that figures depend on, for the report."""
        options = self.options
        found: dict[str, JsonValue] = {
            each.name: getattr(options, each.name)
            for each in dataclasses.fields(options)
            if each.name not in ("bundle", "per_frame", "peers_dir", "cache", "json", "out")
        }
        return found | {
            "bundle": [str(path) for path in options.bundle],
            "per_frame": [str(path) for path in options.per_frame],
        }


def make_plan(options: Options) -> Plan:
    """Checks options, reads or exports bundles, encodes frames.

    Raises:
        ValueError: if something cannot be used.
        VideoError: if the video cannot be read.
    """
    streams, key_frames, peers = _check(options)
    ours, per_frame = _networks(options)
    runtime = open_runtime(options.runtime, "cpu", options.threads, ours, options.precision)
    if runtime.name not in RUNTIMES:
        raise ValueError(f"--runtime {options.runtime} runs on no CPU: choose onnxruntime or openvino")
    variant = pick_variant(ours, runtime.name, options.precision, None)
    per_frame_variant = pick_variant(per_frame, runtime.name, options.precision, None)
    if per_frame_variant.state:
        raise ValueError(f"{per_frame.folder} is no per-frame network, its step takes a state: give one to --per-frame")
    size, of_peers = ((each.height, each.width) for each in (variant, per_frame_variant))
    if size != of_peers:
        raise ValueError(
            f"the networks to compare work on {size[0]}x{size[1]} and {of_peers[0]}x{of_peers[1]} pixels: export both"
            " at one size"
        )
    images = _images(options.video, size)
    return Plan(
        options=options, bundle=ours, per_frame=per_frame, per_frame_graph=per_frame.path(per_frame_variant.step),
        size=size, runtime=RUNTIMES[runtime.name], runtime_description=runtime.description, streams=streams,
        key_frames=key_frames, peers=peers, frames=tuple(_encode(image, options.encoding) for image in images),
        frame_size=images[0].shape[:2],
    )  # fmt: skip


def write_frames(folder: Path, plan: Plan) -> None:
    """Puts the encoded frames into a new folder, for all processes."""
    folder.mkdir()
    for number, frame in enumerate(plan.frames):
        (folder / f"{number:04}").write_bytes(frame)


def _check(options: Options) -> tuple[tuple[int, ...], tuple[str, ...], tuple[str, ...]]:
    """Streams, key-frame policies and peers."""
    for name, value, least in (
        ("threads", options.threads, 1), ("rounds", options.rounds, 1), ("in-flight", options.in_flight, 2),
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"--{name} is {value}: choose at least {least}")
    if not options.seconds > 0 or not options.warm_up >= 0:
        raise ValueError(
            f"--seconds must be above 0 and --warm-up not below, not {options.seconds} and {options.warm_up}"
        )
    if options.precision == "fp16":
        raise ValueError("fp16 graphs are for GPUs and this measures the CPU: choose --precision fp32 or int8")
    for given, option, is_changed in (
        ("BUNDLE", "architecture", bool(options.bundle) and options.architecture != Options.architecture),
        ("BUNDLE", "size", bool(options.bundle) and options.size != Options.size),
        ("--per-frame", "opponent", bool(options.per_frame) and options.opponent != Options.opponent),
    ):
        if is_changed:
            raise ValueError(f"--{option} is for a network with random weights: leave it out, or give no {given}")
    for name, bundles in (("BUNDLE", options.bundle), ("--per-frame", options.per_frame)):
        if len(bundles) > 1:
            raise ValueError(f"{len(bundles)} bundles are given as {name}: one is compared at a time")
    numbers = options.streams.split(",")
    if not all(each.isdecimal() and 1 <= int(each) <= MAX_STREAMS for each in numbers):
        raise ValueError(f"--streams {options.streams!r} does not read as numbers from 1 to {MAX_STREAMS}, like 1,4,16")
    key_frames = tuple(dict.fromkeys(options.key_frames.split(",")))
    if not all(each == "adaptive" or (each.isdecimal() and 1 <= int(each) <= 1000) for each in key_frames):
        raise ValueError(
            f"--key-frames {options.key_frames!r} does not read as intervals of 1 to 1000 frames, or adaptive, like"
            " 1,5,adaptive"
        )
    peers = () if options.peers == "none" else tuple(dict.fromkeys(options.peers.split(",")))
    for name in peers:
        if name not in PEERS:
            raise ValueError(f"there is no peer {name!r}: choose of {', '.join(PEERS)}, or none")
    return tuple(sorted({int(each) for each in numbers})), key_frames, peers


def _networks(options: Options) -> tuple[Bundle, Bundle]:
    """Ours, and the one that is run on every frame."""
    size = parse_size(options.size)
    if options.bundle:
        ours = read_bundle(options.bundle[0])
        variants = [each for each in ours.manifest.variants if each.precision == options.precision]
        size = (variants[0].height, variants[0].width) if variants else size
        reference = _reference_of_recipe(ours.manifest.provenance)
    else:
        name, config = ("demo", ACCEL) if options.architecture == "demo" else parse_architecture(options.architecture)
        reference = config.reference if isinstance(config, AccelConfig) else ""
        ours = _untrained(options, name, config, size)
    if options.per_frame:
        return ours, read_bundle(options.per_frame[0])
    wanted = reference if options.opponent == "auto" else options.opponent
    return ours, _untrained(options, *per_frame_network(_backbone(wanted)), size)


def _untrained(options: Options, name: str, config: SegmenterConfig, size: Size) -> Bundle:
    return untrained_bundle(options.cache, name, config, size, options.precision)


def _backbone(name: str) -> BackboneName:
    for backbone in BACKBONES:
        if backbone == name:
            return backbone
    found = (
        f"there is no residual network {name!r}" if name else "the bundle does not say what its key frames run through"
    )
    raise ValueError(f"{found}: give --opponent one of {', '.join(BACKBONES)}, or a --per-frame BUNDLE")


def _reference_of_recipe(provenance: JsonValue) -> str:
    """The residual network of the key frames' branch, if the recipe in a manifest has one, whichever its method."""
    if not isinstance(provenance, dict):
        return ""
    if "reference" in provenance:
        return str(provenance["reference"])
    parts = (_reference_of_recipe(provenance.get(key)) for key in ("recipe", "method", "stage", "segmenter"))
    return next(filter(None, parts), "")


def _images(video: str, size: Size) -> list[NDArray[np.uint8]]:
    """Frames (H, W, 3) RGB to send: of the video in its own size, or of the world in the network's."""
    if not video:
        return list(render_clip(SEED, LOOK, size, NUM_FRAMES).frames)
    images = list(itertools.islice(open_video(video).frames(), NUM_FRAMES))
    if not images:
        raise ValueError(f"{video} has no frames: give another --video")
    return images


def _encode(image: NDArray[np.uint8], encoding: Literal["jpeg", "raw"]) -> bytes:
    if encoding == "raw":
        return image.tobytes()
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    is_encoded, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert is_encoded
    return encoded.tobytes()
