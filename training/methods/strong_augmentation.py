"""A part of a clip, enlarged, in other colours: the perturbation that PixMatch calls augmentation.

Melas-Kyriazi and Manrai, PixMatch, CVPR 2021. A random rectangle, of a fifth to all of the area and with sides from 3:4
to 4:3, is resized to a square; with probability 0.8 brightness and contrast, then hue, saturation and value change;
grey with probability 0.2; blur with probability 0.5. The ranges are the defaults of the library that the released code
uses. Nothing is rounded to bytes here.
"""

import math
from typing import NamedTuple

import torch
from kornia.color import hsv_to_rgb, rgb_to_hsv
from torch import Tensor

from training.methods.chance import happens, integer, uniform
from training.methods.photometric import blur, grey
from training.methods.resizing import resize_frames, resize_labels

AREAS = (0.2, 1.0)  # of the part, over the frame's
ASPECTS = (3 / 4, 4 / 3)  # its width over its height
TRIES = 10  # to find a part that fits
BLUR_SIZES = {3: 0.8, 5: 1.1}  # pixels: standard deviation, OpenCV's for a kernel of the size


class Crop(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


class Colors(NamedTuple):
    """How colours change, in this order; 1 is the range of values."""

    contrast: float  # factor, 0.8..1.2
    brightness: float  # added, -0.2..0.2
    hue: float  # added, radians, 40 degrees each way
    saturation: float  # added, -30..30 / 255
    value: float  # added, -20..20 / 255


class StrongAugmentation(NamedTuple):
    """What is done to a batch of clips, in this order."""

    crop: Crop
    colors: Colors | None
    is_grey: bool
    blur_size: int  # pixels, 3 or 5; 0 for none


def draw_strong_augmentation(height: int, width: int) -> StrongAugmentation:
    """A new draw for frames of this size."""
    return StrongAugmentation(
        crop=_draw_crop(height, width),
        colors=_draw_colors() if happens(0.8) else None,
        is_grey=happens(0.2),
        blur_size=tuple(BLUR_SIZES)[integer(len(BLUR_SIZES))] if happens(0.5) else 0,
    )


def _draw_crop(height: int, width: int) -> Crop:
    for _ in range(TRIES):
        area, aspect = height * width * uniform(*AREAS), math.exp(uniform(*(math.log(each) for each in ASPECTS)))
        crop_height, crop_width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < crop_height <= height and 0 < crop_width <= width:
            top, left = integer(height - crop_height + 1), integer(width - crop_width + 1)
            return Crop(top, left, crop_height, crop_width)
    crop_height, crop_width = min(height, round(width / ASPECTS[0])), min(width, round(height * ASPECTS[1]))
    return Crop((height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


def _draw_colors() -> Colors:
    return Colors(
        contrast=uniform(0.8, 1.2),
        brightness=uniform(-0.2, 0.2),
        hue=math.radians(uniform(-40, 40)),
        saturation=uniform(-30, 30) / 255,
        value=uniform(-20, 20) / 255,
    )


def augment(frames: Tensor, choice: StrongAugmentation, size: int) -> Tensor:
    """Frames (B, T, 3, H, W), RGB in 0..1, to (B, T, 3, size, size), with the same done to all of them."""
    augmented = resize_frames(_part(frames, choice.crop), (size, size), "bilinear")
    if choice.colors:
        augmented = _change_colors(augmented, choice.colors)
    if choice.is_grey:
        augmented = grey(augmented)
    return blur(augmented, BLUR_SIZES[choice.blur_size], choice.blur_size) if choice.blur_size else augmented


def augment_labels(labels: Tensor, choice: StrongAugmentation, size: int) -> Tensor:
    """Labels (B, H, W) of the same part, (B, size, size)."""
    return resize_labels(_part(labels, choice.crop), (size, size))


def _part(images: Tensor, crop: Crop) -> Tensor:
    return images[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def _change_colors(frames: Tensor, colors: Colors) -> Tensor:
    frames = (colors.contrast * frames + colors.brightness).clamp(0, 1)
    hue, saturation, value = rgb_to_hsv(frames).unbind(-3)
    hue = (hue + colors.hue).remainder(2 * math.pi)
    saturation, value = (saturation + colors.saturation).clamp(0, 1), (value + colors.value).clamp(0, 1)
    return hsv_to_rgb(torch.stack([hue, saturation, value], dim=-3))
