"""Ways to train, by name."""

from typing import Any

from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method
from training.methods.sfc import SfcStageOne, SfcStageTwo
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.supervised import SupervisedStageOne, SupervisedStageTwo

__all__ = ["METHODS"]

METHODS: dict[str, type[Method[Any]]] = {  # Any: of labelled clips or of clips with flow
    "supervised_stage_one": SupervisedStageOne,
    "supervised_stage_two": SupervisedStageTwo,
    "flow_supervision": FlowSupervision,
    "sfm_pretraining": SfmPretraining,
    "distortion_pretraining": DistortionPretraining,
    "sfc_stage_one": SfcStageOne,
    "sfc_stage_two": SfcStageTwo,
}
