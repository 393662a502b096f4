"""The methods that SFC is compared and combined with, on the real benchmarks, in both stages of Accel.

For BENCHMARK "viper" and "synthia" and METHOD advent, pixmatch, da-vsn, tps, sfc-tpl and advent-tpl:

    BENCHMARK-METHOD-one      stage one, from the ImageNet weights
    BENCHMARK-accel-METHOD    stage two, from that and Flying Chairs

Optimizers, rates and lengths of stage one are those of each method's released code, as is what its BatchNorm trains;
the paper trains all in SFC's two stages and says no more, so PixMatch and the combinations with SFC take those of SFC's
stage one, and every method those of SFC's stage two. Weights that a method starts with are in `start_from`.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from training.methods.optimization import Clipped, Poly, RepeatedSgd
from training.methods.stage import StageOne, StageTwo
from training.models.flownet_s import FlowNetSConfig
from training.recipe import NamedRecipe, Recipe
from training.recipes.benchmarks import BENCHMARKS, FROM_IMAGENET, accel_from, benchmark_recipe, teachers_of
from training.recipes.rivals import RIVALS, Rival, Setting

DECAY_STEPS = 250_000  # of AdvEnt, DA-VSN and TPS, wherever they stop
SETTINGS = {
    "viper": Setting(FlowNetSConfig(), pseudo_weight=0.1, crop_size=512),
    "synthia": Setting(FlowNetSConfig(), pseudo_weight=1.0, crop_size=512),
}
TPS_RATES = {"viper": 1e-4, "synthia": 2.5e-4}
STAGE_TWO_STEPS = 160_000


def _stage_one(method: str, benchmark: str) -> tuple[StageOne, int]:
    """How a method is trained in stage one, and for how many steps."""
    of_advent = StageOne(schedule=Poly(length=DECAY_STEPS / 120_000), exact_bn=False, train_bn=False)
    of_tps = replace(
        of_advent,
        optimizer=RepeatedSgd(learning_rate=TPS_RATES[benchmark]),
        schedule=Poly(length=DECAY_STEPS / 40_000),
    )
    stages = {
        "advent": (of_advent, 120_000),
        "advent-tpl": (of_advent, 120_000),
        "pixmatch": (StageOne(), 120_000),
        "da-vsn": (replace(of_advent, optimizer=Clipped(RepeatedSgd())), 120_000),
        "tps": (of_tps, 40_000),
        "sfc-tpl": (StageOne(), 120_000),
    }
    return stages[method]


def _stage_two(method: str) -> StageTwo:
    stage = StageTwo()
    return replace(stage, optimizer=Clipped(stage.optimizer)) if method == "da-vsn" else stage


def _both_stages(method: str, rival: Rival, benchmark: str) -> tuple[Recipe, Recipe]:
    setting, data = SETTINGS[benchmark], BENCHMARKS[benchmark]
    teachers = {network: origin for network, origin in teachers_of(benchmark).items() if network in rival.teachers}
    stage_one, steps = _stage_one(method, benchmark)
    one = benchmark_recipe(data, rival.method(stage_one, setting), steps, FROM_IMAGENET | teachers)
    two = benchmark_recipe(
        data,
        rival.method(_stage_two(method), setting),
        STAGE_TWO_STEPS,
        accel_from(f"{benchmark}-{method}-one") | teachers,
        num_target_frames=3,
    )
    return one, two


def _recipes() -> Iterator[tuple[str, NamedRecipe]]:
    for benchmark, (method, rival) in itertools.product(BENCHMARKS, RIVALS.items()):
        one, two = _both_stages(method, rival, benchmark)
        yield f"{benchmark}-{method}-one", NamedRecipe(f"{benchmark}: {rival.title}, stage one.", one)
        yield f"{benchmark}-accel-{method}", NamedRecipe(f"{benchmark}: {rival.title}, stage two.", two)


PAPER_RIVAL_RECIPES: dict[str, NamedRecipe] = dict(_recipes())
