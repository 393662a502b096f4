from dataclasses import fields

import pytest

from training.data import CityscapesSeq
from training.methods.optimization import Adam, Poly, RepeatedSgd, Sgd, WarmUp
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models.accel import AccelConfig
from training.models.per_frame import PerFrameConfig
from training.recipes import RECIPES


@pytest.mark.parametrize("benchmark", ["viper", "synthia"])
def test_the_papers_stages_have_the_released_hyperparameters(benchmark: str) -> None:
    one, two, sfm, sfc_one, sfc_two = (
        RECIPES[f"{benchmark}-{stage}"].recipe
        for stage in ("source-only-one", "source-only", "sfm", "sfc-one", "accel-sfc")
    )
    assert [recipe.steps for recipe in (one, two, sfm, sfc_one, sfc_two)] == [80_000, 80_000, 80_000, 120_000, 160_000]
    for recipe in (one, two, sfm, sfc_one, sfc_two):
        assert (recipe.source_batch, recipe.target_batch, recipe.augment_source) == (1, 1, False)
        assert recipe.keep_best

    assert isinstance(one.method, Supervised)
    assert isinstance(sfc_one.method, Sfc)
    for stage_one in (one.method.stage, sfc_one.method.stage):
        assert isinstance(stage_one, StageOne)
        assert stage_one.optimizer == RepeatedSgd(learning_rate=2.5e-4, momentum=0.9, weight_decay=5e-4)
        assert stage_one.schedule == Poly(power=0.9)
        assert stage_one.auxiliary_weight == 0.1
        assert stage_one.exact_bn
        assert stage_one.train_bn
        assert stage_one.segmenter == PerFrameConfig("resnet101", auxiliary=True)
    assert (sfc_one.method.flow_weight, sfc_one.method.softmax_scale) == (0.005, 100)

    assert isinstance(two.method, Supervised)
    assert isinstance(sfc_two.method, Sfc)
    for stage_two in (two.method.stage, sfc_two.method.stage):
        assert isinstance(stage_two, StageTwo)
        assert stage_two.optimizer == Sgd(learning_rate=5e-4, momentum=0.9, weight_decay=5e-4)
        assert not stage_two.freeze_bn
        assert stage_two.segmenter == AccelConfig("resnet101", "resnet101", merge_start="random")
    assert (sfc_two.method.flow_weight, sfc_two.method.softmax_scale) == (0.001, 100)
    rates = [
        [5e-4 * stage.schedule.factor(step, 1) for step in (0, 1, 999, 1000, 1001)]
        for stage in (two.method.stage, sfc_two.method.stage)
    ]
    assert rates == [[5e-4, 5e-5, 5e-5, 5e-5, 5e-4], [5e-5, 5e-5, 5e-5, 5e-4, 5e-4]]

    assert isinstance(sfm.method, SfmPretraining)
    assert sfm.method.optimizer == Adam(learning_rate=1e-4, beta1=0.9, beta2=0.999, weight_decay=4e-4)
    assert sfm.validate_every == 4000


def test_warm_up_may_begin_a_step_late() -> None:
    assert [WarmUp(2, 0.1).factor(step, 9) for step in range(4)] == [0.1, 0.1, 1, 1]
    assert [WarmUp(2, 0.1, late=True).factor(step, 9) for step in range(4)] == [1, 0.1, 0.1, 1]


@pytest.mark.parametrize("benchmark", ["viper", "synthia"])
def test_the_control_is_the_method_but_for_the_flow_weight(benchmark: str) -> None:
    for sfc, control in (("sfc-one", "control-one"), ("accel-sfc", "control")):
        method, without = (RECIPES[f"{benchmark}-{name}"].recipe.method for name in (sfc, control))
        differing = [
            field.name for field in fields(method) if getattr(method, field.name) != getattr(without, field.name)
        ]
        assert differing == ["flow_weight"]


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("demo")])
def test_source_target_and_validation_share_their_classes(name: str) -> None:
    recipe = RECIPES[name].recipe
    assert recipe.source.label_space == recipe.target.label_space
    if isinstance(recipe.validation.data, CityscapesSeq):
        assert recipe.validation.data.label_space == recipe.target.label_space
        assert (recipe.validation.data.split, recipe.validation.data.size) == ("val", (512, 1024))
