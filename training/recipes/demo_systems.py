"""Every other method and model of the paper on the embedded world, as small and as long as the demo.

They start from the demo's source-only networks and are trained for as many steps as its SFC, on the same frames:

    demo-METHOD-one, demo-METHOD      advent, pixmatch, da-vsn, tps, sfc-tpl, advent-tpl: both stages of Accel
    demo-dff-source-only, demo-dff    DFF on the source, and with SFC
    demo-da-vss-distortion, demo-da-vss-source-only, demo-da-vss   DA-VSS, its distortion network first
    demo-raft-flow, demo-raft-source-only, demo-raft-sfm, demo-raft-one, demo-raft   a small RAFT in place of FlowNetS
"""

from collections.abc import Iterator
from dataclasses import replace

from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.flow_supervision import FlowSupervision
from training.methods.optimization import Adam, Clipped, Constant, Poly
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import Stage
from training.methods.supervised import Supervised
from training.models.da_vss import DaVssConfig
from training.models.dff import DffConfig
from training.models.raft import RaftConfig
from training.models.video_segmenter import SegmenterConfig
from training.recipe import NamedRecipe, Recipe
from training.recipes.demo import (
    ACCEL,
    ADAPTATION_STAGE_ONE,
    DEMO_RECIPES,
    FLOW_NET,
    FROM_STAGE_ONE,
    PER_FRAME,
    SOURCE_VALIDATION,
    STAGE_TWO,
)
from training.recipes.rivals import RIVALS, Setting, sfc
from training.validation import DistortionValidation

SETTING = Setting(FLOW_NET, pseudo_weight=0.1, crop_size=96, discriminator_width=16)  # all networks are narrow
RAFT = RaftConfig(iterations=3, width=0.25)
DFF = DffConfig(reference="resnet10_slim", flow_net=FLOW_NET)
DA_VSS = DaVssConfig(reference="resnet10_slim", flow_net=FLOW_NET, correction_width=0.25)


def _demo(name: str) -> Recipe:
    return DEMO_RECIPES[name].recipe


def _without(start_from: dict[str, str], *networks: str) -> dict[str, str]:
    return {part: origin for part, origin in start_from.items() if part not in networks}


def _rivals() -> Iterator[tuple[str, NamedRecipe]]:
    def clipped(method: str, stage: Stage) -> Stage:
        return replace(stage, optimizer=Clipped(stage.optimizer)) if method == "da-vsn" else stage

    for method, rival in RIVALS.items():
        strangers = {"teacher_flow", "sfm"} - set(rival.teachers)
        one = replace(
            _demo("demo-sfc-one"),
            method=rival.method(clipped(method, ADAPTATION_STAGE_ONE), SETTING),
            start_from=_without(_demo("demo-sfc-one").start_from, *strangers),
        )
        yield f"demo-{method}-one", NamedRecipe(f"Embedded world: {rival.title}, stage one.", one)
        two = replace(
            _demo("demo"),
            method=rival.method(clipped(method, STAGE_TWO), SETTING),
            start_from={
                **_without(_demo("demo").start_from, *strangers),
                **dict.fromkeys(FROM_STAGE_ONE, f"demo-{method}-one:segmenter.segnet"),
            },
        )
        yield f"demo-{method}", NamedRecipe(f"Embedded world: {rival.title}, stage two.", two)


def _propagation() -> Iterator[tuple[str, NamedRecipe]]:
    distortion = replace(
        _demo("demo-sfm"),
        method=DistortionPretraining(PER_FRAME, FLOW_NET, statistics_momentum=0.1, optimizer=Adam(learning_rate=1e-3)),
        validation=DistortionValidation(data=SOURCE_VALIDATION),
        start_from={"segmenter": "demo-source-only-one:segmenter", "flow_net": "demo-source-only:segmenter.flownet"},
    )
    yield "demo-da-vss-distortion", NamedRecipe("Embedded world: the distortion network of DA-VSS.", distortion)
    segmenters: dict[str, tuple[str, SegmenterConfig, dict[str, str]]] = {
        "dff": ("DFF", DFF, {}),
        "da-vss": ("DA-VSS", DA_VSS, {"segmenter.dmnet": "demo-da-vss-distortion:dmnet"}),
    }
    for key, (title, segmenter, others) in segmenters.items():
        stage = replace(STAGE_TWO, segmenter=segmenter)
        for name, template, method in (
            (f"demo-{key}-source-only", "demo-source-only", Supervised(stage)),
            (f"demo-{key}", "demo", sfc(stage, SETTING)),
        ):
            recipe = _demo(template)
            start_from = _without(recipe.start_from, "segmenter.net_update") | others
            how = "with SFC" if isinstance(method, Sfc) else "on the source"
            yield (
                name,
                NamedRecipe(f"Embedded world: {title} {how}.", replace(recipe, method=method, start_from=start_from)),
            )


def _raft() -> Iterator[tuple[str, NamedRecipe]]:
    stage = replace(STAGE_TWO, segmenter=replace(ACCEL, flow_net=RAFT))
    setting = SETTING._replace(flow_net=RAFT)
    teacher, flow_net = "demo-raft-source-only:segmenter.flownet", "demo-raft-flow:flow_net"
    teachers = {"teacher_flow": teacher, "sfm": "demo-raft-sfm:sfm"}
    recipes = {
        "demo-raft-flow": (
            "RAFT on true source flow.",
            replace(_demo("demo-flow"), method=FlowSupervision(RAFT, Adam(learning_rate=1e-3), Poly())),
        ),
        "demo-raft-source-only": (
            "Accel with RAFT on the source.",
            replace(
                _demo("demo-source-only"),
                method=Supervised(stage),
                start_from={**_demo("demo-source-only").start_from, "segmenter.flownet": flow_net},
            ),
        ),
        "demo-raft-sfm": (
            "RAFT as the segmentation-to-flow module.",
            replace(
                _demo("demo-sfm"),
                method=SfmPretraining(RAFT, Adam(learning_rate=3e-4), Constant()),
                start_from=dict.fromkeys(("sfm", "teacher_flow"), teacher),
            ),
        ),
        "demo-raft-one": (
            "SFC stage one with RAFT.",
            replace(
                _demo("demo-sfc-one"),
                method=sfc(ADAPTATION_STAGE_ONE, setting),
                start_from=_demo("demo-sfc-one").start_from | teachers,
            ),
        ),
        "demo-raft": (
            "SFC stage two, Accel with RAFT.",
            replace(
                _demo("demo"),
                method=sfc(stage, setting),
                start_from={
                    **_demo("demo").start_from,
                    **dict.fromkeys(FROM_STAGE_ONE, "demo-raft-one:segmenter.segnet"),
                    "segmenter.flownet": flow_net,
                    **teachers,
                },
            ),
        ),
    }
    for name, (description, recipe) in recipes.items():
        yield name, NamedRecipe(f"Embedded world: {description}", recipe)


DEMO_SYSTEM_RECIPES: dict[str, NamedRecipe] = {**dict(_rivals()), **dict(_propagation()), **dict(_raft())}
