"""What every data set is configured by: a frozen value whose fields are the options, and which opens the data."""

from abc import ABC, abstractmethod
from typing import Any

from torch.utils.data import Dataset

from training.label_spaces import LabelSpace


class DataConfig(ABC):
    """A data set before it is opened. Subclasses are frozen dataclasses; the comment of a field is its help text."""

    size: tuple[int, int]  # height and width of the frames in pixels

    @property
    @abstractmethod
    def label_space(self) -> LabelSpace:
        """The classes of the labels."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.label_space.num_classes

    @abstractmethod
    def open(self) -> Dataset[Any]:
        """The data set, with a length; its items are of one of the types in `training.data.clip`.

        Raises:
            ValueError: for what the user can mend, in one sentence.
        """
