"""Ways to train, by name."""

from typing import Any

from training.methods.advent import AdvEnt
from training.methods.conditioned_sfc import ConditionedSfc, ConditionedSfmPretraining
from training.methods.da_vsn import DaVsn
from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.flow_ratio_pretraining import FlowRatioPretraining
from training.methods.flow_ratio_teacher import FlowRatioTeacher
from training.methods.flow_supervision import FlowSupervision
from training.methods.mean_teacher import MeanTeacher
from training.methods.method import Method
from training.methods.mixed_teacher import MixedTeacher
from training.methods.pixmatch import PixMatch
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.supervised import Supervised
from training.methods.tpl import Tpl
from training.methods.tps import Tps

__all__ = ["METHODS"]

METHODS: dict[str, type[Method[Any]]] = {  # Any: of labelled clips or of clips with flow
    "supervised": Supervised,
    "flow_supervision": FlowSupervision,
    "sfm_pretraining": SfmPretraining,
    "distortion_pretraining": DistortionPretraining,
    "sfc": Sfc,
    "advent": AdvEnt,
    "da_vsn": DaVsn,
    "pixmatch": PixMatch,
    "tps": Tps,
    "tpl": Tpl,
    "mean_teacher": MeanTeacher,
    "mixed_teacher": MixedTeacher,
    "flow_ratio_pretraining": FlowRatioPretraining,
    "flow_ratio_teacher": FlowRatioTeacher,
    "conditioned_sfm_pretraining": ConditionedSfmPretraining,
    "conditioned_sfc": ConditionedSfc,
}
