"""The two stages in which SFC trains a segmenter, and what any method may ask of one.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023. A network of single frames first, all of it; then what lies
around fixed residual networks: flow network, fusion, classifiers. The paper trains every rival in both stages too, so a
method is written once and is given a stage.

    stage one:  scores of a frame; the main classifier and, at a tenth of the weight, an auxiliary one
    stage two:  scores of a frame from it and the frame before

BatchNorm is in training mode in both, so whatever is forwarded moves the running statistics.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from training.data.clip import LabelledClip
from training.methods.losses import cross_entropy
from training.methods.method import Method, Networks
from training.methods.optimization import OptimizerSpec, Poly, RepeatedSgd, Schedule, Sgd, WarmUp
from training.methods.parameter_groups import (
    freeze_statistics,
    freeze_statistics_of_fixed,
    stage_one_groups,
    stage_two_groups,
)
from training.methods.twin_backbones import levels_of_last_two
from training.models.accel import AccelConfig
from training.models.per_frame import PerFrame, PerFrameConfig
from training.models.video_segmenter import Levels, SegmenterConfig, VideoSegmenter


@dataclass(frozen=True)
class Stage:
    """Which segmenter is trained, which parts of it, and how. `Levels` are scores as a segmenter gives them, small."""

    num_frames: ClassVar[int]  # that scores of one frame take
    segmenter: SegmenterConfig
    optimizer: OptimizerSpec
    schedule: Schedule
    auxiliary_weight: float

    def build(self, num_classes: int) -> VideoSegmenter:
        """A newly initialised segmenter.

        Raises:
            ValueError: if this stage has nothing to train in such a segmenter.
        """
        raise NotImplementedError

    def optimizer_of(self, segmenter: VideoSegmenter) -> Optimizer:
        """An optimizer of what this stage trains; the rest no longer requires gradients."""
        raise NotImplementedError

    def ready(self, networks: Networks) -> VideoSegmenter:
        """The network "segmenter", its BatchNorm as this stage has it. Every iteration begins with it."""
        return cast("VideoSegmenter", networks["segmenter"])

    def levels(self, segmenter: VideoSegmenter, frames: Tensor) -> Levels:
        """Scores of the last of some frames (B, T, 3, H, W)."""
        return segmenter.level_logits(frames[:, -2:])

    def source_levels(self, segmenter: VideoSegmenter, source: LabelledClip) -> Levels:
        """`levels` of a source clip, with what the official code does beside for BatchNorm's statistics."""
        return self.levels(segmenter, source.frames)

    def levels_of_last_two(self, segmenter: VideoSegmenter, frames: Tensor) -> tuple[Levels, Levels]:
        """`levels` of the last of some frames (B, T, 3, H, W), T > `num_frames`, and of the one before it."""
        raise NotImplementedError

    def move_statistics(self, segmenter: VideoSegmenter, frames: Tensor) -> None:
        """Does to BatchNorm's running statistics what `levels_of_last_two` does."""
        raise NotImplementedError

    def supervised_loss(self, segmenter: VideoSegmenter, levels: Levels, labels: Tensor) -> Tensor:
        """Cross entropy of scores, enlarged, with labels (B, H, W): of the main classifier plus the weighted others."""
        return self.weighted_sum(cross_entropy(segmenter.upsample(scores), labels) for scores in levels)

    def source_loss(self, segmenter: VideoSegmenter, source: LabelledClip) -> Tensor:
        """`supervised_loss` of a source clip's last frame."""
        return self.supervised_loss(segmenter, self.source_levels(segmenter, source), source.labels[:, -1])

    def weighted_sum(self, losses: Iterable[Tensor]) -> Tensor:
        """The main classifier's loss plus the auxiliary ones, weighted, from scalars in the order of `Levels`."""
        main, *auxiliary = losses
        return torch.stack([main, *(self.auxiliary_weight * loss for loss in auxiliary)]).sum()


