"""What an experiment is: a method, its data, its length, and the weights it starts from."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from training.data import DataConfig
from training.methods.method import Method
from training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run as a value. It fully determines the run, given the data and the code."""

    method: Method[Any]
    source: DataConfig
    target: DataConfig
    validation: Validation
    steps: int  # iterations: one batch of each domain, and the method's optimizer steps on them
    start_from: dict[str, str] = field(default_factory=dict)  # NETWORK.PART -> RUN:NETWORK.PART, weights to begin with
    source_batch: int = 1  # source clips per iteration
    target_batch: int = 1  # target clips per iteration
    augment_source: bool = False  # random colours and mirror images of the source; the paper has none
    seed: int = 0  # of weights, order of the data and augmentation
    validate_every: int = 2000  # iterations between validations; the last iteration is always validated
    checkpoint_every: int = 500  # iterations between checkpoints: what an interruption loses at most
    keep_best: bool = True  # later stages read the checkpoint of the best validation, as the paper does; else the last

    def __post_init__(self) -> None:
        """Refuses what could only fail after the data are loaded."""
        if self.steps < 1 or self.source_batch < 1 or self.target_batch < 1 or self.validate_every < 1:
            raise ValueError("steps, source_batch, target_batch and validate_every must be at least 1")
        if self.checkpoint_every < 1:
            raise ValueError("checkpoint_every must be at least 1")
        for part, origin in self.start_from.items():
            if origin.count(":") != 1:
                raise ValueError(f"start_from {part}: {origin!r} does not read RUN:NETWORK.PART")

    def prerequisites(self) -> tuple[str, ...]:
        """The runs whose weights this one starts from, in the order they are named."""
        return tuple(dict.fromkeys(origin.split(":")[0] for origin in self.start_from.values()))


class NamedRecipe(NamedTuple):
    """A recipe and what it is, in a line of the command's help."""

    description: str
    recipe: Recipe
