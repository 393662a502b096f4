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

    BENCHMARK-dff-*, -da-vss-*    DFF and DA-VSS in place of Accel, source-only and with SFC, from the same stage one
    BENCHMARK-da-vss-distortion   DA-VSS's distortion network, before either: 50,000 steps, of our choice
    BENCHMARK-raft-*              RAFT in place of FlowNetS, in Accel and as the SFM: every stage but source-only-one
"""

from dataclasses import replace

from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.optimization import WarmUp
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.da_vss import DaVssConfig
from training.models.dff import DffConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNetConfig
from training.models.raft import RaftConfig
from training.models.video_segmenter import SegmenterConfig
from training.recipe import NamedRecipe, Recipe
from training.recipes.benchmarks import (
    BENCHMARKS,
    FROM_IMAGENET,
    RAFT_THINGS,
    Benchmark,
    accel_from,
    benchmark_recipe,
    in_both_branches,
    one_branch_from,
    teachers_of,
)
from training.validation import DistortionValidation, SfmValidation

ACCEL, FLOW_NET = AccelConfig(), FlowNetSConfig()
# A step looks at up to 30 pairs of masked frames: 12 refinements of each, as of the flow between frames, cost too much.
RAFT_TEACHER = RaftConfig(iterations=6)


def _source_only_one(benchmark: Benchmark) -> Recipe:
    return benchmark_recipe(benchmark, Supervised(StageOne()), 80_000, FROM_IMAGENET)


def _source_only(benchmark: Benchmark, segmenter: SegmenterConfig, start_from: dict[str, str]) -> Recipe:
    # The released script sets the rate after the step, so the warm-up begins one step late.
    method = Supervised(StageTwo(segmenter, schedule=WarmUp(late=True)))
    return benchmark_recipe(benchmark, method, 80_000, start_from, num_target_frames=3)


def _sfm(benchmark: Benchmark, flow_net: FlowNetConfig, teacher: str) -> Recipe:
    start_from = dict.fromkeys(("sfm", "teacher_flow"), teacher)
    return replace(
        benchmark_recipe(benchmark, SfmPretraining(flow_net), 80_000, start_from),
        source=benchmark.source_with_previous_labels,
        validation=SfmValidation(data=benchmark.source_validation),
        validate_every=4000,
    )


def _distortion(benchmark: Benchmark, stage_one: str, flow: str) -> Recipe:
    start_from = {"segmenter": f"{stage_one}:segmenter", "flow_net": flow}
    return replace(
        benchmark_recipe(benchmark, DistortionPretraining(), 50_000, start_from),
        validation=DistortionValidation(data=benchmark.source_validation),
    )


def _sfc_one(benchmark: Benchmark, flow_net: FlowNetConfig, flow_weight: float, teachers: dict[str, str]) -> Recipe:
    method = Sfc(StageOne(), flow_net, flow_weight)
    return benchmark_recipe(benchmark, method, 120_000, FROM_IMAGENET | teachers)


def _sfc_two(benchmark: Benchmark, method: Sfc, start_from: dict[str, str]) -> Recipe:
    return benchmark_recipe(benchmark, method, 160_000, start_from, num_target_frames=3)


def _supervised_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    return {
        f"{name}-one": NamedRecipe(f"{name}: stage one.", _source_only_one(benchmark)),
        name: NamedRecipe(f"{name}: Accel.", _source_only(benchmark, ACCEL, accel_from(f"{name}-one"))),
    }


def _sfc_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    teachers = teachers_of(name)

    def stage_two(flow_weight: float, stage_one: str) -> Recipe:
        return _sfc_two(benchmark, Sfc(StageTwo(), FLOW_NET, flow_weight), accel_from(stage_one) | teachers)

    return {
        f"{name}-sfm": NamedRecipe(
            f"{name}: the segmentation-to-flow module.",
            _sfm(benchmark, FLOW_NET, f"{name}-source-only:segmenter.flownet"),
        ),
        f"{name}-sfc-one": NamedRecipe(f"{name}: SFC stage one.", _sfc_one(benchmark, FLOW_NET, 0.005, teachers)),
        f"{name}-accel-sfc": NamedRecipe(
            f"{name}: SFC stage two, the adapted Accel.", stage_two(0.001, f"{name}-sfc-one")
        ),
        f"{name}-control-one": NamedRecipe(
            f"{name}: SFC stage one without the flow loss.", _sfc_one(benchmark, FLOW_NET, 0.0, teachers)
        ),
        f"{name}-control": NamedRecipe(
            f"{name}: SFC stage two without the flow loss.", stage_two(0.0, f"{name}-control-one")
        ),
    }


def _propagation_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    """DFF and DA-VSS (Table 4), from the stage one that Accel starts from."""
    distortion = f"{name}-da-vss-distortion"
    recipes = {
        distortion: NamedRecipe(
            f"{name}: the distortion network of DA-VSS.",
            _distortion(benchmark, f"{name}-source-only-one", f"{name}-source-only:segmenter.flownet"),
        )
    }
    segmenters: dict[str, tuple[str, SegmenterConfig, dict[str, str]]] = {
        "dff": ("DFF", DffConfig(), {}),
        "da-vss": ("DA-VSS", DaVssConfig(), {"segmenter.dmnet": f"{distortion}:dmnet"}),
    }
    for key, (title, segmenter, others) in segmenters.items():
        plain = _source_only(benchmark, segmenter, one_branch_from(f"{name}-source-only-one") | others)
        recipes[f"{name}-{key}-source-only"] = NamedRecipe(f"{name}: {title} on the source.", plain)
        adapted = _sfc_two(
            benchmark,
            Sfc(StageTwo(segmenter), FLOW_NET, 0.001),
            one_branch_from(f"{name}-sfc-one") | others | teachers_of(name),
        )
        recipes[f"{name}-{key}-sfc"] = NamedRecipe(f"{name}: {title} with SFC.", adapted)
    return recipes


def _raft_recipes(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    """RAFT inside Accel and as the SFM (Table 5)."""
    accel = AccelConfig(flow_net=RaftConfig())
    teachers = {"teacher_flow": f"{name}-raft-source-only:segmenter.flownet", "sfm": f"{name}-raft-sfm:sfm"}

    def start_from(stage_one: str) -> dict[str, str]:
        return {**in_both_branches(stage_one), "segmenter.flownet": f"{RAFT_THINGS}:flow_net"}

    return {
        f"{name}-raft-source-only": NamedRecipe(
            f"{name}: Accel with RAFT on the source.",
            _source_only(benchmark, accel, start_from(f"{name}-source-only-one")),
        ),
        f"{name}-raft-sfm": NamedRecipe(
            f"{name}: RAFT as the segmentation-to-flow module.",
            _sfm(benchmark, RAFT_TEACHER, teachers["teacher_flow"]),
        ),
        f"{name}-raft-sfc-one": NamedRecipe(
            f"{name}: SFC stage one with RAFT.", _sfc_one(benchmark, RAFT_TEACHER, 0.005, teachers)
        ),
        f"{name}-raft-sfc": NamedRecipe(
            f"{name}: SFC stage two, Accel with RAFT.",
            _sfc_two(
                benchmark, Sfc(StageTwo(accel), RAFT_TEACHER, 0.001), start_from(f"{name}-raft-sfc-one") | teachers
            ),
        ),
    }


def _on_target(benchmark: Benchmark) -> Benchmark:
    return replace(benchmark, source=replace(benchmark.target, num_frames=2))


def _recipes_of(name: str, benchmark: Benchmark) -> dict[str, NamedRecipe]:
    return {
        **_supervised_recipes(f"{name}-source-only", benchmark),
        **_sfc_recipes(name, benchmark),
        **_propagation_recipes(name, benchmark),
        **_raft_recipes(name, benchmark),
    }


PAPER_RECIPES: dict[str, NamedRecipe] = {
    **_recipes_of("viper", BENCHMARKS["viper"]),
    **_recipes_of("synthia", BENCHMARKS["synthia"]),
    **_supervised_recipes("cityscapes-target-only", _on_target(BENCHMARKS["viper"])),
}
