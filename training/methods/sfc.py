"""Adaptation by semantic-flow consistency, the method of the project.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023. Supervision on the source, and on unlabelled target frames the
demand that the flow implied by the predictions (through the frozen SFM) be the flow that the frozen source-trained flow
network sees:

    P = softmax(lambda_s z);   L_flow = mean || sum over c of SFM([P_t^c X_t, P_k^c X_k]) - F(X_t, X_k) ||
    stage one:  L_source + lambda_f (L_flow of the main classifier + 0.1 L_flow of the auxiliary one)
    stage two:  L_source + lambda_f L_flow of the merged scores of frames t and t - 1, each from its own pair

As in the released code: the error is averaged over quarter-resolution pixels, gradient reaches the predictions of both
frames, and BatchNorm is in training mode everywhere. Departures: losses are defined per sample, where the released code
is only right for one; SFM and teacher have no gradients, where it computes and drops them; classes that underflow to
zero are not computed; gradients of the source are taken before the target is forwarded, as there, and flow losses are
turned into gradients of the scores one classifier at a time; while both backbones of stage two have the same weights,
the frame that both look at is forwarded once (`twin_backbones`). All leave its results as they are. The fixed backbones
of stage two need no care: none of their parameters and inputs requires a gradient, so autograd keeps nothing of them.

With `flow_weight` 0 the target frames are forwarded and the flow loss is left out: the control.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.data.clip import Clip, LabelledClip
from training.methods.early_gradient import with_early_gradient
from training.methods.losses import prediction_flow_loss
from training.methods.method import Method, Networks, Update
from training.methods.optimization import OptimizerSpec, Poly, RepeatedSgd, Schedule, Sgd, WarmUp
from training.methods.parameter_groups import freeze_statistics, stage_one_groups, stage_two_groups
from training.methods.supervised import (
    move_statistics,
    stage_one_loss,
    stage_two_loss,
)
from training.methods.twin_backbones import scores_of_last_two
from training.models.accel import Accel, AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.per_frame import PerFrame, PerFrameConfig


@dataclass(eq=False)
class SfcStageOne(Method[LabelledClip]):
    """Adapts the segmentation network of single frames; needs two target frames."""

    segmenter: PerFrameConfig = field(default_factory=PerFrameConfig)  # the network
    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network, and the SFM
    optimizer: OptimizerSpec = field(default_factory=RepeatedSgd)  # classifiers take 10 times its learning rate
    schedule: Schedule = field(default_factory=Poly)  # of the learning rate
    flow_weight: float = 0.005  # lambda_f; 0 is the control
    softmax_scale: float = 100.0  # lambda_s, Eq. 3
    auxiliary_weight: float = 0.1  # of the auxiliary classifier's cross entropy and flow loss
    exact_bn: bool = True  # forward the earlier source frame for BatchNorm's statistics, as the official code does

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {
            "segmenter": self.segmenter.build(num_classes),
            "teacher_flow": self.teacher_flow.build(),
            "sfm": self.teacher_flow.build(),
        }

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        segmenter = cast("PerFrame", networks["segmenter"])
        return {"segmenter": self.optimizer.build(stage_one_groups(segmenter.segnet))}

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains."""
        segmenter = cast("PerFrame", networks["segmenter"])
        source_loss = stage_one_loss(segmenter, source, self.auxiliary_weight, self.exact_bn)
        # Now, so that the graph of the source is gone when that of the target grows.
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}
        if self.flow_weight > 0:
            losses["flow"] = self.flow_weight * self._flow_loss(segmenter, networks, target)
        else:
            move_statistics(segmenter, target.frames[:, -2:])
        yield Update("segmenter", losses)

    def _flow_loss(self, segmenter: PerFrame, networks: Networks, target: Clip) -> Tensor:
        current, previous = target.frames[:, -1], target.frames[:, -2]
        # The earlier frame first: the order decides BatchNorm's running statistics.
        previous_levels = segmenter.segnet.level_scores(previous)
        current_levels = segmenter.segnet.level_scores(current)
        sfm, flow = cast("FlowNet", networks["sfm"]), _teacher_flow(networks, current, previous)

        def level_loss(*scores: Tensor) -> Tensor:
            enlarged = segmenter.upsample(scores[0]), segmenter.upsample(scores[1])
            loss = prediction_flow_loss(sfm, flow, enlarged, (current, previous), self.softmax_scale)
            return with_early_gradient(loss, scores)  # full-resolution maps of one level at a time

        main, *auxiliary = (level_loss(*scores) for scores in zip(current_levels, previous_levels, strict=True))
        return torch.stack([main, *(self.auxiliary_weight * loss for loss in auxiliary)]).sum()


@dataclass(eq=False)
class SfcStageTwo(Method[LabelledClip]):
    """Adapts Accel around fixed backbones; needs three target frames."""

    segmenter: AccelConfig = field(default_factory=AccelConfig)  # the networks
    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network, and the SFM
    optimizer: OptimizerSpec = field(default_factory=lambda: Sgd(learning_rate=5e-4))  # of all that is trained
    schedule: Schedule = field(default_factory=WarmUp)  # of the learning rate
    flow_weight: float = 0.001  # lambda_f; 0 is the control
    softmax_scale: float = 100.0  # lambda_s, Eq. 3
    freeze_bn: bool = False  # keep the fixed backbones' BatchNorm statistics too; the official code lets them move

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {
            "segmenter": self.segmenter.build(num_classes),
            "teacher_flow": self.teacher_flow.build(),
            "sfm": self.teacher_flow.build(),
        }

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return {"segmenter": self.optimizer.build(stage_two_groups(cast("Accel", networks["segmenter"])))}

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains."""
        segmenter = cast("Accel", networks["segmenter"])
        if self.freeze_bn:
            freeze_statistics(segmenter)
        losses = {"source": with_early_gradient(stage_two_loss(segmenter, source), list(segmenter.parameters()))}
        if self.flow_weight > 0:
            losses["flow"] = self.flow_weight * self._flow_loss(segmenter, networks, target)
        else:
            with torch.no_grad():
                scores_of_last_two(segmenter, target.frames)
        yield Update("segmenter", losses)

    def _flow_loss(self, segmenter: Accel, networks: Networks, target: Clip) -> Tensor:
        current, previous = target.frames[:, -1], target.frames[:, -2]
        scores = scores_of_last_two(segmenter, target.frames)
        sfm, flow = cast("FlowNet", networks["sfm"]), _teacher_flow(networks, current, previous)
        return prediction_flow_loss(sfm, flow, scores, (current, previous), self.softmax_scale)


@torch.no_grad()
def _teacher_flow(networks: Networks, current: Tensor, previous: Tensor) -> Tensor:
    return cast("FlowNet", networks["teacher_flow"])(current, previous)
