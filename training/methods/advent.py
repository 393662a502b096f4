"""AdvEnt: target predictions as confident, and in the same places, as those of the source.

Vu et al., ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation, CVPR 2019. A
discriminator per classifier looks at the weighted self-information E of the predictions, at full resolution:

    segmenter       L_source + lambda_adv BCE(D(E(P_target)), source) + lambda_aux BCE(D_aux(E(P_aux_target)), source)
    discriminators  (BCE(D(E(P_source)), source) + BCE(D(E(P_target)), target)) / 2, on predictions of before the step

Stage one is the released method on single frames. Its use in stage two is not published: one discriminator on the
merged predictions of a pair, of the same weight. Departures: resizing does not align corners and pooling does not round
up, as in SFC's networks and unlike AdvEnt's; both losses of the segmenter are differentiated together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor
from torch.optim import Optimizer

from training.data.clip import Clip, LabelledClip
from training.methods.adversarial import (
    LEVELS,
    Domain,
    discriminator_loss,
    discriminator_optimizers,
    domain_loss,
    self_information,
)
from training.methods.early_gradient import with_early_gradient
from training.methods.method import Networks, Update
from training.methods.optimization import Adam, OptimizerSpec
from training.methods.stage import StagedMethod
from training.models.discriminator import Discriminator
from training.models.video_segmenter import VideoSegmenter


@dataclass(eq=False)
class AdvEnt(StagedMethod):
    """Adversarial entropy minimisation."""

    adversarial_weight: float = 0.001  # lambda_adv, of the main classifier's discriminator
    auxiliary_adversarial_weight: float = 0.0002  # of the auxiliary classifier's, where there is one
    discriminator_width: int = 64  # channels after the first of its five convolutions
    discriminator_optimizer: OptimizerSpec = field(  # of each discriminator
        default_factory=lambda: Adam(learning_rate=1e-4, beta1=0.9, beta2=0.99)
    )

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        networks = super().networks(num_classes)
        for level in LEVELS[: cast("VideoSegmenter", networks["segmenter"]).num_levels]:
            networks[f"{level}_discriminator"] = Discriminator(num_classes, self.discriminator_width)
        return networks

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return super().optimizers(networks) | discriminator_optimizers(self.discriminator_optimizer, networks)

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return self.stage.num_frames

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step of the segmenter on both domains, then one of each discriminator."""
        segmenter = self.stage.ready(networks)
        source_levels = self.stage.source_levels(segmenter, source)
        source_loss = self.stage.supervised_loss(segmenter, source_levels, source.labels[:, -1])
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}
        of_source = [information(segmenter, scores.detach()) for scores in source_levels]
        of_target = [information(segmenter, scores) for scores in self.stage.levels(segmenter, target.frames)]
        weights = (self.adversarial_weight, self.auxiliary_adversarial_weight)
        for level, weight, target_map in zip(LEVELS, weights, of_target, strict=False):
            fooled = domain_loss(networks[f"{level}_discriminator"](target_map), Domain.SOURCE)
            losses[f"{level}_adversarial"] = weight * fooled
        yield Update("segmenter", losses)

        for level, source_map, target_map in zip(LEVELS, of_source, of_target, strict=False):
            name = f"{level}_discriminator"
            yield Update(name, {name: discriminator_loss(networks[name], source_map, target_map)})


def information(segmenter: VideoSegmenter, scores: Tensor) -> Tensor:
    """`self_information` at full resolution (B, C, H, W) of scores as the segmenter gives them."""
    return self_information(segmenter.upsample(scores).softmax(1))
