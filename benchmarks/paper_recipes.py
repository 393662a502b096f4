"""The recipe of every system of the tables, on the embedded world ("demo") and on the benchmarks of the paper.

Most are recipes of `training.recipes`. What only the tables need is made of those here, the same way for all families:

    *-two                         stage two alone, on the SegNet of source-only (Table 3)
    dff-control, raft-control, .. the method's training without its flow loss
    augmented, dff-augmented, ... source-only with the source in random colours
    target-only, ...              labels of the target, as many steps as SFC takes from where source-only begins
    segnet-on-target              stage one on target labels, as long as on the source (Fig. 2)
    flow-on-target                the flow network on the target's true flow (Fig. 2; the world alone has any)

No checkpoint is chosen by target labels: where a recipe would, as those of the paper do, the last one counts. Some are
validated more than their recipes say, which changes nothing about the training: stage one of SFC and its control ten
times with the error of Fig. 5, and where a checkpoint is chosen without labels, the mIoU of all it is chosen among.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from training.data import World, WorldFlow
from training.methods.flow_supervision import FlowSupervision
from training.methods.sfc import Sfc
from training.methods.supervised import Supervised
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes.rivals import RIVALS
from training.validation import (
    ConfidenceValidation,
    FlowConsistencyValidation,
    SegmentationValidation,
    WatchedValidation,
)

Family = Literal["demo", "viper", "synthia"]
FAMILIES: tuple[Family, ...] = ("demo", "viper", "synthia")
NUM_CURVE_POINTS = 10  # validations of a run that Fig. 5 is drawn of
BRANCHES = ("segmenter.net_ref", "segmenter.net_update")
_MODELS = ("dff", "da-vss", "raft")
_ALONE = ("sfc", "control", "da-vsn", "tps")  # stage two on the SegNet of source-only
_SHORT_DEMO_NAMES = {
    "sfc": "demo", "dff-sfc": "demo-dff", "da-vss-sfc": "demo-da-vss", "raft-sfc": "demo-raft",
    "raft-sfc-one": "demo-raft-one",
}  # fmt: skip


def recipe_name(family: Family, system: str) -> str:
    """What the recipe of a system is called."""
    if family == "demo":
        return _SHORT_DEMO_NAMES.get(system, f"demo-{system}")
    return f"{family}-accel-{system}" if system in ("sfc", *RIVALS) else f"{family}-{system}"


def recipes_of(family: Family) -> dict[str, Recipe]:
    """All recipes of a family by name."""
    own = {name: named.recipe for name, named in RECIPES.items() if name.split("-")[0] == family}
    for name, recipe in _derived(family, own):
        own.setdefault(name, recipe)  # some families have some of them
    for system in ("sfc-one", "control-one"):
        name = recipe_name(family, system)
        own[name] = _with_curve(own[name])
    return {name: _without_target_labels(_watched(recipe)) for name, recipe in own.items()}


def _derived(family: Family, own: dict[str, Recipe]) -> Iterator[tuple[str, Recipe]]:
    def named(system: str) -> str:
        return recipe_name(family, system)

    def of(system: str) -> Recipe:
        return own[named(system)]

    one, two = of("source-only-one"), of("source-only")
    method_steps = of("sfc-one").steps + (one.steps if named("source-only-one") in of("sfc-one").prerequisites() else 0)
    yield named("augmented-one"), replace(one, augment_source=True)
    yield named("target-only-one"), replace(_on_target(one), steps=method_steps)
    yield named("segnet-on-target"), _on_target(one)
    for prefix in ("", *(f"{model}-" for model in _MODELS)):
        adapted, plain = of(f"{prefix}sfc"), two if not prefix else of(f"{prefix}source-only")
        yield named(f"{prefix}control"), _on_stage_one(_without_flow_loss(adapted), named("control-one"))
        augmented = replace(plain, augment_source=True)
        yield named(f"{prefix}augmented"), _on_stage_one(augmented, named("augmented-one"))
        oracle = replace(_on_target(plain), steps=adapted.steps)
        yield named(f"{prefix}target-only"), _on_stage_one(oracle, named("target-only-one"))
    for system in _ALONE:
        yield named(f"{system}-two"), _on_stage_one(of(system), named("source-only-one"))
    if family == "demo":
        flow = of("flow")
        target = two.target
        assert isinstance(flow.method, FlowSupervision)
        assert isinstance(target, World)
        on_target = WorldFlow(
            look=target.look, split="train", size=target.size, num_clips=target.num_clips, seed=target.seed
        )
        yield named("flow-on-target"), replace(flow, source=on_target)


def _on_stage_one(recipe: Recipe, stage_one: str) -> Recipe:
    """Of stage two, with the backbones of another run."""
    branches = [part for part in recipe.start_from if part in BRANCHES]
    return replace(recipe, start_from=recipe.start_from | dict.fromkeys(branches, f"{stage_one}:segmenter.segnet"))


def _without_flow_loss(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, Sfc)
    return replace(recipe, method=replace(recipe.method, flow_weight=0.0))


def _on_target(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, Supervised)
    return replace(recipe, source=recipe.target)


def _without_target_labels(recipe: Recipe) -> Recipe:
    return replace(recipe, keep_best=False) if isinstance(recipe.validation, SegmentationValidation) else recipe


def _watched(recipe: Recipe) -> Recipe:
    if not isinstance(recipe.validation, ConfidenceValidation):
        return recipe
    return replace(recipe, validation=WatchedValidation(data=recipe.validation.data, choice=recipe.validation))


def _with_curve(recipe: Recipe) -> Recipe:
    validation = FlowConsistencyValidation(data=recipe.validation.data)
    return replace(recipe, validation=validation, validate_every=max(1, recipe.steps // NUM_CURVE_POINTS))
