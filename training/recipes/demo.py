"""The demo: a small Accel adapted from the source look of the embedded world to its target look, in minutes on a CPU.

The stages are those of the paper (SFC, AAAI 2023):

    demo-source-only-one   stage one on the source: a network of single frames
    demo-flow              a flow network on true source flow, in place of Flying Chairs
    demo-source-only       stage two on the source: Accel; its flow network is the teacher from here on
    demo-sfm               the segmentation-to-flow module, on source labels
    demo-sfc-one, demo     SFC stage one and stage two
    demo-control*          the same two with lambda_f = 0
    demo-augmented*        source-only with random colours, blur and noise: no target frame, and hard to beat
    demo-target-only*      the same two on target labels, as many steps: what could be reached
"""

from dataclasses import replace

from training.data.world.dataset import World, WorldFlow
from training.methods.flow_supervision import FlowSupervision
from training.methods.optimization import Adam, Poly
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.recipe import NamedRecipe, Recipe
from training.validation import FlowValidation, SegmentationValidation, SfmValidation

DEMO_SIZE = (96, 192)  # height and width in pixels
SOURCE = World(look="source", split="train", size=DEMO_SIZE, num_clips=160, num_frames=2)
SOURCE_FLOW = WorldFlow(look="source", split="train", size=DEMO_SIZE, num_clips=160)
SOURCE_VALIDATION = replace(SOURCE, split="val", num_clips=40)
SOURCE_VALIDATION_FLOW = replace(SOURCE_FLOW, split="val", num_clips=40)
TARGET = World(look="mid", split="train", size=DEMO_SIZE, num_clips=120, num_frames=3, seed=1)  # other streets
TARGET_VALIDATION = World(look="mid", split="val", size=DEMO_SIZE, num_clips=40, num_frames=2, seed=1)
TARGET_VALIDATION_FLOW = WorldFlow(look="mid", split="val", size=DEMO_SIZE, num_clips=40, seed=1)

FLOW_NET = FlowNetSConfig(width=0.375)
PER_FRAME = PerFrameConfig(backbone="resnet10_slim", auxiliary=True)
# A random merge layer takes thousands of steps to learn what the average of both branches is from the start.
ACCEL = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FLOW_NET, merge_start="average")
STAGE_ONE = StageOne(PER_FRAME, optimizer=Adam(learning_rate=1e-3), schedule=Poly())
ADAPTATION_STAGE_ONE = replace(STAGE_ONE, optimizer=Adam(learning_rate=5e-4))
STAGE_TWO = StageTwo(ACCEL, optimizer=Adam(learning_rate=2e-4), schedule=Poly())
STAGE_ONE_STEPS, ADAPTATION_STEPS, STAGE_TWO_STEPS = 1000, 200, 100
FROM_STAGE_ONE = ("segmenter.net_ref", "segmenter.net_update")

_stage_one = Recipe(
    method=Supervised(STAGE_ONE),
    source=SOURCE,
    target=TARGET,
    validation=SegmentationValidation(data=TARGET_VALIDATION),
    steps=STAGE_ONE_STEPS,
    source_batch=4,
    keep_best=False,  # choosing the best would use target labels
)
_stage_two = replace(
    _stage_one,
    method=Supervised(STAGE_TWO),
    steps=STAGE_TWO_STEPS,
    start_from={
        **dict.fromkeys(FROM_STAGE_ONE, "demo-source-only-one:segmenter.segnet"),
        "segmenter.flownet": "demo-flow:flow_net",
    },
)
_flow = replace(
    _stage_one,
    method=FlowSupervision(flow_net=FLOW_NET, optimizer=Adam(learning_rate=1e-3), schedule=Poly()),
    source=SOURCE_FLOW,
    validation=FlowValidation(data=SOURCE_VALIDATION_FLOW),
    steps=2500,
)
_sfm = replace(
    _stage_one,
    method=SfmPretraining(flow_net=FLOW_NET, optimizer=Adam(learning_rate=3e-4)),
    validation=SfmValidation(data=SOURCE_VALIDATION),
    steps=300,
    source_batch=2,
    start_from=dict.fromkeys(("sfm", "teacher_flow"), "demo-source-only:segmenter.flownet"),
)
_FLOW_TEACHER = {"teacher_flow": "demo-source-only:segmenter.flownet", "sfm": "demo-sfm:sfm"}
_sfc_one = replace(
    _stage_one,
    method=Sfc(ADAPTATION_STAGE_ONE, teacher_flow=FLOW_NET, flow_weight=0.005),
    steps=ADAPTATION_STEPS,
    start_from={"segmenter": "demo-source-only-one:segmenter", **_FLOW_TEACHER},
)
_sfc_two = replace(
    _stage_two,
    method=Sfc(STAGE_TWO, teacher_flow=FLOW_NET, flow_weight=0.001),
    start_from={
        **dict.fromkeys(FROM_STAGE_ONE, "demo-sfc-one:segmenter.segnet"),
        "segmenter.flownet": "demo-flow:flow_net",
        **_FLOW_TEACHER,
    },
)


def _without_flow_loss(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, Sfc)
    return replace(recipe, method=replace(recipe.method, flow_weight=0.0))


def _starting_from(recipe: Recipe, stage_one: str) -> Recipe:
    origins = dict.fromkeys(FROM_STAGE_ONE, f"{stage_one}:segmenter.segnet")
    return replace(recipe, start_from={**recipe.start_from, **origins})


def _augmented(recipe: Recipe) -> Recipe:
    return replace(recipe, augment_source=True)


def _on_target(recipe: Recipe) -> Recipe:
    return replace(recipe, source=TARGET)


DEMO_RECIPES: dict[str, NamedRecipe] = {
    "demo-source-only-one": NamedRecipe("Embedded world: stage one on the source.", _stage_one),
    "demo-flow": NamedRecipe("Embedded world: a flow network on true source flow.", _flow),
    "demo-source-only": NamedRecipe("Embedded world: Accel on the source.", _stage_two),
    "demo-sfm": NamedRecipe("Embedded world: the segmentation-to-flow module.", _sfm),
    "demo-sfc-one": NamedRecipe("Embedded world: SFC stage one.", _sfc_one),
    "demo": NamedRecipe("Embedded world: SFC stage two, the adapted Accel.", _sfc_two),
    "demo-control-one": NamedRecipe("Embedded world: stage one without the flow loss.", _without_flow_loss(_sfc_one)),
    "demo-control": NamedRecipe(
        "Embedded world: Accel without the flow loss.", _starting_from(_without_flow_loss(_sfc_two), "demo-control-one")
    ),
    "demo-augmented-one": NamedRecipe(
        "Embedded world: stage one on the source in random colours.", _augmented(_stage_one)
    ),
    "demo-augmented": NamedRecipe(
        "Embedded world: Accel on the source in random colours.",
        _starting_from(_augmented(_stage_two), "demo-augmented-one"),
    ),
    "demo-target-only-one": NamedRecipe(
        "Embedded world: stage one on target labels.",
        replace(_on_target(_stage_one), steps=STAGE_ONE_STEPS + ADAPTATION_STEPS),
    ),
    "demo-target-only": NamedRecipe(
        "Embedded world: Accel on target labels.", _starting_from(_on_target(_stage_two), "demo-target-only-one")
    ),
}
