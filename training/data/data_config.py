"""What every data set is configured by: a frozen value whose fields are the options, and which opens the data."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Self

from torch.utils.data import Dataset

from training.label_spaces import LabelSpace


class DataConfig(ABC):
    """A data set before it is opened. Subclasses are frozen dataclasses; the comment of a field is its help text."""

    size: tuple[int, int]  # height and width of the frames in pixels
    num_frames: int  # consecutive frames of a clip

    @property
    @abstractmethod
    def label_space(self) -> LabelSpace:
        """The classes of the labels."""

    @property
    def num_classes(self) -> int:
        """C."""
        return self.label_space.num_classes

    def with_num_frames(self, num_frames: int) -> Self:
        """The same videos in clips of another length.

        Raises:
            ValueError: if the data set has only clips of one length.
        """
        return replace(self, num_frames=num_frames)  # type: ignore[type-var]  # the subclasses are dataclasses

    @abstractmethod
    def open(self) -> Dataset[Any]:
        """The data set, with a length; its items are of one of the types in `training.data.clip`.

        Raises:
            ValueError: for what the user can mend, in one sentence.
        """
