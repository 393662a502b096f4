"""What makes a DeepLab's features faster to train, and changes nothing but rounding: bfloat16 and compilation.

Most of a step's arithmetic is in the residual networks. In bfloat16 (automatic mixed precision: weights, their
gradients and the optimizer stay in single precision) what they keep for backward is half as large. Everything behind
them stays in single precision: classifiers, merge, warping, both flow networks, and the softmax, which SFC scales by
100 and which would turn the rounding of bfloat16 into labels. Evaluation mode, and so validation, stays as it is.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from training.models.deeplab import DeepLab, Trunk, trunk

Precision = Literal["fp32", "bf16"]


def accelerate(network: nn.Module, precision: Precision, is_compiled: bool) -> int:
    """Changes how every DeepLab in `network` computes its features in training; returns how many there are."""
    deeplabs = [module for module in network.modules() if isinstance(module, DeepLab)]
    faster: Trunk = torch.compile(trunk, dynamic=False) if is_compiled else trunk
    for deeplab in deeplabs:
        deeplab.training_trunk = in_bfloat16(faster) if precision == "bf16" else faster
    return len(deeplabs)


def in_bfloat16(single: Trunk) -> Trunk:
    """The same features, computed in bfloat16 where torch holds that safe, and of the frame's type."""

    def mixed(network: DeepLab, frame: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(frame.device.type, torch.bfloat16):
            middle, deep = single(network, frame)
        return middle.to(frame.dtype), deep.to(frame.dtype)

    return mixed


def require_compiler(device: torch.device) -> None:
    """Compiles something small.

    Raises:
        ValueError: if torch cannot, say because there is no C++ compiler.
    """
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.ones(8, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"torch.compile does not work here ({reason}): leave out --compile") from error
