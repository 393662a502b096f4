"""SFC as published, on the real benchmarks, with the hyperparameters of the released code.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023. For BENCHMARK "viper" (VIPER to Cityscapes-Seq, 15 classes) and
"synthia" (SYNTHIA-Seq to Cityscapes-Seq, 12 classes trained):

    BENCHMARK-source-only-one     stage one on the source, from the ImageNet weights: 80,000 steps
    BENCHMARK-source-only         Accel on the source, from Flying Chairs: 80,000 steps; trains the flow network
    BENCHMARK-sfm                 the segmentation-to-flow module: 80,000 steps
    BENCHMARK-sfc-one             SFC stage one, again from the ImageNet weights: 120,000 steps
    BENCHMARK-accel-sfc           SFC stage two, again from Flying Chairs: 160,000 steps
    BENCHMARK-control*            both SFC stages with lambda_f = 0
    cityscapes-target-only*       both supervised stages on Cityscapes labels (of the viper benchmark)

They start from two runs made by `training.convert`: `deeplab-init` (ImageNet) and `flying-chairs`. As in the released
code, checkpoints are chosen by mean IoU on the target's validation labels; the last checkpoint lies beside the best.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from training.data import CityscapesSeq, DataConfig, SynthiaSeq, Viper
from training.data.clip import LabelledClip
from training.methods.method import Method
from training.methods.optimization import WarmUp
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.recipe import NamedRecipe, Recipe
from training.validation import SegmentationValidation, SfmValidation

IMAGENET, FLYING_CHAIRS = "deeplab-init", "flying-chairs"  # runs that `training.convert` makes of official files
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


def _recipe(
    benchmark: Benchmark,
    method: Method[LabelledClip],
    steps: int,
    start_from: dict[str, str],
    num_target_frames: int,
) -> Recipe:
    return Recipe(
        method=method,
        source=benchmark.source,
        target=replace(benchmark.target, num_frames=num_target_frames),
        validation=SegmentationValidation(data=benchmark.target_validation),
        steps=steps,
        start_from=start_from,
    )


def _accel_from(stage_one: str) -> dict[str, str]:
    """Both branches from one run of stage one, whose classifier they keep; the flow network from Flying Chairs."""
    return {
        **dict.fromkeys(BRANCHES, f"{stage_one}:segmenter.segnet"),
        "segmenter.flownet": f"{FLYING_CHAIRS}:flow_net",
    }


def _source_only_one(benchmark: Benchmark) -> Recipe:
    return _recipe(benchmark, Supervised(StageOne()), 80_000, FROM_IMAGENET, 2)


def _source_only(benchmark: Benchmark, stage_one: str) -> Recipe:
    # The released script sets the rate after the step, so the warm-up begins one step late.
    method = Supervised(StageTwo(schedule=WarmUp(late=True)))
    return _recipe(benchmark, method, 80_000, _accel_from(stage_one), 3)


def _sfm(benchmark: Benchmark, source_only: str) -> Recipe:
    start_from = dict.fromkeys(("sfm", "teacher_flow"), f"{source_only}:segmenter.flownet")
    recipe = _recipe(benchmark, SfmPretraining(), 80_000, start_from, 2)
    return replace(
        recipe,
        source=benchmark.source_with_previous_labels,
        validation=SfmValidation(data=benchmark.source_validation),
        validate_every=4000,
    )


def _sfc_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    teachers = {
        "teacher_flow": f"{name}-source-only:segmenter.flownet",
        "sfm": f"{name}-sfm:sfm",
    }

    def stage_one(flow_weight: float) -> Recipe:
        return _recipe(benchmark, Sfc(StageOne(), flow_weight=flow_weight), 120_000, FROM_IMAGENET | teachers, 2)

    def stage_two(flow_weight: float, started: str) -> Recipe:
        method = Sfc(StageTwo(), flow_weight=flow_weight)
        return _recipe(benchmark, method, 160_000, _accel_from(started) | teachers, 3)

    return {
        f"{name}-sfm": NamedRecipe(f"{name}: the segmentation-to-flow module.", _sfm(benchmark, f"{name}-source-only")),
        f"{name}-sfc-one": NamedRecipe(f"{name}: SFC stage one.", stage_one(0.005)),
        f"{name}-accel-sfc": NamedRecipe(
            f"{name}: SFC stage two, the adapted Accel.", stage_two(0.001, f"{name}-sfc-one")
        ),
        f"{name}-control-one": NamedRecipe(f"{name}: SFC stage one without the flow loss.", stage_one(0.0)),
        f"{name}-control": NamedRecipe(
            f"{name}: SFC stage two without the flow loss.", stage_two(0.0, f"{name}-control-one")
        ),
    }


def _supervised_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    return {
        f"{name}-one": NamedRecipe(f"{name}: stage one.", _source_only_one(benchmark)),
        name: NamedRecipe(f"{name}: Accel.", _source_only(benchmark, f"{name}-one")),
    }


def _on_target(benchmark: Benchmark) -> Benchmark:
    return replace(benchmark, source=replace(benchmark.target, num_frames=2))


PAPER_RECIPES: dict[str, NamedRecipe] = {
    **_supervised_recipes("viper-source-only", BENCHMARKS["viper"]),
    **_sfc_recipes("viper", BENCHMARKS["viper"]),
    **_supervised_recipes("synthia-source-only", BENCHMARKS["synthia"]),
    **_sfc_recipes("synthia", BENCHMARKS["synthia"]),
    **_supervised_recipes("cityscapes-target-only", _on_target(BENCHMARKS["viper"])),
}
