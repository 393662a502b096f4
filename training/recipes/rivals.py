"""The methods that SFC is compared and combined with, as methods of a stage.

Here is what a method is, whatever it is trained on. Learning rates and numbers of steps are the business of the
recipes on the benchmarks (`paper_rivals`) and on the embedded world (`demo_systems`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from training.methods.advent import AdvEnt
from training.methods.da_vsn import DaVsn
from training.methods.method import Method
from training.methods.pixmatch import PixMatch
from training.methods.sfc import Sfc
from training.methods.stage import Stage, StageOne
from training.methods.tpl import Tpl
from training.methods.tps import Tps
from training.models.optical_flow import FlowNetConfig


class Setting(NamedTuple):
    """What of a benchmark or a world matters to a method."""

    flow_net: FlowNetConfig  # of the frozen flow network and the SFM
    pseudo_weight: float  # lambda_T of TPS and TPL: 0.1 on VIPER, 1 on SYNTHIA
    crop_size: int  # pixels, side of what PixMatch's augmentation makes of a frame
    discriminator_width: int = 64  # channels after the first convolution of AdvEnt's and DA-VSN's; the papers' is 64


class Rival(NamedTuple):
    """A method that trains in both stages."""

    title: str
    method: Callable[[Stage, Setting], Method[Any]]  # Any: of labelled clips, as all of these are
    teachers: tuple[str, ...] = ()  # frozen networks it starts with: "teacher_flow" of source-only, "sfm" of its run


def sfc(stage: Stage, setting: Setting) -> Sfc:
    """SFC with the paper's weight of the stage."""
    return Sfc(stage, teacher_flow=setting.flow_net, flow_weight=0.005 if isinstance(stage, StageOne) else 0.001)


def _with_tpl(method: Callable[[Stage, Setting], Method[Any]]) -> Callable[[Stage, Setting], Method[Any]]:
    return lambda stage, setting: Tpl(method(stage, setting), setting.flow_net, pseudo_weight=setting.pseudo_weight)


def _advent(stage: Stage, setting: Setting) -> AdvEnt:
    return AdvEnt(stage, discriminator_width=setting.discriminator_width)


def _da_vsn(stage: Stage, setting: Setting) -> DaVsn:
    return DaVsn(stage, teacher_flow=setting.flow_net, discriminator_width=setting.discriminator_width)


RIVALS: dict[str, Rival] = {
    "advent": Rival("AdvEnt", _advent),
    "pixmatch": Rival("PixMatch", lambda stage, setting: PixMatch(stage, crop_size=setting.crop_size)),
    "da-vsn": Rival("DA-VSN", _da_vsn, teachers=("teacher_flow",)),
    "tps": Rival(
        "TPS",
        lambda stage, setting: Tps(stage, teacher_flow=setting.flow_net, pseudo_weight=setting.pseudo_weight),
        teachers=("teacher_flow",),
    ),
    "sfc-tpl": Rival("SFC with TPL", _with_tpl(sfc), teachers=("teacher_flow", "sfm")),
    "advent-tpl": Rival("AdvEnt with TPL", _with_tpl(_advent), teachers=("teacher_flow",)),
}
