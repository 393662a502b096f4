"""The procedural street as a data set: the same seeds give the same videos on every machine."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch.utils.data import Dataset

from training.data.clip import FlowClip, LabelledClip
from training.data.data_config import DataConfig
from training.data.labelled_dataset import LabelledDataset
from training.data.world.looks import LOOKS
from training.data.world.materials import TRAIN_IDS_OF_KINDS
from training.data.world.render import RenderedClip, render_clip
from training.label_spaces import LABEL_SPACES, LabelSpace
from training.progress import with_progress

SPLITS = ("train", "val")
MAX_CLIPS = 1_000_000  # per seed and split
MAX_CACHED = 16  # rendered data sets that are kept for the next `open` of the same configuration


def clip_seed(seed: int, split: str, index: int) -> int:
    """The seed of one clip; different for each of the arguments."""
    return (seed * len(SPLITS) + SPLITS.index(split)) * MAX_CLIPS + index


@dataclass(frozen=True)
class World(DataConfig):
    """Labelled videos of the procedural street."""

    look: str = "source"  # appearance: source, mid, target, or abroad, which is of other streets
    split: str = "train"  # train or val; they share no street
    size: tuple[int, int] = (64, 128)  # height and width of the frames in pixels, multiples of 4
    num_clips: int = 160  # number of videos
    num_frames: int = 2  # consecutive frames of a video
    frame_step: int = 1  # frames of the drive from one frame of a video to the next; 2 makes all move twice as fast
    seed: int = 0  # chooses the streets
    render_on_access: bool = False  # render a clip whenever it is read instead of keeping all in memory
    classes: Literal["viper", "synthia"] = "viper"  # benchmark of the labels' classes: 15, or 12 of which 11 count

    def __post_init__(self) -> None:
        """Refuses what cannot be rendered."""
        if self.look not in LOOKS:
            raise ValueError(f"the world has no look {self.look!r}: choose one of {', '.join(LOOKS)}")
        if self.split not in SPLITS:
            raise ValueError(f"the world has no split {self.split!r}: choose one of {', '.join(SPLITS)}")
        if min(self.size) < 16 or self.size[0] % 4 or self.size[1] % 4:
            raise ValueError(
                f"frames of {self.size[1]}x{self.size[0]} pixels do not work: use multiples of 4 from 16 up"
            )
        if not 1 <= self.num_clips <= MAX_CLIPS:
            raise ValueError(f"num_clips is {self.num_clips}: choose 1 to {MAX_CLIPS}")
        if self.classes not in LABEL_SPACES:
            raise ValueError(f"the world has no classes {self.classes!r}: choose one of {', '.join(LABEL_SPACES)}")
        if self.num_frames < 1 or self.frame_step < 1 or self.seed < 0:
            raise ValueError("num_frames and frame_step must be at least 1 and seed at least 0")

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the benchmark."""
        return LABEL_SPACES[self.classes]

    def open(self) -> Dataset[LabelledClip]:
        """Renders the clips, or finds them rendered by an earlier call."""
        return LabelledWorld(self)


@dataclass(frozen=True)
class WorldFlow(World):
    """Pairs of frames of the procedural street with the true flow between them."""

    NUM_FRAMES: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Refuses what cannot be rendered."""
        super().__post_init__()
        if self.num_frames != self.NUM_FRAMES:
            raise ValueError(f"flow is between two frames, not {self.num_frames}: leave num_frames at 2")

    def open(self) -> Dataset[FlowClip]:  # type: ignore[override]  # the items differ, which is all this class is for
        """Renders the clips, or finds them rendered by an earlier call."""
        return FlowWorld(self)


class RenderedClips:
    """The rendered clips of a configuration, kept in memory unless it says otherwise."""

    def __init__(self, config: World) -> None:
        """Renders now what is to be kept."""
        self.config = config
        self.kept: tuple[RenderedClip, ...] = ()
        if not config.render_on_access:
            self.kept = _render_all(
                config.look, config.split, config.size, config.num_clips, config.num_frames, config.frame_step,
                config.seed,
            )  # fmt: skip

    def __len__(self) -> int:
        """Number of clips."""
        return self.config.num_clips

    def __getitem__(self, index: int) -> RenderedClip:
        """One clip."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.kept:
            return self.kept[index]
        config = self.config
        seed = clip_seed(config.seed, config.split, index)
        return render_clip(seed, config.look, config.size, config.num_frames, config.frame_step)


class LabelledWorld(LabelledDataset):
    """Clips with labels of all frames."""

    def __init__(self, config: World) -> None:
        """Opens the clips of a configuration."""
        self.clips = RenderedClips(config)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.clips)

    def __getitem__(self, index: int) -> LabelledClip:
        """A clip without the batch dimension."""
        clip = self.clips[index]
        labels = self._labels(clip)
        # Quarter labels are read where a nearest resize of the last label image reads: at the middle of 4x4 pixels.
        return LabelledClip(_frames(clip), labels, labels[-1, 2::4, 2::4].contiguous())

    def native_labels(self, index: int) -> torch.Tensor:
        """The labels of a clip's last frame; they were rendered at the size of the frames."""
        return self._labels(self.clips[index])[-1]

    def _labels(self, clip: RenderedClip) -> torch.Tensor:
        return torch.from_numpy(TRAIN_IDS_OF_KINDS[self.clips.config.classes][clip.kinds]).long()


class FlowWorld(Dataset[FlowClip]):
    """Pairs of frames with flow."""

    def __init__(self, config: WorldFlow) -> None:
        """Opens the clips of a configuration."""
        self.clips = RenderedClips(config)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.clips)

    def __getitem__(self, index: int) -> FlowClip:
        """A pair without the batch dimension."""
        clip = self.clips[index]
        flow = torch.from_numpy(clip.flow[0]).permute(2, 0, 1).contiguous()
        return FlowClip(_frames(clip), flow, torch.from_numpy(clip.valid[0]))


def _frames(clip: RenderedClip) -> torch.Tensor:
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255


@lru_cache(maxsize=MAX_CACHED)
def _render_all(
    look: str, split: str, size: tuple[int, int], num_clips: int, num_frames: int, frame_step: int, seed: int
) -> tuple[RenderedClip, ...]:
    """All clips of a split. Configurations that differ only in their kind of items share them."""

    return tuple(
        render_clip(clip_seed(seed, split, index), look, size, num_frames, frame_step)
        for index in with_progress(range(num_clips), f"rendering {look} {split}")
    )
