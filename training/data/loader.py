"""Endless batches in an order that only the seed decides, from any step on."""

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Item = TypeVar("Item", bound=tuple[Any, ...])


class Visit(int):
    """The index of an item that also knows how many passes over the data came before: random draws derive from both."""

    num_passes: int

    def __new__(cls, index: int, num_passes: int = 0) -> "Visit":
        """An index in a pass."""
        visit = super().__new__(cls, index)
        visit.num_passes = num_passes
        return visit


class EndlessShuffle(Sampler[list[int]]):
    """Batches of indices: every pass over the data is shuffled anew, and its incomplete last batch dropped."""

    def __init__(self, length: int, batch_size: int, seed: int, start_step: int, part: slice) -> None:
        """Begins where `start_step` batches have been taken already; gives a part of each batch."""
        self.length, self.batch_size, self.seed, self.start_step = length, batch_size, seed, start_step
        self.part = part

    def __iter__(self) -> Iterator[list[int]]:
        """Yields batches for ever."""
        batches_per_pass = self.length // self.batch_size
        number, first = divmod(self.start_step, batches_per_pass)
        while True:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            order = torch.randperm(self.length, generator=generator).tolist()
            for batch in range(first, batches_per_pass):
                indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
                yield [Visit(index, number) for index in indices[self.part]]
            number, first = number + 1, 0


def batches(
    dataset: Dataset[Item],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
    part: slice = slice(None),
) -> Iterator[Item]:
    """Batches without end, of the type of the items.

    Args:
        dataset: has a length.
        batch_size: B, at most that length.
        seed: decides the order; not negative.
        start_step: batches to leave out at the beginning, without reading them.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: lets a GPU copy batches while it computes.
        part: of each batch, that is read and given.

    Raises:
        ValueError: if no batch can be filled.
    """
    length = len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare its length
    if not 1 <= batch_size <= length:
        raise ValueError(f"a batch of {batch_size} cannot be filled from {length} clips: choose 1 to {length}")
    sampler = EndlessShuffle(length, batch_size, seed, start_step, part)
    generator = torch.Generator().manual_seed(seed)  # else opening a loader would advance torch's own random numbers
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=num_workers, generator=generator, pin_memory=pin_memory
    )
    return iter(loader)
