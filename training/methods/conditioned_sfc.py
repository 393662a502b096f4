"""SFC with a segmentation-to-flow module that is told which class it looks at. Not the paper's.

See `training.models.conditioned_sfm`. Losses, frozen networks and stages are those of `sfm_pretraining` and `sfc`, and
the module starts from the same flow network. On a prototype of the embedded world its error told permuted classes from
the truth, which the paper's cannot, its gradient hardly did, and adaptation gained nothing; a strong weight was
exploited. It is here to be measured beside the paper's.
"""

from dataclasses import dataclass

from training.methods.method import Networks
from training.methods.sfc import Sfc
from training.methods.sfm_pretraining import SfmPretraining
from training.models.conditioned_sfm import ConditionedSfm
from training.models.flownet_s import FlowNetS
from training.models.optical_flow import FlowNetConfig


@dataclass(eq=False)
class ConditionedSfmPretraining(SfmPretraining):
    """`SfmPretraining` of a module that is told the class; `flow_net` is a FlowNetS."""

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {**super().networks(num_classes), "sfm": _conditioned(self.flow_net, num_classes)}


@dataclass(eq=False)
class ConditionedSfc(Sfc):
    """`Sfc` with a module that is told the class; `teacher_flow` is a FlowNetS."""

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {**super().networks(num_classes), "sfm": _conditioned(self.teacher_flow, num_classes)}


def _conditioned(config: FlowNetConfig, num_classes: int) -> ConditionedSfm:
    flow_net = config.build()
    if not isinstance(flow_net, FlowNetS):
        raise ValueError(
            f"the flow network is {type(flow_net).__name__}, a class changes maps of FlowNetS: choose that, or SFC with"
            " a module that is not told the class"
        )
    return ConditionedSfm(flow_net, num_classes)
