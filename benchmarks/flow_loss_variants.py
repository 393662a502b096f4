"""What is varied about SFC's flow loss, one thing at a time, in stage one on the embedded world.

A variant changes some of the recipes that end in SFC's stage one and its control, which trains without the flow loss;
whatever starts from a changed one is trained anew. A ground changes the world that all of it happens in.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from benchmarks.paper_recipes import recipe_name
from benchmarks.paper_scales import Scale, Setting, changed_parts, scaled_recipes
from benchmarks.paper_stages import RecipesOf
from training.data import World
from training.methods.sfc import Sfc
from training.methods.stage import StagedMethod
from training.models.flownet_s import FlowNetSConfig
from training.recipe import Recipe

Change = Callable[[str, Recipe], Recipe]  # of the system's name, as in `paper_recipes`
SFC, CONTROL = "sfc-one", "control-one"
SFM_STEPS, COLD_STEPS, FLOW_WIDTH = 4, 5, 2  # factors


class Variant(NamedTuple):
    """What is asked by changing what."""

    title: str
    change: Change


class Ground(NamedTuple):
    """A world to try the paper's values in."""

    title: str
    scale: Callable[[Scale], Scale]
    recipes_of: RecipesOf


def _only(*systems: str, change: Callable[[Recipe], Recipe]) -> Change:
    return lambda system, recipe: change(recipe) if system in systems else recipe


def _flow_loss(**values: Any) -> Change:  # Any: mypy does not look up fields by name
    def change(recipe: Recipe) -> Recipe:
        assert isinstance(recipe.method, Sfc)
        return replace(recipe, method=replace(recipe.method, **values))

    return _only(SFC, change=change)


def _with_frozen_statistics(recipe: Recipe) -> Recipe:
    assert isinstance(recipe.method, StagedMethod)
    stage: Any = recipe.method.stage  # Any: mypy does not know that every stage is a dataclass
    return replace(recipe, method=replace(recipe.method, stage=replace(stage, freeze_bn=True)))


def _from_scratch(recipe: Recipe) -> Recipe:
    start_from = {part: origin for part, origin in recipe.start_from.items() if part != "segmenter"}
    return replace(recipe, steps=COLD_STEPS * recipe.steps, start_from=start_from)


def _longer(recipe: Recipe) -> Recipe:
    return replace(recipe, steps=SFM_STEPS * recipe.steps)


def _wider(recipe: Recipe) -> Recipe:
    def widen(value: Any) -> Any:  # Any: any part of a recipe
        return replace(value, width=FLOW_WIDTH * value.width) if isinstance(value, FlowNetSConfig) else value

    return changed_parts(recipe, widen)


VARIANTS: dict[str, Variant] = {
    "paper": Variant("the paper's: lambda_f 0.005, lambda_s 100", lambda _, recipe: recipe),
    "flow-weight-0.05": Variant("lambda_f 0.05", _flow_loss(flow_weight=0.05)),
    "flow-weight-0.5": Variant("lambda_f 0.5", _flow_loss(flow_weight=0.5)),
    "softmax-scale-10": Variant("lambda_s 10", _flow_loss(softmax_scale=10.0)),
    "softmax-scale-1": Variant("lambda_s 1", _flow_loss(softmax_scale=1.0)),
    "long-sfm": Variant(f"the SFM trained {SFM_STEPS} times as long", _only("sfm", change=_longer)),
    "wide-flow": Variant(
        f"FlowNet and SFM {FLOW_WIDTH} times as wide", _only("flow", "source-only", "sfm", SFC, CONTROL, change=_wider)
    ),
    "from-scratch": Variant("from random weights, as long as source-only", _only(SFC, CONTROL, change=_from_scratch)),
    "frozen-bn": Variant(
        "BatchNorm's statistics kept as the source's", _only(SFC, CONTROL, change=_with_frozen_statistics)
    ),
}
CONDITIONED = "conditioned"  # the variant that has a recipe of its own
TITLES = {**{name: variant.title for name, variant in VARIANTS.items()}, CONDITIONED: "the SFM is told the class"}


def systems_of(variant: str, recipes: Mapping[str, Recipe]) -> tuple[str, str]:
    """The names of SFC and of its control."""
    if variant == CONDITIONED:
        return "conditioned-one", CONTROL
    return tuple(  # type: ignore[return-value]  # two of two
        f"{system}-{variant}" if recipe_name("demo", f"{system}-{variant}") in recipes else system
        for system in (SFC, CONTROL)
    )


def varied_recipes(setting: Setting, scale: Scale, seed: int) -> dict[str, Recipe]:
    """Those of the world, and of every variant what it changes."""
    recipes = scaled_recipes(setting, scale, seed)
    found = dict(recipes)
    for name, variant in VARIANTS.items():
        for system in (SFC, CONTROL):
            _add(found, recipes, recipe_name("demo", system), name, variant.change)
    return found


def _add(found: dict[str, Recipe], recipes: Mapping[str, Recipe], name: str, variant: str, change: Change) -> str:
    """Adds a recipe and those it starts from as they are after a change; what the first is called then."""
    recipe = change(name.removeprefix("demo-"), recipes[name])
    names = {needed: _add(found, recipes, needed, variant, change) for needed in recipe.prerequisites()}
    origins = {part: origin.split(":") for part, origin in recipe.start_from.items()}
    recipe = replace(recipe, start_from={part: f"{names[run]}:{of}" for part, (run, of) in origins.items()})
    if recipe == recipes[name]:
        return name
    found[f"{name}-{variant}"] = recipe
    return f"{name}-{variant}"


def faster_recipes(setting: Setting, scale: Scale, seed: int) -> dict[str, Recipe]:
    """Those of the world where everything moves twice as fast."""

    def hurry(value: Any) -> Any:  # Any: any part of a recipe
        return replace(value, frame_step=2) if isinstance(value, World) else value

    return {name: changed_parts(recipe, hurry) for name, recipe in scaled_recipes(setting, scale, seed).items()}


def _larger(scale: Scale) -> Scale:
    height, width = scale.size
    return replace(scale, size=(height * 3 // 2, width * 3 // 2))


GROUNDS: dict[str, Ground] = {
    "as-is": Ground("the world of the tables", lambda scale: scale, varied_recipes),
    "faster": Ground("all motion twice as fast", lambda scale: scale, faster_recipes),
    "larger": Ground("frames 1.5 times as high and wide", _larger, scaled_recipes),
}
