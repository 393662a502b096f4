"""One training in several processes: torchrun --nproc_per_node 2 -m training.train RECIPE.

Every process holds all networks and computes the gradients of its slice of each batch; their mean is what all
optimizers step by, so the networks stay equal. That is what torch's DistributedDataParallel does, but it does so in
hooks that the forward function of one module arms, once for each backward. Here a method calls parts of its networks,
as often as it likes and some without gradients, takes gradients early, and may step several networks in turn. So the
mean is taken where all that is over, right before the step. What is lost is that sending does not overlap with
backward: 0.2 GB for a DeepLab on ResNet-101, once per step.

The mean of the processes' losses is that of one process with the whole batch where each slice has as many pixels that
count; pixels without label make a difference of the order of their share, as with DistributedDataParallel.

Statistics of BatchNorm are of each process's own slice while training, as with DistributedDataParallel; synchronising
them would change the paper's method, whose batches are of one. Running statistics are averaged before they are read, in
validation and checkpoints, so that they have seen all slices.
"""

import contextlib
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from training.command_line import choose_device

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
PATIENCE = timedelta(hours=6)  # for processes that wait while the first validates; torchrun ends them if it dies
BUCKET_BYTES = 2**25  # of gradients sent at once


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is. Of one, everything below is trivial and torch.distributed is not used."""

    rank: int = 0  # of this process among all
    size: int = 1  # number of processes
    local_rank: int = 0  # of this process among those of its machine: the number of its GPU

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device a user names; of GPUs, each process takes its own.

        Raises:
            ValueError: if there is no such device, or one for all.
        """
        device = choose_device(name)
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise ValueError(f"{self.size} processes cannot share {name}: say --device cuda, and each takes its own")
        device = choose_device(f"cuda:{self.local_rank}")
        torch.cuda.set_device(device)
        return device

    def slice_of(self, batch_size: int) -> slice:
        """Where in each batch the items of this process are."""
        assert batch_size % self.size == 0
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, value: Value) -> list[Value]:
        """The value of each process, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size  # Any: values, once they are filled in
        distributed.all_gather_object(values, value)
        return values

    def together(self, action: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """What an action returns here. An error in any process is raised in all, so that none waits for another.

        The action must not call a method of this class that waits for others.
        """
        if self.size == 1:
            return action(*args, **kwargs)
        own_error = None
        try:
            value = action(*args, **kwargs)
        except Exception as error:
            own_error = error
        errors = self.gather(own_error and _portable(own_error))
        if own_error is not None:
            raise own_error
        for error_elsewhere in filter(None, errors):
            raise error_elsewhere
        return value

    def first(self, action: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        """What the first process's action returns or raises, in all; the others wait for it."""

        def act() -> Value | None:
            return action(*args, **kwargs) if self.is_first else None

        return cast("Value", self.gather(self.together(act))[0])

    def equalize(self, networks: Iterable[nn.Module]) -> None:
        """Leaves the first process's weights and buffers in all."""
        if self.size > 1:
            tensors = [tensor for network in networks for tensor in network.state_dict().values()]
            _exchange(tensors, lambda flat: distributed.broadcast(flat, src=0))

    def average_gradients(self, network: nn.Module, num_contributors: int) -> None:
        """Leaves the sum of all processes' gradients over `num_contributors` in each.

        A parameter without gradient counts as zero, unless it has none anywhere: optimizers pass over those.
        """
        if self.size == 1:
            return
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        has_gradient = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        distributed.all_reduce(has_gradient, distributed.ReduceOp.MAX)
        gradients = []
        for parameter, is_needed in zip(parameters, has_gradient.tolist(), strict=True):
            if is_needed:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        self._average(gradients, num_contributors)

    @torch.no_grad()
    def average_statistics(self, networks: Iterable[nn.Module]) -> None:
        """Leaves the mean of all processes' running statistics in each; those that do not run are not touched."""
        if self.size == 1:
            return
        modules = (module for network in networks for module in network.modules() if module.training)
        buffers = [buffer for module in modules for buffer in module.buffers(recurse=False)]
        self._average([buffer for buffer in buffers if buffer.is_floating_point()], self.size)

    def _average(self, tensors: list[Tensor], divisor: int) -> None:
        def average(flat: Tensor) -> None:
            distributed.all_reduce(flat)
            flat /= divisor

        _exchange(tensors, average)


ALONE = Ranks()


@contextlib.contextmanager
def connected(ranks: Ranks) -> Iterator[None]:
    """Lets the processes that torchrun has started talk to each other."""
    if ranks.size == 1:
        yield
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    except SystemExit:  # in all: torchrun ends the rest with the one that leaves first, so let the first tell why
        ranks.gather(None)
        raise
    finally:
        distributed.destroy_process_group()
        # A thread of gloo may still wait for Python's lock, to let go of the tensors it sent: that aborts the process
        # if Python has begun to end. Sleeping hands it the lock.
        time.sleep(0.1)


def launched_ranks() -> Ranks:
    """This process as torchrun has numbered it; alone if torchrun has not started it."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    return Ranks(*(int(os.environ.get(name, default)) for name, default in names.items()))


def _exchange(tensors: list[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """Lets `exchange` change all elements of the tensors in place, many tensors at once."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        exchange(flat)
        for tensor, part in zip(bucket, torch.split(flat, [tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in turn, as many at once as fill a bucket; each bucket has one type and one device."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        is_alike = not bucket or (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
        if bucket and (not is_alike or sum(each.nbytes for each in bucket) + tensor.nbytes > BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _portable(error: Exception) -> Exception:
    """The error itself if it survives being sent, else one with its message."""
    try:
        pickle.loads(pickle.dumps(error))  # nosec B301  # its own bytes
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
