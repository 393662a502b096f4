"""Trains the two classifiers of the flow's likelihood ratio on labelled source clips.

See `training.models.flow_ratio`. Minimised is the cross entropy of both with the last frame's labels at a quarter of
the resolution, where flow is; flow is that of a frozen network, so that the ratio knows its mistakes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.data.clip import Clip, LabelledClip
from training.methods.losses import cross_entropy
from training.methods.method import Method, Networks, Update
from training.methods.optimization import Adam, OptimizerSpec, ParameterGroup, Poly, Schedule
from training.models.flow_ratio import FlowRatio
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig


@dataclass(eq=False)
class FlowRatioPretraining(Method[LabelledClip]):
    """Trains "flow_ratio" on the flow of the frozen "teacher_flow"; the target domain is not looked at."""

    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network
    width: int = 32  # channels of either classifier
    optimizer: OptimizerSpec = field(default_factory=lambda: Adam(learning_rate=2e-3))  # of both
    schedule: Schedule = field(default_factory=Poly)  # of the learning rate

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {"flow_ratio": FlowRatio(num_classes, self.width), "teacher_flow": self.teacher_flow.build()}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return {"flow_ratio": self.optimizer.build([ParameterGroup(list(networks["flow_ratio"].parameters()))])}

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """See `Method.learning_rate_factor`."""
        return self.schedule.factor(step, steps)

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return 0

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source."""
        del target
        with_flow, of_position = flow_ratio_losses(networks, source)
        yield Update("flow_ratio", {"with_flow": with_flow, "of_position": of_position})


def flow_ratio_losses(networks: Networks, clip: LabelledClip) -> tuple[Tensor, Tensor]:
    """Cross entropy, in nats, of the classifier that knows flow and position, and of that which knows position."""
    flow_ratio, teacher_flow = cast("FlowRatio", networks["flow_ratio"]), cast("FlowNet", networks["teacher_flow"])
    with torch.no_grad():
        flow = teacher_flow(clip.frames[:, -1], clip.frames[:, -2])
    with_flow, of_position = flow_ratio.scores(flow)
    labels = clip.quarter_labels
    return cross_entropy(with_flow, labels), cross_entropy(of_position.expand_as(with_flow), labels)
