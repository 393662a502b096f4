import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data import World, WorldFlow
from training.data.clip import LabelledClip
from training.data.labelled_dataset import LabelledDataset
from training.key_frame_sweep import answers_by_age, open_for_sweep, sweep_key_frame_intervals
from training.metrics import mean_iou
from training.models.video_segmenter import KeyState, Propagation, VideoSegmenter
from training.streaming import stream

CPU = torch.device("cpu")
SIDE = 16
PIXELS = SIDE * SIDE


class Ledger(VideoSegmenter):
    """Scores that tell which key frame they come from, and how many steps ago."""

    num_classes = 2
    stride = 1
    state_names = ("ledger",)

    def encode_key(self, frame: Tensor) -> KeyState:
        return (torch.cat([frame[:, :1], torch.zeros_like(frame[:, :1])], 1),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        aged = state[0] + torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
        return Propagation(aged, (aged,), aged, None)


class Aging(VideoSegmenter):
    """Answers its key-frame age, up to 5: one class for each."""

    num_classes = 6
    stride = 1
    state_names = ("age",)

    def encode_key(self, frame: Tensor) -> KeyState:
        return (torch.zeros_like(frame[:, :1]),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        age = state[0] + 1
        scores = F.one_hot(age[:, 0].long().clamp(max=5), 6).permute(0, 3, 1, 2).float()
        return Propagation(scores, (age,), scores, None)


class Still(LabelledDataset):
    """Clips in which nothing moves, and everything is of class 1."""

    def __init__(self, num_clips: int, num_frames: int) -> None:
        self.num_clips = num_clips
        picture = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        labels = torch.ones(num_frames, SIDE, SIDE, dtype=torch.int64)
        self.clip = LabelledClip(picture.repeat(num_frames, 1, 1, 1), labels, labels[-1, ::4, ::4])

    def __len__(self) -> int:
        return self.num_clips

    def __getitem__(self, index: int) -> LabelledClip:
        return self.clip

    def native_labels(self, index: int) -> Tensor:
        return torch.ones(2 * SIDE, 2 * SIDE, dtype=torch.int64)


def test_every_phase_of_a_stream_at_every_interval_is_among_the_answers_by_age() -> None:
    oldest = 5
    frames = torch.arange(oldest + 2.0).view(1, -1, 1, 1, 1).expand(1, -1, 3, 8, 8)
    answers = answers_by_age(Ledger(), frames)
    for interval in range(1, oldest + 1):
        ages = set()
        for age_before in range(1, interval + 1):  # key-frame age of the frame before the last, in one of N streams
            streamed = [answer.logits for answer in stream(Ledger(), frames[:, -2 - age_before :].unbind(1), interval)]
            age = age_before + 1 if age_before < interval else 1
            ages.add(age)
            assert torch.equal(streamed[-2], answers.before[age_before - 1])
            assert torch.equal(streamed[-1], answers.last[age - 1])
            assert streamed[-1][0, 1, 0, 0] == age
        assert ages == set(range(1, interval + 1))


def test_the_confusion_at_an_interval_is_the_sum_over_ages_one_to_the_interval() -> None:
    sweep = sweep_key_frame_intervals(Aging(), Still(2, 5), (1, 2, 3), ("sfc", "advent"), CPU)
    for at, expected in zip(sweep, ([0, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0]), strict=True):
        assert at.confusions["sfc"][1].tolist() == [2 * PIXELS * count for count in expected]
        assert at.confusions["advent"][1].tolist() == [2 * 4 * PIXELS * count for count in expected]  # as stored
        assert int(at.confusions["sfc"].sum()) == int(at.confusions["sfc"][1].sum())
    # Class 1 is right at age 1 only: its IoU is a half, then a third; the others are predicted and never right.
    assert [mean_iou(at.confusions["sfc"], [1]) for at in sweep] == [
        pytest.approx(percent) for percent in (100, 50, 100 / 3)
    ]


def test_consistency_at_an_interval_is_the_mean_over_its_phases() -> None:
    # Nothing moves, and answers agree only where both frames have the same age: both have age 1 at interval 1.
    # From age 5 on all answers are the same. At interval 6 the six phases have ages (before, last)
    # (1, 2) (2, 3) (3, 4) (4, 5) (5, 6) (6, 1): one of six agrees.
    sweep = sweep_key_frame_intervals(Aging(), Still(1, 8), (1, 2, 6), ("sfc",), CPU)
    assert [at.temporal_consistency for at in sweep] == [100.0, 0.0, pytest.approx(100 / 6)]


def test_clips_are_opened_as_long_as_the_largest_interval_needs() -> None:
    dataset = open_for_sweep(World(size=(64, 64), num_clips=1), (1, 3))
    assert len(dataset[0].frames) == 5


def test_data_with_clips_of_one_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"interval 4 takes clips of 6 frames.* choose smaller --key-frame-intervals"):
        open_for_sweep(WorldFlow(size=(64, 64), num_clips=1), (4,))
