"""Gives frames the style of another: the low frequencies of their amplitude, the phase staying what it is.

Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020. As in the released code, what is
swapped are four squares at the corners of the spectrum, which are not quite symmetrical, and the real part is kept.
"""

import torch
from torch import Tensor

SHARE = 0.01  # beta: side of a square over the shorter side of the frame


def square_side(height: int, width: int) -> int:
    """Side b of the squares in a spectrum of this size."""
    return int(SHARE * min(height, width))


def swap_amplitudes(frames: Tensor, reference: Tensor, side: int) -> Tensor:
    """Frames (B, T, 3, H, W) with the lowest amplitudes of `reference` (B, 3, H, W), both RGB in 0..1.

    Args:
        frames: T of them get the amplitudes of the same frame.
        reference: of the same size.
        side: of the squares, in frequencies; 0 changes nothing.

    Returns:
        Frames that may go beyond 0..1.
    """
    spectrum, other = torch.fft.fft2(frames), torch.fft.fft2(reference).unsqueeze(1)
    amplitude, other_amplitude = spectrum.abs(), other.abs()
    for rows in (slice(side), slice(frames.shape[-2] - side, None)):
        for columns in (slice(side), slice(frames.shape[-1] - side, None)):
            amplitude[..., rows, columns] = other_amplitude[..., rows, columns]
    swapped: Tensor = torch.fft.ifft2(torch.polar(amplitude, spectrum.angle())).real
    return swapped
