"""Which graph to run next, for which streams.

Streams that waited longest go first; equal graphs run in one batch; steps go before key runs, since a step answers a
frame. Yet a key run that a frame waits for lets one batch of steps go first and no more, or its stream would fall
behind the others, and they would run in smaller batches without it; a refresh that no frame waits for lets
`MAX_STEPS_BEFORE_REFRESH` go first. So no stream starves.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from serving.stream import Stream

MAX_STEPS_BEFORE_KEY = 1  # batches, if a frame waits for the key run
MAX_STEPS_BEFORE_REFRESH = 4  # batches, if none does


class Batch(NamedTuple):
    """Streams to run a graph for."""

    graph: Literal["key", "step"]
    streams: Sequence[Stream]


class Schedule:
    """Chooses batches. Guarded by the engine's condition."""

    def __init__(self, *, max_key_batch: int, max_step_batch: int) -> None:
        """Takes the bounds of a batch, in frames."""
        self._max_key_batch = max_key_batch
        self._max_step_batch = max_step_batch
        self._steps_in_a_row = 0
        self._numbers = itertools.count(1)

    def choose(self, streams: Iterable[Stream]) -> Batch | None:
        """The next batch, its streams marked as running; None if there is no work."""
        steps: list[Stream] = []
        awaited_keys: list[Stream] = []  # an answer waits for them
        other_keys: list[Stream] = []
        for stream in sorted(streams, key=lambda stream: stream.last_run):
            match stream.next_work():
                case "step":
                    steps.append(stream)
                case "key":
                    (awaited_keys if stream.current or stream.waiting else other_keys).append(stream)
        keys = awaited_keys + other_keys
        patience = MAX_STEPS_BEFORE_KEY if awaited_keys else MAX_STEPS_BEFORE_REFRESH
        if steps and (not keys or self._steps_in_a_row < patience):
            self._steps_in_a_row += 1
            return self._batch("step", steps[: self._max_step_batch])
        if keys:
            self._steps_in_a_row = 0
            return self._batch("key", keys[: self._max_key_batch])
        return None

    def _batch(self, graph: Literal["key", "step"], streams: Sequence[Stream]) -> Batch:
        for stream in streams:  # numbered one by one, so that those of a batch keep their order in the next one
            stream.is_running, stream.last_run = True, next(self._numbers)
        return Batch(graph, streams)
