"""The benchmarks of the papers: a source and a target with one label space, and what every recipe on them shares.

Released weights to start from are runs made by `training.convert`: `deeplab-init` (ImageNet), `flying-chairs` (the thin
FlowNetS) and, for recipes with RAFT, `raft-things`. As in the released code of SFC, checkpoints are chosen by mean IoU
on the target's validation labels; the last checkpoint lies beside the best.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.data import CityscapesSeq, DataConfig, SynthiaSeq, Viper
from training.methods.method import Method
from training.recipe import Recipe
from training.validation import SegmentationValidation

# Runs that `training.convert` makes of official files.
IMAGENET, FLYING_CHAIRS, RAFT_THINGS = "deeplab-init", "flying-chairs", "raft-things"
BRANCHES = ("segmenter.net_ref", "segmenter.net_update")
BACKBONE = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")  # of a DeepLab; its classifiers are drawn anew
FROM_IMAGENET = {f"segmenter.segnet.{part}": f"{IMAGENET}:segmenter.segnet.{part}" for part in BACKBONE}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A source and a target with one label space."""

    source: DataConfig  # pairs, the last frame labelled
    source_with_previous_labels: DataConfig
    source_validation: DataConfig  # pairs, both frames labelled
    target: CityscapesSeq
    target_validation: CityscapesSeq


VIPER_ROOT, SYNTHIA_ROOT, CITYSCAPES_ROOT = Path("data/VIPER"), Path("data/SYNTHIA"), Path("data/Cityscapes")
_viper = Viper(root=VIPER_ROOT, every=10)
_synthia = SynthiaSeq(root=SYNTHIA_ROOT)
_cityscapes = CityscapesSeq(root=CITYSCAPES_ROOT)
BENCHMARKS = {
    "viper": Benchmark(
        source=replace(_viper, previous_labels=False),
        source_with_previous_labels=_viper,
        source_validation=replace(_viper, split="val"),
        target=_cityscapes,
        target_validation=replace(_cityscapes, split="val", num_frames=2),
    ),
    "synthia": Benchmark(
        source=replace(_synthia, previous_labels=False),
        source_with_previous_labels=_synthia,
        source_validation=_synthia,  # the benchmark has one video and no split
        target=replace(_cityscapes, classes="synthia"),
        target_validation=replace(_cityscapes, classes="synthia", split="val", num_frames=2),
    ),
}


def benchmark_recipe(
    benchmark: Benchmark,
    method: Method[Any],  # Any: of labelled clips or of clips with flow
    steps: int,
    start_from: dict[str, str],
    num_target_frames: int = 2,
) -> Recipe:
    """A method on a benchmark; stage two needs three target frames."""
    return Recipe(
        method=method,
        source=benchmark.source,
        target=replace(benchmark.target, num_frames=num_target_frames),
        validation=SegmentationValidation(data=benchmark.target_validation),
        steps=steps,
        start_from=start_from,
    )


def in_both_branches(stage_one: str) -> dict[str, str]:
    """Both branches of Accel from one run of stage one, whose classifier they keep."""
    return dict.fromkeys(BRANCHES, f"{stage_one}:segmenter.segnet")


def accel_from(stage_one: str) -> dict[str, str]:
    """Both branches from one run of stage one; the flow network from Flying Chairs."""
    return {**in_both_branches(stage_one), "segmenter.flownet": f"{FLYING_CHAIRS}:flow_net"}


def one_branch_from(stage_one: str) -> dict[str, str]:
    """The same of segmenters with a network on key frames alone."""
    return {BRANCHES[0]: f"{stage_one}:segmenter.segnet", "segmenter.flownet": f"{FLYING_CHAIRS}:flow_net"}


def teachers_of(name: str) -> dict[str, str]:
    """The frozen flow network and the SFM of a benchmark, both trained on its source."""
    return {"teacher_flow": f"{name}-source-only:segmenter.flownet", "sfm": f"{name}-sfm:sfm"}
