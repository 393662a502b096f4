"""Frames of the domain a segmenter will see: what int8 is calibrated on, and the labelled ones that it is judged on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from export.quantization import Pair
from export.verify import LabelledVideo
from training.data import DataConfig, VideoFolder
from training.data.clip import LabelledClip
from training.recipe import Recipe

NUM_PAIRS = 32  # for calibration, spread over the data
NUM_LABELLED = 40  # clips to judge by, spread over the data
Size = tuple[int, int]  # height, width in pixels


class DomainFrames:
    """The target domain of a run, at any frame size; or videos that the user names in its place."""

    def __init__(self, recipe: Recipe, videos: Path | None) -> None:
        """Takes the recipe the run was trained by, and a folder of videos to calibrate on if there is one."""
        self.target: DataConfig = recipe.target if videos is None else VideoFolder(videos)
        self._validation = recipe.validation.data
        self._own_videos = videos is not None

    def check(self, size: Size) -> None:
        """Opens the data once, before anything is written.

        Raises:
            ValueError: if there is nothing to calibrate on.
        """
        try:
            self._open(self.target, size)
        except (ValueError, OSError) as error:
            remedy = "choose another --calibration" if self._own_videos else "give --calibration DIR"
            raise ValueError(f"int8 has no frames to be calibrated on ({error}): {remedy}") from error

    def pairs(self, size: Size) -> list[Pair]:
        """Frames in a row from clips all over the target domain."""
        dataset = self._open(self.target, size)
        return [(frames[-2], frames[-1]) for frames, _ in spread(dataset, NUM_PAIRS)]

    def labelled(self, size: Size) -> list[LabelledVideo]:
        """Clips that the run was validated on; none if they are not at hand."""
        try:
            dataset = self._open(self._validation, size)
        except (ValueError, OSError):
            return []
        return [
            LabelledVideo(frames, clip.labels[-1].numpy())
            for frames, clip in spread(dataset, NUM_LABELLED)
            if isinstance(clip, LabelledClip)
        ]

    def _open(self, data: DataConfig, size: Size) -> Dataset[Any]:
        resized: DataConfig = replace(data, size=size, num_frames=2)  # type: ignore[type-var]  # all are dataclasses
        return resized.open()


def spread(dataset: Dataset[Any], most: int) -> Iterator[tuple[NDArray[np.uint8], Any]]:
    """Up to `most` items of a data set, evenly spaced, each with its frames as cameras give them, (T, H, W, 3)."""
    length = len(dataset)  # type: ignore[arg-type]  # torch's Dataset does not declare its length
    for index in np.unique(np.linspace(0, length - 1, most).round().astype(int)):
        clip = dataset[int(index)]
        frames = cast("Tensor", clip.frames).permute(0, 2, 3, 1)
        yield (frames * 255).round().byte().numpy(), clip
