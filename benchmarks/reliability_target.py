"""What can be fuzzed: where its valid inputs come from, what tries one, and which errors it may answer with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.reliability_inputs import Mutate, choose, mutate_bytes

Feed: TypeAlias = Callable[[bytes], object]  # tries an input; an error that is no refusal is a defect


@dataclass(frozen=True)
class Subject:
    """A target that is open."""

    feed: Feed
    process_id: int | None = None  # whose memory counts; None is the process that feeds
    close: Callable[[], object] = lambda: None  # ends what `open` started


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from outside."""

    name: str
    what: str  # for people
    share: int  # of all inputs, beside the other targets: what is slow gets fewer
    seeds: Callable[[], Sequence[bytes]]  # valid inputs
    open: Callable[[Path], Subject]  # in the process that feeds it, with a folder to write to
    refusals: tuple[type[Exception], ...]  # what is promised to be raised for a malformed input
    mutate: Mutate = mutate_bytes

    def make_input(self, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
        """The input of a number: always the same one for a seed."""
        return self.mutate(choose(number, seed, self.name), seeds)
