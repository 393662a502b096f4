"""Other colours and blur for the frames that a student sees, as TPS perturbs them.

Xing et al., Domain Adaptive Video Segmentation via Temporal Pseudo Supervision (TPS), ECCV 2022. In this order: blur
with probability 0.6; brightness, contrast, saturation and hue in random order with probability 0.8; grey with
probability 0.2. All frames of a clip get the same draw, and contrast turns about their common mean, so that what moved
still matches.

Departures: the blur is Gaussian, where the released code has PIL's approximation of it by box filters, and it does not
run from one frame into the next, where the released code stacks both to one picture; nothing is rounded to bytes.
"""

import math
from typing import NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from training.methods.chance import happens, integer, uniform

BLURS = (5.0, 7.0, 9.0)  # pixels, standard deviation
ADJUSTMENTS = (  # each takes images and a factor
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    adjust_hue,
)


class Jitter(NamedTuple):
    """How colours change."""

    factors: tuple[float, ...]  # of `ADJUSTMENTS`: 0.2..1.8 each, but of hue radians, up to a fifth of a turn each way
    order: tuple[int, ...]  # of `ADJUSTMENTS`


class Photometric(NamedTuple):
    """What is done to a batch of clips, in this order."""

    blur: float  # pixels, standard deviation; 0 for none
    jitter: Jitter | None
    is_grey: bool


def draw_photometric() -> Photometric:
    """A new draw."""
    return Photometric(
        blur=BLURS[integer(len(BLURS))] if happens(0.6) else 0.0,
        jitter=_draw_jitter() if happens(0.8) else None,
        is_grey=happens(0.2),
    )


def _draw_jitter() -> Jitter:
    factors = [uniform(0.2, 1.8) for _ in ADJUSTMENTS[:-1]]
    return Jitter((*factors, uniform(-0.4, 0.4) * math.pi), tuple(torch.randperm(len(ADJUSTMENTS)).tolist()))


def recolor(frames: Tensor, choice: Photometric) -> Tensor:
    """Frames (B, T, 3, H, W), RGB in 0..1, with the same done to all of them."""
    if choice.blur:
        frames = blur(frames, choice.blur, 2 * math.ceil(3 * choice.blur) + 1)
    if choice.jitter:
        # Frames below each other are one image, which has one mean.
        image = frames.transpose(1, 2).flatten(2, 3)
        for index in choice.jitter.order:
            image = ADJUSTMENTS[index](image, choice.jitter.factors[index])
        frames = torch.stack(image.chunk(frames.shape[1], dim=2), dim=1)
    return grey(frames) if choice.is_grey else frames


def blur(frames: Tensor, sigma: float, size: int) -> Tensor:
    """Frames (B, T, 3, H, W) under a Gaussian of `size` pixels, odd; the border is repeated outside."""
    blurred = gaussian_blur2d(frames.flatten(0, 1), (size, size), (sigma, sigma), border_type="replicate")
    return blurred.view_as(frames)


def grey(frames: Tensor) -> Tensor:
    """The luma of frames (B, T, 3, H, W) in all three channels."""
    return rgb_to_grayscale(frames).expand_as(frames)
