import functools
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import nn

from training.data import CityscapesSeq
from training.methods.flow_supervision import FlowSupervision
from training.methods.mean_teacher import Teacher
from training.methods.method import Method, Networks
from training.methods.optimization import Adam, Clipped, OptimizerSpec, Poly, RepeatedSgd, Sgd, WarmUp
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.stage import Stage, StagedMethod, StageOne, StageTwo
from training.methods.supervised import Supervised
from training.methods.tpl import Tpl
from training.models.accel import AccelConfig
from training.models.per_frame import PerFrameConfig
from training.models.raft import RaftConfig
from training.recipes import RECIPES
from training.recipes.benchmarks import FLYING_CHAIRS, IMAGENET, RAFT_THINGS
from training.recipes.demo import TARGET_VALIDATION
from training.recipes.rivals import RIVALS
from training.validation import ConfidenceValidation

CONVERTED: dict[str, Method[Any]] = {  # Any: of both sources; what `training.convert` makes of official files
    IMAGENET: Supervised(StageOne()),
    FLYING_CHAIRS: FlowSupervision(),
    RAFT_THINGS: FlowSupervision(RaftConfig()),
}


@functools.cache
def networks_of(run: str) -> Networks:
    """Without memory for their weights."""
    method = CONVERTED[run] if run in CONVERTED else RECIPES[run].recipe.method
    with torch.device("meta"):
        return method.networks(RECIPES[run].recipe.source.label_space.num_classes if run in RECIPES else 15)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_starts_from_weights_that_fit(name: str) -> None:
    recipe, networks = RECIPES[name].recipe, networks_of(name)
    for part, origin in recipe.start_from.items():
        run, _, origin_part = origin.partition(":")
        network, _, inside = part.partition(".")
        origin_network, _, origin_inside = origin_part.partition(".")
        expected = shapes_of(networks[network].get_submodule(inside))
        trained = shapes_of(networks_of(run)[origin_network].get_submodule(origin_inside))
        assert {key: shape for key, shape in trained.items() if key in expected} == expected, f"{origin} for {part}"


