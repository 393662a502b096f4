"""A labelled data set without its labels, so that those of the target domain cannot leak into training."""

from typing import Any

from torch.utils.data import Dataset

from training.data.clip import Clip


class Unlabelled(Dataset[Clip]):
    """The frames of a data set, and nothing else."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        """Hides all but the frames of `dataset`, whose items have some."""
        self.dataset = dataset

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare its length

    def __getitem__(self, index: int) -> Clip:
        """The frames of one clip."""
        return Clip(self.dataset[index].frames)
