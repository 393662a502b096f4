"""Random colours, blur, noise and mirror images of whole clips: closes the photometric part of a domain gap.

All frames of a clip get the same draw, so that flow between them stays what it was, but for the sensor's noise.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad
from torch.utils.data import Dataset

from training.data.clip import Clip, FlowClip, LabelledClip
from training.data.loader import Visit

Item = TypeVar("Item", Clip, LabelledClip, FlowClip)

# Rows of the rotation about the grey axis that a hue shift is, for luma, in-phase and quadrature (YIQ) and back.
YIQ_FROM_RGB = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
GREY = YIQ_FROM_RGB[0]


class Draw(NamedTuple):
    """What is done to one clip, in this order."""

    hue: float  # radians, -0.35..0.35
    saturation: float  # factor, 0.3..1.5
    brightness: float  # factor, 0.65..1.35
    contrast: float  # factor around the mean grey, 0.6..1.4
    gains: tuple[float, float, float]  # factor per channel, 0.88..1.12
    offset: float  # grey levels / 255, -12..12
    gamma: float  # exponent, exp(-0.35..0.35)
    blur: float  # pixels, standard deviation 0.3..1, or 0 for half of the clips
    noise: float  # grey levels / 255, standard deviation 0..8
    noise_seed: int
    is_mirrored: bool


def draw(generator: np.random.Generator) -> Draw:
    """Uniform draws from the ranges above."""

    def within(low: float, high: float) -> float:
        return float(generator.uniform(low, high))

    return Draw(
        hue=within(-0.35, 0.35),
        saturation=within(0.3, 1.5),
        brightness=within(0.65, 1.35),
        contrast=within(0.6, 1.4),
        gains=(within(0.88, 1.12), within(0.88, 1.12), within(0.88, 1.12)),
        offset=within(-12, 12) / 255,
        gamma=float(np.exp(within(-0.35, 0.35))),
        blur=within(0.3, 1.0) if generator.random() < 0.5 else 0.0,
        noise=within(0, 8) / 255,
        noise_seed=int(generator.integers(2**31)),
        is_mirrored=bool(generator.random() < 0.5),
    )


def augment(clip: Item, generator: np.random.Generator) -> Item:
    """A clip without the batch dimension in other colours; half of them are mirrored, labels and flow too."""
    choice = draw(generator)
    clip = clip._replace(frames=recolor(clip.frames, choice))
    return mirror(clip) if choice.is_mirrored else clip


def recolor(frames: Tensor, choice: Draw) -> Tensor:
    """Frames (T, 3, H, W), RGB in 0..1, with everything done to them but mirroring, on whatever device they are."""
    result = torch.einsum("ij,tjhw->tihw", _hue_and_saturation(choice.hue, choice.saturation).to(frames), frames)
    result = result * choice.brightness
    mean = torch.einsum("j,tjhw->", GREY.to(frames), result) / (result.numel() / 3)
    result = mean + choice.contrast * (result - mean)
    result = result * torch.tensor(choice.gains).to(frames).view(3, 1, 1) + choice.offset
    result = result.clamp(0, 1) ** choice.gamma
    if choice.blur:
        result = _blur(result, choice.blur)
    noise_source = torch.Generator(frames.device).manual_seed(choice.noise_seed)
    noise = torch.randn(result.shape, generator=noise_source, dtype=result.dtype, device=result.device)
    return (result + choice.noise * noise).clamp(0, 1)


def mirror(clip: Item) -> Item:
    """The clip seen in a mirror: left and right swapped, and the sign of horizontal flow."""
    match clip:
        case LabelledClip():
            labels, quarter_labels = clip.labels.flip(-1), clip.quarter_labels.flip(-1)
            return LabelledClip(clip.frames.flip(-1), labels, quarter_labels)
        case FlowClip():
            flow = clip.flow.flip(-1) * torch.tensor([-1.0, 1.0]).view(2, 1, 1)
            return FlowClip(clip.frames.flip(-1), flow, clip.valid.flip(-1))
        case _:
            return Clip(clip.frames.flip(-1))


def _hue_and_saturation(hue: float, saturation: float) -> Tensor:
    """(3, 3) matrix that turns colours about the grey axis and scales their distance from it."""
    cosine, sine = float(np.cos(hue)), float(np.sin(hue))
    turn = torch.tensor(
        [[1, 0, 0], [0, saturation * cosine, -saturation * sine], [0, saturation * sine, saturation * cosine]]
    )
    matrix: Tensor = torch.linalg.inv(YIQ_FROM_RGB) @ turn @ YIQ_FROM_RGB
    return matrix


def _blur(frames: Tensor, sigma: float) -> Tensor:
    position = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (position / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(frames)
    flat = pad(frames, (3, 3, 3, 3), mode="replicate").flatten(0, 1)[:, None]
    blurred = conv2d(conv2d(flat, kernel.view(1, 1, 1, 7)), kernel.view(1, 1, 7, 1))
    return blurred.view_as(frames)


class Augmented(Dataset[Any]):
    """A data set whose clips look different in every pass."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        """Augments the items of `dataset`; the draws depend on the seed, the item and the pass of the loader."""
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare its length

    def __getitem__(self, index: int) -> Any:
        """An augmented clip of the type of the data set's items."""
        num_passes = index.num_passes if isinstance(index, Visit) else 0
        parts: Sequence[int] = (self.seed, num_passes, int(index))
        return augment(self.dataset[index], np.random.default_rng(np.random.SeedSequence(parts)))
