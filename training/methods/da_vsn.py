"""DA-VSN: predictions that stay the same along the flow, and two kinds of adversaries.

Guan et al., Domain Adaptive Video Segmentation via Temporal Consistency Regularization, ICCV 2021. With p the class
probabilities of frame t and p' those of frame t - 1, moved along the flow F without gradient:

    consistency  mean of w |p - p'|, w = 1 where something moved to and p' has less entropy than p
    D_sta        sees softmax([z_t, z_(t-1)]), scores of both frames as 2 C channels   (spatial-temporal alignment)
    D_sa         sees softmax([z_t, z_t])   (spatial alignment)
    segmenter    L_source + lambda (consistency + BCE(D_sta(target), source) + BCE(D_sa(target), source)), and the same
                 of the auxiliary classifier with a fifth of the weight on the adversaries
    D            (BCE(D(source), source) + BCE(D(target), target)) / 2 + lambda (1 + cosine of the two D's weights)

Stages and networks are those of SFC ("in our training manner" of its paper): frames t and t - 1 are single frames in
stage one, merged pairs in stage two; where a source clip has two frames, its earlier one is merged with itself. Flow is
that of the frozen source-trained flow network instead of files made by FlowNet2. Departures from the released code: it
moves pixels in a loop, last write wins, here the same is one scatter; its schedule gives the fusion ten times the rate
and leaves that of the classifiers constant, a slip in indices of parameter groups, which is not repeated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
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
    weight_similarity,
)
from training.methods.early_gradient import with_early_gradient
from training.methods.method import Networks, Update
from training.methods.optimization import Adam, Clipped, OptimizerSpec
from training.methods.stage import StagedMethod
from training.models.discriminator import Discriminator
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.video_segmenter import Levels, VideoSegmenter
from training.models.warping import resize_flow

ADVERSARIES = ("sta", "sa")  # spatial-temporal and spatial


@dataclass(eq=False)
class DaVsn(StagedMethod):
    """Temporal consistency by adversaries and along the flow. The released code clips the segmenter's gradient too."""

    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network
    consistency_weight: float = 0.001  # lambda_u, of both classifiers' consistency
    adversarial_weight: float = 0.001  # lambda_a, of each adversary
    auxiliary_adversarial_factor: float = 0.2  # on that, for the auxiliary classifier's adversaries
    discrepancy_weight: float = 0.001  # of how alike the weights of both adversaries are
    discriminator_width: int = 64  # channels after the first of its five convolutions
    discriminator_optimizer: OptimizerSpec = field(  # of each discriminator
        default_factory=lambda: Clipped(Adam(learning_rate=1e-4, beta1=0.9, beta2=0.99))
    )

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        networks = super().networks(num_classes)
        for level in LEVELS[: cast("VideoSegmenter", networks["segmenter"]).num_levels]:
            for adversary in ADVERSARIES:
                networks[f"{level}_{adversary}"] = Discriminator(2 * num_classes, self.discriminator_width)
        return {**networks, "teacher_flow": self.teacher_flow.build()}

    def optimizers(self, networks: Networks) -> dict[str, Optimizer]:
        """See `Method.optimizers`."""
        return super().optimizers(networks) | discriminator_optimizers(self.discriminator_optimizer, networks)

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step of the segmenter on both domains, then one of each discriminator."""
        segmenter = self.stage.ready(networks)
        source_previous = self._previous_levels(segmenter, source.frames)
        source_levels = self.stage.levels(segmenter, source.frames)
        source_loss = self.stage.supervised_loss(segmenter, source_levels, source.labels[:, -1])
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}

        previous_levels = self._previous_levels(segmenter, target.frames)
        levels = self.stage.levels(segmenter, target.frames)
        with torch.no_grad():
            flow = cast("FlowNet", networks["teacher_flow"])(target.frames[:, -1], target.frames[:, -2])
        factors = (1.0, self.auxiliary_adversarial_factor)
        shown: dict[str, tuple[Tensor, Tensor]] = {}
        for level, factor, *of_level in zip(
            LEVELS, factors, source_levels, source_previous, levels, previous_levels, strict=False
        ):
            source_scores, earlier_source_scores, scores, earlier_scores = of_level
            losses[f"{level}_consistency"] = self.consistency_weight * consistency_loss(scores, earlier_scores, flow)
            shown[f"{level}_sta"] = (
                joint_probabilities(segmenter, source_scores.detach(), earlier_source_scores),
                joint_probabilities(segmenter, scores, earlier_scores),
            )
            shown[f"{level}_sa"] = (
                joint_probabilities(segmenter, source_scores.detach(), source_scores.detach()),
                joint_probabilities(segmenter, scores, scores),
            )
            for adversary in ADVERSARIES:
                name = f"{level}_{adversary}"
                fooled = domain_loss(networks[name](shown[name][1]), Domain.SOURCE)
                losses[name] = factor * self.adversarial_weight * fooled
        yield Update("segmenter", losses)

        discriminators = {name: discriminator_loss(networks[name], *maps) for name, maps in shown.items()}
        # All before the first step: each is compared with what the other was before it.
        discrepancies = {
            name: self.discrepancy_weight * weight_similarity(networks[name], networks[_opponent(name)])
            for name in discriminators
        }
        for name, loss in discriminators.items():
            yield Update(name, {f"{name}_discriminator": loss, f"{name}_discrepancy": discrepancies[name]})

    @torch.no_grad()
    def _previous_levels(self, segmenter: VideoSegmenter, frames: Tensor) -> Levels:
        return self.stage.levels(segmenter, frames[:, :-1])


def _opponent(name: str) -> str:
    level, _, adversary = name.partition("_")
    return f"{level}_{ADVERSARIES[1 - ADVERSARIES.index(adversary)]}"


def joint_probabilities(segmenter: VideoSegmenter, scores: Tensor, earlier_scores: Tensor) -> Tensor:
    """Softmax over the scores of two frames together, at full resolution (B, 2 C, H, W)."""
    return segmenter.upsample(torch.cat([scores, earlier_scores], dim=1)).softmax(1)


def consistency_loss(scores: Tensor, earlier_scores: Tensor, flow: Tensor) -> Tensor:
    """How far probabilities are from those that moved there from the frame before and are surer of themselves.

    Args:
        scores: Of the current frame, (B, C, h, w).
        earlier_scores: Of the frame before.
        flow: (B, 2, H / 4, W / 4), current to earlier, in pixels of that map.
    """
    probabilities, earlier = scores.softmax(1), earlier_scores.detach().softmax(1)
    earlier_entropy = self_information(earlier).sum(1, keepdim=True)
    moved = splat(torch.cat([earlier, earlier_entropy], dim=1), resize_flow(flow, scores.shape[2:]))
    moved_probabilities, moved_entropy = moved.values[:, :-1], moved.values[:, -1:]
    entropy = self_information(probabilities.detach()).sum(1, keepdim=True)
    weight = moved.filled & (moved_entropy < entropy)
    return (weight * (probabilities - moved_probabilities).abs()).mean()


class Splatted(NamedTuple):
    """Maps moved forward."""

    values: Tensor  # (B, C, h, w), zero where nothing moved to
    filled: Tensor  # (B, 1, h, w) bool


def splat(values: Tensor, flow: Tensor) -> Splatted:
    """Moves each pixel of the earlier frame against the flow to the nearest pixel; what leaves the image is lost.

    Where several arrive, the rightmost of them stays, of one column the lowest: the last write of DA-VSN's loop over
    columns and, within, rows. As there, the flow is read where a pixel starts, though it is that of the current frame.

    Args:
        values: (B, C, h, w).
        flow: (B, 2, h, w), (x, y) in pixels of this map, current to earlier.
    """
    batch, channels, h, w = values.shape
    x = torch.arange(w, device=values.device).expand(h, w)
    y = torch.arange(h, device=values.device).unsqueeze(1).expand(h, w)
    to_x, to_y = (x - flow[:, 0]).round().long(), (y - flow[:, 1]).round().long()
    inside = (to_x >= 0) & (to_x < w) & (to_y >= 0) & (to_y < h)
    destination = torch.where(inside, to_y * w + to_x, h * w).flatten(1)  # the last place takes what is lost
    turn = (x * h + y).expand(batch, h, w).flatten(1)
    winner = turn.new_full((batch, h * w + 1), -1).scatter_reduce(1, destination, turn, "amax")[:, :-1]
    filled = winner >= 0
    origin = torch.where(filled, winner % h * w + winner.div(h, rounding_mode="floor"), 0)
    moved = values.flatten(2).gather(2, origin.unsqueeze(1).expand(-1, channels, -1)) * filled.unsqueeze(1)
    return Splatted(moved.view_as(values), filled.view(batch, 1, h, w))
