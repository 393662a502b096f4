"""Bundles of networks with random weights: for time, which does not depend on what a network has learned.

BatchNorm statistics and the ranges of 8-bit integers are those of frames of the embedded world, so the values in the
network are of ordinary size. A bundle that was exported before is taken again, unless the code or a library that made
it has changed; old ones may be deleted.
"""

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import torch

from export.torch_programs import build_programs
from export.variants import VariantWriter
from serving.bundle import Bundle, BundleError, ClassInfo, Manifest, Precision, read_bundle, write_manifest
from serving.runtimes.torch_runtime import TorchRuntime
from training.data.clip import Clip
from training.data.world.render import render_clip
from training.label_spaces import VIPER_TO_CITYSCAPES
from training.models.accel import AccelConfig
from training.models.deeplab import BACKBONES, BackboneName
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.models.video_segmenter import SegmenterConfig, VideoSegmenter
from training.run_directory import commit, versions
from training.target_statistics import with_target_statistics

logger = logging.getLogger(__name__)
STATISTICS_SIZE = (128, 256)  # of the frames that BatchNorm sees, in pixels: statistics hardly depend on it
SEEDS = (1, 2)  # of the clips
THIS = Path(__file__)
ROOT = THIS.parents[1]
Size = tuple[int, int]  # height, width in pixels


def parse_architecture(text: str) -> tuple[str, SegmenterConfig]:
    """A name and the network: Accel of REFERENCE/UPDATE, each a residual network.

    Raises:
        ValueError: if it does not read so, or there is no such network.
    """
    reference, _, update = text.partition("/")
    return f"accel-{reference}-{update}", AccelConfig(
        reference=_backbone(reference, text), update=_backbone(update, text), flow_net=FlowNetSConfig()
    )


def per_frame_network(backbone: BackboneName) -> tuple[str, SegmenterConfig]:
    """A name and the network: a DeepLab on every frame."""
    return f"per-frame-{backbone}", PerFrameConfig(backbone=backbone, auxiliary=False)


def untrained_bundle(folder: Path, name: str, config: SegmenterConfig, size: Size, precision: Precision) -> Bundle:
    """The bundle of a network with random weights, in a folder of its own below `folder`.

    Raises:
        ValueError: if it cannot be written, or what is there is no bundle.
    """
    path = folder / f"{name}.{precision}.{size[0]}x{size[1]}.{_digest_of_the_exporter()}"
    if path.exists():
        return read_bundle(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}): choose another --cache") from error
    logger.info("exporting %s with random weights", path.name)
    try:
        write_manifest(aside, _write(aside, name, _untrained(config), size, precision))
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return read_bundle(path)


def untrained_programs(bundle: Bundle, config: SegmenterConfig, precision: Precision, runtime: TorchRuntime) -> None:
    """Sees to torch's programs of a bundle that `untrained_bundle` gave, in the folder where `runtime` looks.

    Raises:
        ValueError: if the folder cannot be used.
        EngineError: if they do not answer like the bundle's graphs.
    """
    (variant,) = (variant for variant in bundle.manifest.variants if variant.suits("torch"))
    try:
        for graph in (variant.key, variant.step) if variant.state else (variant.step,):
            runtime.find_plan(bundle.path(graph))
    except BundleError:
        build_programs(bundle, precision, _untrained(config), runtime, runtime.engines)


def _write(folder: Path, name: str, segmenter: VideoSegmenter, size: Size, precision: Precision) -> Manifest:
    pairs = []
    if precision == "int8":
        clips = [render_clip(seed, "target", size, 2).frames for seed in SEEDS]
        pairs = [(frames[0], frames[1]) for frames in clips]
    writer = VariantWriter(segmenter.folded(), *size, folder, calibration=pairs)
    variants = tuple(writer.write(precision))
    return Manifest(
        format="flowseg-bundle",
        format_version=3,
        name=name,
        version="untrained",
        classes=tuple(ClassInfo(name=entry.name, color=entry.color) for entry in VIPER_TO_CITYSCAPES.classes),
        variants=variants,
        provenance={"untrained": True, "exported": {"commit": commit()}},
        verification={"variants": [{} for _ in variants], "dropped": []},
    )


def _untrained(config: SegmenterConfig) -> VideoSegmenter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segmenter = config.build(VIPER_TO_CITYSCAPES.num_classes)
    clips = []
    for seed in SEEDS:
        frames = torch.from_numpy(render_clip(seed, "target", STATISTICS_SIZE, 2).frames)
        clips.append(Clip(frames.permute(0, 3, 1, 2)[None].float() / 255))
    adapted = with_target_statistics(segmenter, clips, torch.device("cpu"))
    assert isinstance(adapted, VideoSegmenter)
    return adapted


def _digest_of_the_exporter() -> str:
    """Of all that decides what a bundle holds."""
    digest = hashlib.sha256(json.dumps(versions()).encode())
    for source in (*sorted((ROOT / "export").glob("*.py")), *sorted((ROOT / "training" / "models").glob("*.py")), THIS):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def _backbone(name: str, text: str) -> BackboneName:
    for backbone in BACKBONES:
        if backbone == name:
            return backbone
    raise ValueError(f"architecture {text!r} does not read REFERENCE/UPDATE, each one of {', '.join(BACKBONES)}")