@dataclass(frozen=True)
class StageOne(Stage):
    """All of a segmentation network of single frames."""

    num_frames = 1
    segmenter: SegmenterConfig = field(default_factory=PerFrameConfig)  # the network
    optimizer: OptimizerSpec = field(default_factory=RepeatedSgd)  # classifiers take 10 times its learning rate
    schedule: Schedule = field(default_factory=Poly)  # of the learning rate
    auxiliary_weight: float = 0.1  # of the auxiliary classifier's losses
    exact_bn: bool = True  # forward the earlier source frame for BatchNorm's statistics, as SFC's code does
    train_bn: bool = True  # BatchNorm's scale and shift too, as SFC's code does; AdvEnt's, DA-VSN's and TPS's do not
    freeze_bn: bool = False  # keep BatchNorm's statistics, those of the start; all released code lets them move

    def build(self, num_classes: int) -> VideoSegmenter:
        """See `Stage.build`."""
        segmenter = self.segmenter.build(num_classes)
        if not isinstance(segmenter, PerFrame):
            raise ValueError(
                f"stage one trains a network of single frames, {type(segmenter).__name__} is one of videos: train"
                " PerFrame, then the other in stage two"
            )
        return segmenter

    def optimizer_of(self, segmenter: VideoSegmenter) -> Optimizer:
        """See `Stage.optimizer_of`."""
        return self.optimizer.build(stage_one_groups(cast("PerFrame", segmenter).segnet, self.train_bn))

    def ready(self, networks: Networks) -> VideoSegmenter:
        """See `Stage.ready`."""
        segmenter = super().ready(networks)
        if self.freeze_bn:
            freeze_statistics(segmenter)
        return segmenter

    def source_levels(self, segmenter: VideoSegmenter, source: LabelledClip) -> Levels:
        """See `Stage.source_levels`."""
        if self.exact_bn:
            _forward(segmenter, source.frames[:, -2:-1])
        return self.levels(segmenter, source.frames)

    def levels_of_last_two(self, segmenter: VideoSegmenter, frames: Tensor) -> tuple[Levels, Levels]:
        """See `Stage.levels_of_last_two`. The earlier frame goes first: the order decides the running statistics."""
        previous = segmenter.level_logits(frames[:, -2:-1])
        return segmenter.level_logits(frames[:, -1:]), previous

    def move_statistics(self, segmenter: VideoSegmenter, frames: Tensor) -> None:
        """See `Stage.move_statistics`."""
        _forward(segmenter, frames[:, -2:])


@dataclass(frozen=True)
class StageTwo(Stage):
    """What lies around the residual networks of a video segmenter."""

    num_frames = 2
    segmenter: SegmenterConfig = field(default_factory=AccelConfig)  # the networks
    optimizer: OptimizerSpec = field(default_factory=lambda: Sgd(learning_rate=5e-4))  # of all that is trained
    schedule: Schedule = field(default_factory=WarmUp)  # of the learning rate
    auxiliary_weight: float = 0.1  # of an auxiliary classifier's losses, where the segmenter has one
    freeze_bn: bool = False  # keep the fixed networks' BatchNorm statistics too; the official code lets them move

    def build(self, num_classes: int) -> VideoSegmenter:
        """See `Stage.build`."""
        segmenter = self.segmenter.build(num_classes)
        if not segmenter.around_backbones():
            raise ValueError(
                f"stage two trains what lies around fixed residual networks, {type(segmenter).__name__} has nothing"
                " there: train it in stage one"
            )
        return segmenter

    def optimizer_of(self, segmenter: VideoSegmenter) -> Optimizer:
        """See `Stage.optimizer_of`."""
        return self.optimizer.build(stage_two_groups(segmenter))

    def ready(self, networks: Networks) -> VideoSegmenter:
        """See `Stage.ready`."""
        segmenter = super().ready(networks)
        if self.freeze_bn:
            freeze_statistics_of_fixed(segmenter)
        return segmenter

    def levels_of_last_two(self, segmenter: VideoSegmenter, frames: Tensor) -> tuple[Levels, Levels]:
        """See `Stage.levels_of_last_two`: from frames t - 1 and t, and from t - 2 and t - 1."""
        return levels_of_last_two(segmenter, frames)

    def move_statistics(self, segmenter: VideoSegmenter, frames: Tensor) -> None:
        """See `Stage.move_statistics`."""
        with torch.no_grad():
            levels_of_last_two(segmenter, frames)


STAGES: tuple[type[Stage], ...] = (StageOne, StageTwo)


@dataclass(eq=False)
class StagedMethod(Method[LabelledClip]):
    """A method that trains the network "segmenter", in either stage."""

    stage: Stage = field(default_factory=StageOne)  # what of which segmenter is trained, and how

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {"segmenter": self.stage.build(num_classes)}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return {"segmenter": self.stage.optimizer_of(cast("VideoSegmenter", networks["segmenter"]))}

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`. What scores of the last two frames take; a method may need fewer."""
        return self.stage.num_frames + 1

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """See `Method.learning_rate_factor`."""
        return self.stage.schedule.factor(step, steps)


@torch.no_grad()
def _forward(segmenter: VideoSegmenter, frames: Tensor) -> None:
    """Forwards frames (B, T, 3, H, W), oldest first, for what that does to BatchNorm's running statistics."""
    for frame in frames.unbind(1):
        cast("PerFrame", segmenter).segnet.features(frame)
