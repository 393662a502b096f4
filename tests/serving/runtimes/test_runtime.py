import numpy as np
import pytest

from serving.runtimes.cuda_device import CudaError
from serving.runtimes.runtime import is_out_of_memory, stack, unstack


def test_stacking_joins_and_unstacking_parts() -> None:
    arrays = [np.full((1, 2, 3), value, np.float32) for value in range(4)]
    batch = stack(arrays)
    assert batch.shape == (4, 2, 3)
    assert all(np.array_equal(*pair) for pair in zip(unstack(batch), arrays, strict=True))


def test_a_single_array_is_its_own_batch() -> None:
    array = np.zeros((1, 5))
    assert stack([array]) is array
    assert unstack(array)[0] is array


def test_the_items_of_a_batch_have_memory_of_their_own() -> None:
    batch = np.zeros((3, 4))
    items = unstack(batch)
    assert not any(np.shares_memory(item, batch) for item in items)
    items[0][:] = 9
    assert not batch.any()
    assert not items[1].any()


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (MemoryError(), True),
        (CudaError("cudaMalloc failed on cuda:0, out of memory: serve fewer streams or models on this GPU"), True),
        (RuntimeError("BFCArena: Failed to allocate memory for requested buffer"), True),
        (RuntimeError("std::bad_alloc, or bad allocation"), True),
        (RuntimeError("cudaMalloc failed on cuda:0, an illegal memory access was encountered"), False),
        (ValueError("Gather: indices element out of data bounds"), False),
    ],
)  # fmt: skip
def test_a_full_device_is_told_from_other_failures(error: Exception, is_so: bool) -> None:
    assert is_out_of_memory(error) == is_so
