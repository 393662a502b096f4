"""Both stages of SFC with labels alone: source-only, and target-only when the labelled clips are of the target.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023: the baseline rows and where adaptation starts from.

    stage one:  CE(up8 main) + 0.1 CE(up8 auxiliary) on the last frame, all of the segmentation network
    stage two:  CE(up4 merged) on the last frame of a pair; trains merge, flow network and both classifiers

BatchNorm is in training mode in both, so whatever is forwarded moves the running statistics. The official code forwards
the earlier source frame too (`exact_bn`), and its adaptation forwards target frames: `forward_target` does that and
nothing else, which is the control without which a gain of adaptation means little.
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
from training.methods.optimization import OptimizerSpec, Poly, RepeatedSgd, Schedule, Sgd, WarmUp
from training.methods.parameter_groups import freeze_statistics, stage_one_groups, stage_two_groups
from training.methods.twin_backbones import scores_of_last_two
from training.models.accel import Accel, AccelConfig
from training.models.per_frame import PerFrame, PerFrameConfig


@dataclass(eq=False)
class SupervisedStageOne(Method[LabelledClip]):
    """Trains the segmentation network of single frames."""

    segmenter: PerFrameConfig = field(default_factory=PerFrameConfig)  # the network
    optimizer: OptimizerSpec = field(default_factory=RepeatedSgd)  # classifiers take 10 times its learning rate
    schedule: Schedule = field(default_factory=Poly)  # of the learning rate
    auxiliary_weight: float = 0.1  # of the auxiliary classifier's loss
    exact_bn: bool = True  # forward the earlier source frame for BatchNorm's statistics, as the official code does
    forward_target: bool = False  # forward two target frames in training mode, without a loss

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {"segmenter": self.segmenter.build(num_classes)}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        segmenter = cast("PerFrame", networks["segmenter"])
        return {"segmenter": self.optimizer.build(stage_one_groups(segmenter.segnet))}

    def reads_target(self) -> bool:
        """See `Method.reads_target`."""
        return self.forward_target

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source."""
        segmenter = cast("PerFrame", networks["segmenter"])
        loss = stage_one_loss(segmenter, source, self.auxiliary_weight, self.exact_bn)
        if self.forward_target:
            move_statistics(segmenter, target.frames[:, -2:])
        yield Update("segmenter", {"source": loss})


@dataclass(eq=False)
class SupervisedStageTwo(Method[LabelledClip]):
    """Trains Accel around fixed backbones."""

    segmenter: AccelConfig = field(default_factory=AccelConfig)  # the networks
    optimizer: OptimizerSpec = field(default_factory=lambda: Sgd(learning_rate=5e-4))  # of all that is trained
    schedule: Schedule = field(default_factory=WarmUp)  # of the learning rate
    freeze_bn: bool = False  # keep the fixed backbones' BatchNorm statistics too; the official code lets them move
    forward_target: bool = False  # forward three target frames in training mode, without a loss

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {"segmenter": self.segmenter.build(num_classes)}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return {"segmenter": self.optimizer.build(stage_two_groups(cast("Accel", networks["segmenter"])))}

    def reads_target(self) -> bool:
        """See `Method.reads_target`."""
        return self.forward_target

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source."""
        segmenter = cast("Accel", networks["segmenter"])
        if self.freeze_bn:
            freeze_statistics(segmenter)
        loss = stage_two_loss(segmenter, source)
        if self.forward_target:
            with torch.no_grad():
                scores_of_last_two(segmenter, target.frames)
        yield Update("segmenter", {"source": loss})


def stage_one_loss(segmenter: PerFrame, source: LabelledClip, auxiliary_weight: float, exact_bn: bool) -> Tensor:
    """Cross entropy of the last frame, main and weighted auxiliary; the frame before is forwarded if `exact_bn`."""
    if exact_bn:
        move_statistics(segmenter, source.frames[:, -2:-1])
    main, *auxiliary = stage_one_scores(segmenter, source.frames[:, -1])
    labels = source.labels[:, -1]
    loss = cross_entropy(main, labels)
    for scores in auxiliary:
        loss = loss + auxiliary_weight * cross_entropy(scores, labels)
    return loss


def stage_one_scores(segmenter: PerFrame, frame: Tensor) -> tuple[Tensor, ...]:
    """Full-resolution scores (B, C, H, W) of the main classifier, then of the auxiliary one where there is one."""
    return tuple(segmenter.upsample(scores) for scores in segmenter.segnet.level_scores(frame))


def stage_two_loss(segmenter: Accel, source: LabelledClip) -> Tensor:
    """Cross entropy of the last frame, merged from it and the frame before."""
    return cross_entropy(segmenter(source.frames[:, -2:]), source.labels[:, -1])


@torch.no_grad()
def move_statistics(segmenter: PerFrame, frames: Tensor) -> None:
    """Forwards frames (B, T, 3, H, W), oldest first, for what that does to BatchNorm's running statistics."""
    for frame in frames.unbind(1):
        segmenter.segnet.features(frame)
