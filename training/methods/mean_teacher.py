"""An average of the segmenter says what target frames show, which the segmenter sees in other colours.

After Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017. Not a part of SFC. Meant to go with
random colours on the source too, a recipe's `augment_source`, which close most of a gap of colours by themselves.

    L = L_source + lambda (CE(main, q) + 0.1 CE(auxiliary, q)),   CE(z, q) = mean over pixels of -sum_c q_c log p_c(z)
    q = p_teacher(X_t)
    teacher_n = alpha_n teacher_{n-1} + (1 - alpha_n) student

alpha_n = min(alpha, n / (n + 1)) as in the released code, n iterations in: the first teacher is the student it starts
from. The student sees frame t, in stage two (t - 1, t), as `training.data.augmentation` changes source frames.

BatchNorm: the student's running statistics move with the source and with the clean target, as in the control
(`Supervised` with `forward_target`), not with what is augmented. The teacher's are an average like its weights, of what
it sees itself: once per iteration it forwards the clean target frames in training mode. They are those of the target
from the first iteration on, whatever the run started from, and labels are given with them in evaluation mode.

Departures: labels of confident pixels in place of a distance of probabilities, and colours in place of dropout.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from training.data.augmentation import draw, recolor
from training.data.clip import Clip, LabelledClip
from training.methods.chance import integer
from training.methods.early_gradient import with_early_gradient
from training.methods.losses import soft_cross_entropy
from training.methods.method import Networks, Update
from training.methods.stage import Stage, StagedMethod
from training.methods.tpl import statistics_kept
from training.models.video_segmenter import VideoSegmenter


class Teacher(nn.Module):
    """The average of a segmenter over iterations, with BatchNorm statistics of its own."""

    num_steps: Tensor  # iterations it has followed, a number; in the checkpoint

    def __init__(self, segmenter: VideoSegmenter) -> None:
        """Takes over a segmenter, whose weights do not matter: the first `follow` replaces them."""
        super().__init__()
        self.segmenter = segmenter
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(
        self, student: VideoSegmenter, stage: Stage, frames: Tensor, decay: float, statistics_decay: float
    ) -> None:
        """One more iteration: averages the student's weights and the statistics of target frames (B, T, 3, H, W)."""
        num_steps = int(self.num_steps)
        share_kept = num_steps / (num_steps + 1)
        if num_steps == 0:
            self.segmenter.load_state_dict(student.state_dict())
        for average, weight in zip(self.segmenter.parameters(), student.parameters(), strict=True):
            average.lerp_(weight, 1 - min(decay, share_kept))
        for module in self.segmenter.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - min(statistics_decay, share_kept)
        self.segmenter.train()
        stage.levels(self.segmenter, frames)
        self.segmenter.eval()
        self.num_steps += 1

    def forward(self, frames: Tensor) -> Tensor:
        """The average's scores (B, C, H, W) of the last of T >= 1 frames (B, T, 3, H, W)."""
        return self.segmenter(frames)


@dataclass(eq=False)
class MeanTeacher(StagedMethod):
    """Adapts a segmenter to what its own average says; needs as many target frames as Sfc."""

    pseudo_weight: float = 0.5  # lambda, of the loss with the teacher's probabilities
    decay: float = 0.99  # alpha, share of the teacher's weights kept per iteration
    statistics_decay: float = 0.98  # share of the teacher's BatchNorm statistics kept per iteration

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {**super().networks(num_classes), "teacher": Teacher(self.stage.build(num_classes))}

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on both domains. The teacher follows first: it is to know the frames that it labels."""
        segmenter, teacher = self.stage.ready(networks), cast("Teacher", networks["teacher"])
        teacher.follow(segmenter, self.stage, target.frames, self.decay, self.statistics_decay)
        with torch.no_grad():
            probabilities = self.teacher_scores(networks, target.frames).softmax(dim=1)
        source_loss = self.stage.source_loss(segmenter, source)
        losses = {"source": with_early_gradient(source_loss, list(segmenter.parameters()))}
        self.stage.move_statistics(segmenter, target.frames)
        with statistics_kept(segmenter):
            frames, probabilities = self.student_view(target.frames[:, -2:], probabilities, source)
            pseudo_loss = self.stage.weighted_sum(
                soft_cross_entropy(segmenter.upsample(scores), probabilities)
                for scores in self.stage.levels(segmenter, frames)
            )
        losses["pseudo"] = self.pseudo_weight * pseudo_loss
        yield Update("segmenter", losses)

    def teacher_scores(self, networks: Networks, frames: Tensor) -> Tensor:
        """Scores (B, C, H, W) of the last of some target frames, before softmax, that the student is to learn."""
        teacher = cast("Teacher", networks["teacher"]).segmenter
        return teacher.upsample(self.stage.levels(teacher, frames)[0])

    def student_view(self, frames: Tensor, probabilities: Tensor, source: LabelledClip) -> tuple[Tensor, Tensor]:
        """What the student sees of target frames (B, 2, 3, H, W), and is to say of the last of them (B, C, H, W)."""
        del source  # for those who mix
        return perturbed(frames, probabilities)


def perturbed(frames: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Clips (B, T, 3, H, W) each in colours of its own, half of them mirrored with probabilities (B, C, H, W)."""
    choices = [draw(np.random.default_rng(integer(2**31))) for _ in frames]
    mirrored = torch.tensor([choice.is_mirrored for choice in choices], device=frames.device)
    recolored = torch.stack([recolor(clip, choice) for clip, choice in zip(frames, choices, strict=True)])
    return (
        recolored.flip(-1).where(mirrored.view(-1, 1, 1, 1, 1), recolored),
        probabilities.flip(-1).where(mirrored.view(-1, 1, 1, 1), probabilities),
    )
