"""What evaluation needs of a data set beyond its clips: the labels of last frames at the size they were drawn in."""

from abc import ABC, abstractmethod

from torch import Tensor
from torch.utils.data import Dataset

from training.data.clip import LabelledClip


class LabelledDataset(Dataset[LabelledClip], ABC):
    """Clips whose last frame has labels. Training reads clips, whose labels have the size of the frames."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of clips."""

    @abstractmethod
    def __getitem__(self, index: int) -> LabelledClip:
        """A clip without the batch dimension."""

    @abstractmethod
    def native_labels(self, index: int) -> Tensor:
        """The labels of a clip's last frame as the data set stores them, never resized: (H', W') int64, or IGNORE."""