def shapes_of(module: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


@pytest.mark.parametrize("name", RECIPES)
def test_frozen_networks_start_from_something(name: str) -> None:
    """A flow network or an SFM that is drawn and never trained would teach noise; an average starts as its student."""
    recipe, networks = RECIPES[name].recipe, networks_of(name)
    trained = set(recipe.method.optimizers(networks))
    started = {part.split(".")[0] for part in recipe.start_from}
    averages = {key for key, network in networks.items() if isinstance(network, Teacher)}
    assert set(networks) - trained - averages <= started


@pytest.mark.parametrize("name", RECIPES)
def test_target_clips_have_as_many_frames_as_the_method_looks_at(name: str) -> None:
    recipe = RECIPES[name].recipe
    assert recipe.target.num_frames >= recipe.method.num_target_frames()


@pytest.mark.parametrize("benchmark", ["viper", "synthia"])
@pytest.mark.parametrize("method", RIVALS)
def test_rivals_train_in_both_stages_with_the_released_hyperparameters(benchmark: str, method: str) -> None:
    one, two = (RECIPES[f"{benchmark}-{part}"].recipe for part in (f"{method}-one", f"accel-{method}"))
    stage_one, stage_two = stage_of(one.method), stage_of(two.method)
    assert isinstance(stage_one, StageOne)
    assert isinstance(stage_two, StageTwo)
    assert two.steps == 160_000
    assert stage_two.schedule == WarmUp()
    clipped = method == "da-vsn"
    optimizer: OptimizerSpec = Sgd(learning_rate=5e-4)
    assert stage_two.optimizer == (Clipped(optimizer, max_norm=1.0) if clipped else optimizer)
    # Rates halfway: AdvEnt, DA-VSN and TPS decay over 250,000 steps and stop before.
    rates = {
        "advent": (120_000, 2.5e-4 * (1 - 60 / 250) ** 0.9),
        "advent-tpl": (120_000, 2.5e-4 * (1 - 60 / 250) ** 0.9),
        "pixmatch": (120_000, 2.5e-4 * 0.5**0.9),
        "da-vsn": (120_000, 2.5e-4 * (1 - 60 / 250) ** 0.9),
        "tps": (40_000, (1e-4 if benchmark == "viper" else 2.5e-4) * (1 - 20 / 250) ** 0.9),
        "sfc-tpl": (120_000, 2.5e-4 * 0.5**0.9),
    }
    rate = stage_one.optimizer.optimizer.learning_rate if clipped else stage_one.optimizer.learning_rate  # type: ignore[attr-defined]  # all of these have one
    assert (one.steps, rate * one.method.learning_rate_factor(one.steps // 2, one.steps)) == (
        rates[method][0],
        pytest.approx(rates[method][1]),
    )
    assert stage_one.train_bn is (method in ("pixmatch", "sfc-tpl"))


def stage_of(method: Method[Any]) -> Stage:
    inner = method.method if isinstance(method, Tpl) else method
    assert isinstance(inner, StagedMethod)
    return inner.stage


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


@pytest.mark.parametrize("stage", ["-one", ""])
@pytest.mark.parametrize("name", ["r1", "mean-teacher", "mixed-teacher", "mixed-teacher-flow"])
def test_adapting_beyond_the_paper_looks_at_no_target_label(name: str, stage: str) -> None:
    """Not in choosing either, which is on streets that are neither trained nor evaluated on."""
    recipe = RECIPES[f"demo-{name}{stage}"].recipe
    assert isinstance(recipe.validation, ConfidenceValidation)
    assert recipe.source.look == "source"  # type: ignore[attr-defined]  # of the world
    assert recipe.validation.data.look == recipe.target.look  # type: ignore[attr-defined]  # of the world
    streets = [each.seed for each in (recipe.validation.data, recipe.target, TARGET_VALIDATION)]  # type: ignore[attr-defined]  # of the world
    assert streets[0] not in streets[1:]
    assert recipe.keep_best


@pytest.mark.parametrize("stage", ["-one", ""])
def test_training_with_a_mean_teacher_is_r1_but_for_the_teacher(stage: str) -> None:
    taught, r1 = (RECIPES[f"demo-{name}{stage}"].recipe for name in ("mean-teacher", "r1"))
    assert isinstance(r1.method, Supervised)
    assert r1.method.forward_target
    assert r1.method.stage == stage_of(taught.method)
    origins = {part: origin.replace("demo-mean-teacher", "demo-r1") for part, origin in taught.start_from.items()}
    assert replace(taught, method=r1.method, start_from=origins, validation=r1.validation) == r1
    assert replace(r1.validation, data=taught.validation.data) == r1.validation


def test_the_oracle_takes_as_many_steps_as_training_with_a_mean_teacher() -> None:
    steps = {
        name: RECIPES[f"demo-{name}"].recipe.steps for name in ("augmented-one", "mean-teacher-one", "mean-teacher")
    }
    oracle = [RECIPES[f"demo-long-target-only{stage}"].recipe.steps for stage in ("-one", "")]
    assert oracle == [steps["augmented-one"] + steps["mean-teacher-one"], steps["mean-teacher"]]


@pytest.mark.parametrize(
    ("name", "conditioned"), [("demo-sfm", "-sfm"), ("demo-sfc-one", "-one"), ("demo", "")], ids=lambda value: value
)
def test_conditioned_recipes_are_the_demos_but_for_the_module(name: str, conditioned: str) -> None:
    papers, ours = RECIPES[name].recipe, RECIPES[f"demo-conditioned{conditioned}"].recipe
    assert type(ours.method).__name__ == f"Conditioned{type(papers.method).__name__}"
    assert vars(ours.method) == vars(papers.method)
    assert replace(ours, method=papers.method, start_from=papers.start_from) == papers
