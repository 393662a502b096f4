"""A mean teacher that is told by the target's flow what its eyes may miss.

    z_teacher + mu R(F(X_t, X_{t-1}))   in place of z_teacher

R is the frozen likelihood ratio of `training.models.flow_ratio`, at a quarter of the resolution and enlarged, F a
frozen flow network. Probabilities are those of the sum, all else is `mixed_teacher`: the student is given no ratio, and
needs none later.
"""

from dataclasses import dataclass, field
from typing import cast

from torch import Tensor

from training.methods.method import Networks
from training.methods.mixed_teacher import MixedTeacher
from training.methods.pseudo_labels import resize_scores
from training.models.flow_ratio import FlowRatio
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig


@dataclass(eq=False)
class FlowRatioTeacher(MixedTeacher):
    """`MixedTeacher` whose teacher's scores get the flow's likelihood ratio."""

    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network
    ratio_width: int = 32  # channels of the frozen classifiers of the ratio
    ratio_weight: float = 0.5  # mu, of the ratio's logarithm

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {
            **super().networks(num_classes),
            "teacher_flow": self.teacher_flow.build(),
            "flow_ratio": FlowRatio(num_classes, self.ratio_width),
        }

    def teacher_scores(self, networks: Networks, frames: Tensor) -> Tensor:
        """See `MeanTeacher.teacher_scores`."""
        scores = super().teacher_scores(networks, frames)
        flow = cast("FlowNet", networks["teacher_flow"])(frames[:, -1], frames[:, -2])
        ratio = cast("FlowRatio", networks["flow_ratio"])(flow)
        return scores + self.ratio_weight * resize_scores(ratio, scores.shape[-2:])
