"""SFC on the embedded world with a segmentation-to-flow module that is told the class, beside the paper's in `demo`.

demo-conditioned-sfm, demo-conditioned-one, demo-conditioned are demo-sfm, demo-sfc-one, demo in all else.
"""

from dataclasses import replace
from typing import cast

from training.methods.conditioned_sfc import ConditionedSfc, ConditionedSfmPretraining
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.recipe import NamedRecipe, Recipe
from training.recipes.demo import DEMO_RECIPES, FROM_STAGE_ONE

TEACHER = "demo-source-only:segmenter.flownet"


def _conditioned(name: str) -> Recipe:
    recipe = DEMO_RECIPES[name].recipe
    method = cast("Sfc", recipe.method)
    return replace(
        recipe,
        method=ConditionedSfc(method.stage, teacher_flow=method.teacher_flow, flow_weight=method.flow_weight),
        start_from={**recipe.start_from, "sfm": "demo-conditioned-sfm:sfm"},
    )


_sfm = DEMO_RECIPES["demo-sfm"].recipe
_sfm_method = cast("SfmPretraining", _sfm.method)
_two = _conditioned("demo")

CONDITIONED_RECIPES: dict[str, NamedRecipe] = {
    "demo-conditioned-sfm": NamedRecipe(
        "Embedded world: a segmentation-to-flow module that is told the class.",
        replace(
            _sfm,
            method=ConditionedSfmPretraining(_sfm_method.flow_net, _sfm_method.optimizer, _sfm_method.schedule),
            start_from={"sfm.flow_net": TEACHER, "teacher_flow": TEACHER},
        ),
    ),
    "demo-conditioned-one": NamedRecipe(
        "Embedded world: SFC whose module is told the class, stage one.", _conditioned("demo-sfc-one")
    ),
    "demo-conditioned": NamedRecipe(
        "Embedded world: SFC whose module is told the class, Accel.",
        replace(
            _two,
            start_from={**_two.start_from, **dict.fromkeys(FROM_STAGE_ONE, "demo-conditioned-one:segmenter.segnet")},
        ),
    ),
}
