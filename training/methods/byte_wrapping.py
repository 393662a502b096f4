"""What the student of TPS sees in the released code: frames whose bytes have overflowed.

There, images are augmented after the mean has been subtracted and as if they were in 0..1: to become the library's type
of image they are multiplied by 255 and cut to bytes. With a pixel's value v and its channel's mean m that leaves

    byte = trunc(255 (v - m)) mod 256, or but for the fraction (-v - 255 m) mod 256, since 255 is -1 modulo 256:

the picture inverted and wrapped around. Its channels are taken for RGB while they are BGR. The network then gets
byte / 255 in place of v - m. All of that is reproduced: `through_bytes` gives the frames of which `segmentation_input`
makes what the network gets there. They have almost no contrast, 1/255: of use to networks whose BatchNorm is in
training mode, and to no flow network.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.models.input_conversion import IMAGENET_MEAN


def through_bytes(frames: Tensor, perturb: Callable[[Tensor], Tensor]) -> Tensor:
    """Frames (B, T, 3, H, W), RGB in 0..1, perturbed as by the released code of TPS.

    Args:
        frames: with the 256 grey levels of an 8-bit image.
        perturb: takes and gives frames in 0..1; its red is blue here.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=frames.device, dtype=frames.dtype).view(3, 1, 1)
    values = (255 * frames.flip(-3)).round()
    wrapped = (255 * (values - mean)).trunc().remainder(256)
    return ((perturb(wrapped / 255) + mean) / 255).flip(-3)
