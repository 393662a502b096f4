"""Random numbers for perturbations, from torch's global generator on the CPU.

Checkpoints keep its state, so a training that is interrupted draws what it would have drawn.
"""

import torch


def happens(probability: float) -> bool:
    """True with this probability."""
    return bool(torch.rand(()) < probability)


def uniform(low: float, high: float) -> float:
    """A number from `low` to `high`."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def integer(end: int) -> int:
    """A number from 0 to `end - 1`."""
    return int(torch.randint(end, ()))
