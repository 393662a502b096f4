"""Candidates for the recipe that closes most of the gap on the embedded world, and what they are compared with.

The parts: random colours on the source, target frames that move BatchNorm's statistics, an averaged teacher, objects of
the source in the target's frames. No flow loss, and no label of the target, in choosing the checkpoint neither. What
each part adds is in `benchmarks/README.md`.

    demo-augmented-one              of the demo: where all of these but the last start
    demo-r1(-one)                   target frames without a loss; the checkpoint that is surest
    demo-mean-teacher(-one)         with a mean teacher; the checkpoint that agrees most with it, here and below
    demo-mixed-teacher(-one)        and objects of the source in what the student sees
    demo-flow-ratio                 what flow says of a class, learnt on the source
    demo-mixed-teacher-flow(-one)   and a teacher who is told that
    demo-long-target-only(-one)     on target labels in random colours, as many steps: the gap is up to this
"""

from dataclasses import replace

from training.methods.flow_ratio_pretraining import FlowRatioPretraining
from training.methods.flow_ratio_teacher import FlowRatioTeacher
from training.methods.mean_teacher import MeanTeacher
from training.methods.mixed_teacher import MixedTeacher
from training.methods.optimization import Adam
from training.methods.supervised import Supervised
from training.recipe import NamedRecipe, Recipe
from training.recipes.demo import (
    DEMO_RECIPES,
    FLOW_NET,
    FROM_STAGE_ONE,
    SOURCE_VALIDATION,
    STAGE_ONE,
    STAGE_ONE_STEPS,
    STAGE_TWO,
    TARGET_VALIDATION,
)
from training.validation import AgreementValidation, ConfidenceValidation, FlowRatioValidation

RECOMMENDED = "demo-mixed-teacher"  # what we would take; beside it `demo`, SFC as published
TO_CHOOSE_BY = replace(TARGET_VALIDATION, seed=2)  # streets that are neither trained nor evaluated on
LONG_STAGE_ONE = replace(STAGE_ONE, optimizer=Adam(learning_rate=1e-3, weight_decay=1e-5))
LONG_STEPS = 1000


def _demo(name: str) -> Recipe:
    return DEMO_RECIPES[name].recipe


def _starting_from(recipe: Recipe, stage_one: str) -> Recipe:
    return replace(recipe, start_from={**recipe.start_from, **dict.fromkeys(FROM_STAGE_ONE, stage_one)})


def _without_teacher(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, MeanTeacher)
    surest = ConfidenceValidation(data=recipe.validation.data)
    return replace(recipe, method=Supervised(recipe.method.stage, forward_target=True), validation=surest)


_taught_one = replace(
    _demo("demo-augmented-one"),
    method=MeanTeacher(LONG_STAGE_ONE),
    validation=AgreementValidation(data=TO_CHOOSE_BY),
    steps=LONG_STEPS,
    start_from={"segmenter": "demo-augmented-one:segmenter"},
    source_batch=2,
    target_batch=2,
    validate_every=100,
    keep_best=True,
)
_taught = replace(
    _starting_from(_demo("demo-augmented"), "demo-mean-teacher-one:segmenter.segnet"),
    method=MeanTeacher(STAGE_TWO),
    validation=_taught_one.validation,
    target_batch=2,
    validate_every=20,
    keep_best=True,
)


def _mixed(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, MeanTeacher)
    return replace(recipe, method=MixedTeacher(recipe.method.stage))


_flow_ratio = replace(
    _demo("demo-sfm"),
    method=FlowRatioPretraining(FLOW_NET),
    validation=FlowRatioValidation(data=SOURCE_VALIDATION),
    steps=1000,
    source_batch=4,
    start_from={"teacher_flow": "demo-flow:flow_net"},
)


def _with_flow_ratio(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, MeanTeacher)
    return replace(
        recipe,
        method=FlowRatioTeacher(recipe.method.stage, teacher_flow=FLOW_NET),
        start_from={
            **recipe.start_from,
            "teacher_flow": "demo-flow:flow_net",
            "flow_ratio": "demo-flow-ratio:flow_ratio",
        },
    )


MEAN_TEACHER_RECIPES: dict[str, NamedRecipe] = {
    "demo-mean-teacher-one": NamedRecipe(
        "Embedded world: random source colours and a mean teacher, stage one.", _taught_one
    ),
    "demo-mean-teacher": NamedRecipe("Embedded world: random source colours and a mean teacher, Accel.", _taught),
    "demo-mixed-teacher-one": NamedRecipe(
        "Embedded world: a mean teacher, and source objects in target frames, stage one.", _mixed(_taught_one)
    ),
    "demo-mixed-teacher": NamedRecipe(
        "Embedded world: a mean teacher, and source objects in target frames, Accel.",
        _starting_from(_mixed(_taught), "demo-mixed-teacher-one:segmenter.segnet"),
    ),
    "demo-r1-one": NamedRecipe(
        "Embedded world: random source colours and target frames without a loss, stage one.",
        _without_teacher(_taught_one),
    ),
    "demo-r1": NamedRecipe(
        "Embedded world: random source colours and target frames without a loss, Accel.",
        _starting_from(_without_teacher(_taught), "demo-r1-one:segmenter.segnet"),
    ),
    "demo-flow-ratio": NamedRecipe("Embedded world: what flow says of a class beyond its position.", _flow_ratio),
    "demo-mixed-teacher-flow-one": NamedRecipe(
        "Embedded world: source objects in target frames, and a mean teacher that is told flow ratios, stage one.",
        _with_flow_ratio(_taught_one),
    ),
    "demo-mixed-teacher-flow": NamedRecipe(
        "Embedded world: source objects in target frames, and a mean teacher that is told flow ratios, Accel.",
        _starting_from(_with_flow_ratio(_taught), "demo-mixed-teacher-flow-one:segmenter.segnet"),
    ),
    "demo-long-target-only-one": NamedRecipe(
        "Embedded world: stage one on target labels in random colours, as long as with a mean teacher.",
        replace(_demo("demo-target-only-one"), steps=STAGE_ONE_STEPS + LONG_STEPS, augment_source=True),
    ),
    "demo-long-target-only": NamedRecipe(
        "Embedded world: Accel on target labels in random colours, after a stage one as long as that.",
        _starting_from(
            replace(_demo("demo-target-only"), augment_source=True), "demo-long-target-only-one:segmenter.segnet"
        ),
    ),
}
