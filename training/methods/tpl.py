"""Temporal pseudo labels, added to any method that adapts a segmenter.

Gao et al., Semantic-Flow Consistency (SFC), AAAI 2023, combine SFC with what they call TPL after DA-VSN (Guan et al.,
ICCV 2021) and TPS (Xing et al., ECCV 2022): a frame learns from the prediction of the frame before, carried along the
flow.

    L = L_method + lambda_T (CE(main, q) + 0.1 CE(auxiliary, q)),   q = argmax warp(softmax(z_{t-1}), F(X_t, X_{t-1}))

How was not published; this is what seems nearest to both papers. z_{t-1} are the main classifier's scores, in stage two
merged from (t - 2, t - 1), at the flow's quarter resolution and without gradient. The student sees frame t, in stage
two (t - 1, t), in other colours (`photometric`), neither scaled nor mirrored. Both forward in training mode, but labels
leave BatchNorm's running statistics alone: the method has forwarded the frame itself, or chose not to.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from training.data.clip import Clip, LabelledClip
from training.methods.losses import cross_entropy
from training.methods.method import Method, Networks, Update
from training.methods.photometric import draw_photometric, recolor
from training.methods.pseudo_labels import propagated_labels, resize_scores
from training.methods.sfc import Sfc
from training.methods.stage import Stage, StagedMethod
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.video_segmenter import VideoSegmenter


@dataclass(eq=False)
class Tpl(Method[LabelledClip]):
    """A method, and temporal pseudo labels; needs two target frames in stage one, three in stage two, as Sfc does."""

    method: Method[Any] = field(default_factory=Sfc)  # what the pseudo labels join: any method that trains a segmenter
    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # frozen, where the method has none
    pseudo_weight: float = 0.1  # lambda_T; 0.1 on VIPER, 1 on SYNTHIA
    threshold: float = 0.0  # of the warped probability of a pseudo label, 0..1; 0 keeps every pixel

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        if not isinstance(self.method, StagedMethod):
            raise ValueError(
                f"temporal pseudo labels are added to {type(self.method).__name__}, they take a method that trains a"
                " segmenter in one of its stages: choose such, as Sfc"
            )

    @property
    def stage(self) -> Stage:
        """The method's."""
        return cast("StagedMethod", self.method).stage

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        networks = self.method.networks(num_classes)
        return networks if "teacher_flow" in networks else {**networks, "teacher_flow": self.teacher_flow.build()}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return self.method.optimizers(networks)

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """See `Method.learning_rate_factor`."""
        return self.method.learning_rate_factor(step, steps)

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return self.stage.num_frames + 1

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """The method's steps, the segmenter's with the pseudo labels."""
        for update in self.method.updates(networks, source, target):
            if update.network == "segmenter":
                pseudo_loss = self.pseudo_weight * self._loss(networks, target.frames)
                yield update._replace(losses={**update.losses, "temporal_pseudo": pseudo_loss})
            else:
                yield update

    def _loss(self, networks: Networks, frames: Tensor) -> Tensor:
        segmenter = cast("VideoSegmenter", networks["segmenter"])
        teacher_flow = cast("FlowNet", networks["teacher_flow"])
        with torch.no_grad(), statistics_kept(segmenter):
            flow = teacher_flow(frames[:, -1], frames[:, -2])
            scores = self.stage.levels(segmenter, frames[:, :-1])[0]
            labels = propagated_labels(resize_scores(scores, flow.shape[-2:]), flow, self.threshold)
        levels = self.stage.levels(segmenter, recolor(frames[:, -2:], draw_photometric()))
        return self.stage.weighted_sum(
            cross_entropy(resize_scores(scores, labels.shape[-2:]), labels) for scores in levels
        )


@contextlib.contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Lets every BatchNorm forward as it would, in training mode by the batch's statistics, and take none of them over.

    Nothing is restored in place: graphs that wait for their backward pass hold the running statistics.
    """
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d) and each.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
