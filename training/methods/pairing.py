"""Source and target batches of different sizes, side by side."""

import torch
from torch import Tensor


def partners(batch: Tensor, num_items: int) -> Tensor:
    """As many items (B, ...) of a batch as that, from the beginning again where it has fewer."""
    return batch[torch.arange(num_items, device=batch.device) % len(batch)]
