"""Labels for a perturbed frame from an earlier frame, carried along the flow.

Xing et al., Domain Adaptive Video Segmentation via Temporal Pseudo Supervision (TPS), ECCV 2022:

    L = L_source + lambda_T (CE(main, q_main) + 0.1 CE(auxiliary, q_auxiliary))
    q = argmax warp(softmax(z_{t-1}), F(X_t, X_{t-1})), without gradient, at the size of the scores

L_source is that of source frames with the histograms of target frame t. z_{t-1} are the scores of t - 1, in stage two
from (t - 2, t - 1), half of the time of mirrored frames. The student sees t, in stage two (t - 1, t), in other colours
(`photometric`) and at 0.80 to 1.19 times the size, all by one draw; its scores are brought to the size of the labels.
BatchNorm is in training mode for labels too. The distance between the frames is the released code's, one.

Departures: flow comes from a frozen flow network in place of files. The released code warps mirrored scores along flow
that is not mirrored, which its authors acknowledge as a mistake: here scores are mirrored back before they are warped.
It resizes with `align_corners=True`, as its networks do; SFC's do not. `augment_space` "official" reproduces what else
is unintended there (`byte_wrapping`), for stage one alone: in stage two the flow network would look at the same frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from training.data.clip import Clip, LabelledClip
from training.methods.byte_wrapping import through_bytes
from training.methods.chance import happens, integer
from training.methods.early_gradient import with_early_gradient
from training.methods.histogram_matching import match_histograms
from training.methods.losses import cross_entropy
from training.methods.method import Networks, Update
from training.methods.pairing import partners
from training.methods.photometric import draw_photometric, recolor
from training.methods.pseudo_labels import propagated_labels, resize_scores
from training.methods.resizing import resize_frames
from training.methods.stage import StagedMethod, StageTwo
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.video_segmenter import Levels, VideoSegmenter


@dataclass(eq=False)
class Tps(StagedMethod):
    """Adapts a segmenter by temporal pseudo supervision; needs two target frames in stage one, three in stage two."""

    teacher_flow: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the frozen flow network
    pseudo_weight: float = 0.1  # lambda_T; 0.1 on VIPER, 1 on SYNTHIA
    threshold: float = 0.0  # of the warped probability of a pseudo label, 0..1; 0 keeps every pixel
    # what is augmented: frames, or as in the released code what is left of them after an overflow, in stage one alone
    augment_space: Literal["proper", "official"] = "proper"

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        if self.augment_space == "official" and isinstance(self.stage, StageTwo):
            raise ValueError(
                "augment_space is official in stage two, where it leaves the flow network almost no contrast: choose"
                " proper, or stage one"
            )

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {**super().networks(num_classes), "teacher_flow": self.teacher_flow.build()}

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains."""
        segmenter, teacher_flow = self.stage.ready(networks), cast("FlowNet", networks["teacher_flow"])
        current, previous = target.frames[:, -1], target.frames[:, -2]
        source_loss = self.stage.source_loss(segmenter, in_colors_of(source, current))
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}
        with torch.no_grad():
            flow = teacher_flow(current, previous)
            levels = self._levels_of_previous(segmenter, target.frames[:, :-1])
        labels = [propagated_labels(scores, flow, self.threshold) for scores in levels]
        student = zip(self.stage.levels(segmenter, self._perturbed(target.frames[:, -2:])), labels, strict=True)
        losses["pseudo"] = self.pseudo_weight * self.stage.weighted_sum(
            cross_entropy(resize_scores(scores, of_level.shape[-2:]), of_level) for scores, of_level in student
        )
        yield Update("segmenter", losses)

    def _levels_of_previous(self, segmenter: VideoSegmenter, frames: Tensor) -> Levels:
        """Scores of the last of these frames, half of the time by way of their mirror images."""
        if not happens(0.5):
            return self.stage.levels(segmenter, frames)
        return tuple(scores.flip(-1) for scores in self.stage.levels(segmenter, frames.flip(-1)))

    def _perturbed(self, frames: Tensor) -> Tensor:
        perturb = partial(recolor, choice=draw_photometric())
        size = scaled_size(frames.shape[-2:], draw_scale())
        recolored = through_bytes(frames, perturb) if self.augment_space == "official" else perturb(frames)
        return resize_frames(recolored, size, "bilinear")


def in_colors_of(source: LabelledClip, reference: Tensor) -> LabelledClip:
    """A labelled clip, each of its frames with the histograms of a frame of `reference` (B, 3, h, w)."""
    references = partners(reference, len(source.frames))
    frames = [match_histograms(frame, references) for frame in source.frames.unbind(1)]
    return source._replace(frames=torch.stack(frames, dim=1))


def draw_scale() -> float:
    """0.80, 0.81, ... or 1.19."""
    return (80 + integer(40)) / 100


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Height and width times a number, to the nearest multiples of 8."""
    height, width = (8 * round(length * scale / 8) for length in size)
    return height, width
