"""A target that breaks in every way there is, by the number of its input. Light, for spawned processes import it."""

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reliability_target import Subject, Target

NUM_INPUTS = 40
REFUSED, WRONG, ABORTED, HUNG, HUNGRY = 1, 2, 3, 4, 36  # numbers of inputs
TOO_MUCH = 700 << 20  # bytes


def seeds() -> list[bytes]:
    return [b""]


def numbered(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    raise AssertionError("inputs are numbers here")


class Numbered(Target):
    """Whose inputs are their numbers."""

    def make_input(self, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
        return bytes([number])


def open_broken(folder: Path) -> Subject:
    def feed(content: bytes) -> None:
        match content[0]:
            case 1:
                raise ValueError("as documented")
            case 2:
                raise KeyError("by mistake")
            case 3:
                os.abort()
            case 4:
                time.sleep(600)
            case 36:
                assert len(b"\1" * TOO_MUCH) == TOO_MUCH

    return Subject(feed)


BROKEN = Numbered("broken", "breaks", 1, seeds, open_broken, (ValueError,), numbered)
