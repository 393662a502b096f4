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

Stage one needs two target frames, stage two three. With `flow_weight` 0 the target frames are forwarded and the flow
loss is left out: the control.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from training.data.clip import Clip, LabelledClip
from training.methods.early_gradient import with_early_gradient
from training.methods.losses import prediction_flow_loss
from training.methods.method import Networks, Update
from training.methods.stage import StagedMethod
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.video_segmenter import VideoSegmenter


@dataclass(eq=False)
class Sfc(StagedMethod):
    """Adapts a segmenter to the target's flow."""

    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network, and the SFM
    flow_weight: float = 0.005  # lambda_f; the paper takes 0.005 in stage one, 0.001 in stage two; 0 is the control
    softmax_scale: float = 100.0  # lambda_s, Eq. 3

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {
            **super().networks(num_classes),
            "teacher_flow": self.teacher_flow.build(),
            "sfm": self.teacher_flow.build(),
        }

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains."""
        segmenter = self.stage.ready(networks)
        source_loss = self.stage.source_loss(segmenter, source)
        # Now, so that the graph of the source is gone when that of the target grows.
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}
        if self.flow_weight > 0:
            losses["flow"] = self.flow_weight * self._flow_loss(segmenter, networks, target)
        else:
            self.stage.move_statistics(segmenter, target.frames)
        yield Update("segmenter", losses)

    def _flow_loss(self, segmenter: VideoSegmenter, networks: Networks, target: Clip) -> Tensor:
        current, previous = target.frames[:, -1], target.frames[:, -2]
        levels = self.stage.levels_of_last_two(segmenter, target.frames)
        sfm, teacher_flow = cast("FlowNet", networks["sfm"]), cast("FlowNet", networks["teacher_flow"])
        with torch.no_grad():
            flow = teacher_flow(current, previous)

        def level_loss(*scores: Tensor) -> Tensor:
            enlarged = segmenter.upsample(scores[0]), segmenter.upsample(scores[1])
            loss = prediction_flow_loss(sfm, flow, enlarged, (current, previous), self.softmax_scale)
            return with_early_gradient(loss, scores)  # full-resolution maps of one level at a time

        return self.stage.weighted_sum(level_loss(*scores) for scores in zip(*levels, strict=True))
