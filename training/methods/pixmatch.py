"""Predictions that stay the same when the frame is perturbed.

Melas-Kyriazi and Manrai, PixMatch: Unsupervised Domain Adaptation via Pixelwise Consistency Training, CVPR 2021. What
the network says of a target frame is the label of the same frame under a perturbation:

    L = L_source + sum over perturbations of lambda (CE(main, q_main) + 0.1 CE(auxiliary, q_auxiliary))
    q_main = argmax p_main where its probability exceeds T;  q_auxiliary = argmax (p_main + p_auxiliary) / 2 where
    either's does

Perturbations are `strong_augmentation`, low frequencies of a source frame (`fourier_adaptation`), and rectangles from
or into a labelled source clip (`cut_mix`). Labels have no gradient and come from the network in training mode, as in
the released code. All frames of a clip are perturbed by one draw; in stage two all scores are those of a pair.

Departures: the released code augments twice, with independent draws, and trains the auxiliary classifier with labels of
another part of the frame than it sees: here one draw serves the frames and all labels. It mirrors and blurs frames as
they are read, and evaluates a moving average of the weights: SFC's comparison does neither, for any method. The source
frame of `fourier_adaptation` is brought to the size of the target's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.clip import IGNORE, Clip, LabelledClip
from training.methods.cut_mix import draw_cut_mix, mix
from training.methods.early_gradient import with_early_gradient
from training.methods.fourier_adaptation import square_side, swap_amplitudes
from training.methods.losses import cross_entropy
from training.methods.method import Networks, Update
from training.methods.pairing import partners
from training.methods.pseudo_labels import confident_labels
from training.methods.resizing import resize_frames, resize_labels
from training.methods.stage import StagedMethod
from training.methods.strong_augmentation import augment, augment_labels, draw_strong_augmentation
from training.models.video_segmenter import Levels, VideoSegmenter

Labels = tuple[Tensor, ...]  # (B, H, W) for every classifier, in the order of `Levels`


@dataclass(eq=False)
class PixMatch(StagedMethod):
    """Adapts a segmenter by consistency under perturbations, those of a weight above 0; needs two target frames."""

    augmentation_weight: float = 0.1  # lambda_aug
    fourier_weight: float = 0.0  # lambda_fourier; 0.1 in the paper's combination
    cut_mix_weight: float = 0.0  # lambda_cutmix; 0.1 in the paper's combination
    threshold: float = 0.0  # T, of the probability of a pseudo label, 0..1; 0 keeps every pixel
    crop_size: int = 512  # pixels, side of what `strong_augmentation` makes of a frame; a multiple of 8

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        if self.crop_size < 8 or self.crop_size % 8:
            raise ValueError(f"crop_size is {self.crop_size}, segmenters take multiples of 8: choose one, as 512")

    def num_target_frames(self) -> int:
        """See `Method.num_target_frames`."""
        return self.stage.num_frames

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains."""
        segmenter = self.stage.ready(networks)
        parameters = list(segmenter.parameters())
        losses = {"source": with_early_gradient(self.stage.source_loss(segmenter, source), parameters)}
        with torch.no_grad():
            levels = self.stage.levels(segmenter, target.frames)
            labels = labels_of_levels(tuple(segmenter.upsample(scores) for scores in levels), self.threshold)
        frames = target.frames[:, -2:]
        if self.augmentation_weight > 0:
            loss = self._loss(segmenter, *augmented(frames, labels, self.crop_size))
            losses["augmentation"] = with_early_gradient(self.augmentation_weight * loss, parameters)
        if self.fourier_weight > 0:
            loss = self._loss(segmenter, restyled(frames, source), labels)
            losses["fourier"] = with_early_gradient(self.fourier_weight * loss, parameters)
        if self.cut_mix_weight > 0:
            loss = self._loss(segmenter, *mixed(frames, labels, source))
            losses["cut_mix"] = with_early_gradient(self.cut_mix_weight * loss, parameters)
        yield Update("segmenter", losses)

    def _loss(self, segmenter: VideoSegmenter, frames: Tensor, labels: Labels) -> Tensor:
        levels = self.stage.levels(segmenter, frames)
        return self.stage.weighted_sum(
            cross_entropy(segmenter.upsample(scores), of_level) for scores, of_level in zip(levels, labels, strict=True)
        )


def labels_of_levels(levels: Levels, threshold: float) -> Labels:
    """Pseudo labels of the main classifier by itself, and of each other one together with the main one."""
    main, *auxiliary = (scores.softmax(dim=1) for scores in levels)
    is_confident = main.amax(dim=1) > threshold
    labels = [confident_labels(main, threshold)]
    for probabilities in auxiliary:
        either = is_confident | (probabilities.amax(dim=1) > threshold)
        labels.append((main + probabilities).argmax(dim=1).where(either, IGNORE))
    return tuple(labels)


def augmented(frames: Tensor, labels: Labels, size: int) -> tuple[Tensor, Labels]:
    """Frames (B, T, 3, H, W) and all their labels under one draw of `strong_augmentation`, `size` pixels square."""
    choice = draw_strong_augmentation(*frames.shape[-2:])
    return augment(frames, choice, size), tuple(augment_labels(of_level, choice, size) for of_level in labels)


def restyled(frames: Tensor, source: LabelledClip) -> Tensor:
    """Frames (B, T, 3, H, W) with low frequencies of a source clip's last frame."""
    height, width = frames.shape[-2:]
    reference = resize_frames(partners(source.frames[:, -1:], len(frames)), (height, width), "bicubic")
    return swap_amplitudes(frames, reference[:, 0], square_side(height, width))


def mixed(frames: Tensor, labels: Labels, source: LabelledClip) -> tuple[Tensor, Labels]:
    """Frames (B, T, 3, h, w) and their labels at the size of a source clip, one's rectangle pasted into the other."""
    height, width = source.labels.shape[-2:]
    choice = draw_cut_mix()
    source_frames = partners(source.frames[:, -frames.shape[1] :], len(frames))
    source_labels = partners(source.labels[:, -1], len(frames))
    return (
        mix(source_frames, resize_frames(frames, (height, width), "bicubic"), choice),
        tuple(mix(source_labels, resize_labels(of_level, (height, width)), choice) for of_level in labels),
    )
