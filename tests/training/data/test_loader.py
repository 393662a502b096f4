from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset

from training.data.clip import Clip
from training.data.loader import Visit, batches


class Numbers(Dataset[Clip]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Clip:
        return Clip(torch.tensor([float(index)]))


def drawn(seed: int, num_batches: int, start_step: int = 0, num_workers: int = 0) -> list[list[float]]:
    loader = batches(Numbers(7), 2, seed, start_step, num_workers)
    return [batch.frames.flatten().tolist() for batch in islice(loader, num_batches)]


def test_batches_are_of_the_type_of_the_items() -> None:
    assert isinstance(next(batches(Numbers(4), 2, 0)), Clip)


def test_the_order_depends_on_the_seed_only() -> None:
    torch.manual_seed(1)
    first = drawn(3, 8)
    torch.manual_seed(2)
    assert drawn(3, 8) == first
    assert drawn(4, 8) != first


def test_a_loader_that_starts_later_goes_on_as_if_it_had_not_stopped() -> None:
    everything = drawn(0, 11)
    for start in (1, 3, 7):
        assert drawn(0, 11 - start, start) == everything[start:]


def test_every_pass_shows_each_item_at_most_once_and_in_another_order() -> None:
    all_batches = drawn(0, 9)
    passes = [[number for batch in all_batches[first : first + 3] for number in batch] for first in (0, 3, 6)]
    assert all(len(set(numbers)) == 6 for numbers in passes)
    assert passes[0] != passes[1] != passes[2]


def test_reading_ahead_in_other_processes_keeps_the_order() -> None:
    assert drawn(0, 5, num_workers=1) == drawn(0, 5)


def test_opening_a_loader_leaves_torch_s_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    next(batches(Numbers(4), 2, 0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_visit_is_an_index_that_knows_its_pass() -> None:
    assert [10, 20, 30][Visit(1, num_passes=5)] == 20
    assert Visit(1, 5).num_passes == 5


def test_a_batch_that_cannot_be_filled_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 5 cannot be filled from 4 clips"):
        batches(Numbers(4), 5, 0)
