import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from training.data.clip import IGNORE, Clip, FlowClip, LabelledClip
from training.data.data_config import DataConfig
from training.label_spaces import ClassInfo, LabelSpace
from training.methods.method import Networks
from training.models.deeplab import DeepLab
from training.models.distortion import DistortionMap
from training.models.flow_ratio import FlowRatio
from training.models.optical_flow import FlowNet
from training.models.per_frame import PerFrame
from training.models.video_segmenter import KeyState, Propagation, VideoSegmenter
from training.validation import (
    BATCH,
    AgreementValidation,
    ConfidenceValidation,
    DistortionValidation,
    FlowConsistencyValidation,
    FlowRatioValidation,
    FlowValidation,
    SegmentationValidation,
    SfmValidation,
    Validation,
    WatchedValidation,
    flow_error,
    segmentation_confusion,
)

CPU = torch.device("cpu")
SIDE = 16
THREE = LabelSpace(
    "three", (ClassInfo("a", (0, 0, 0), ()), ClassInfo("b", (1, 1, 1), ()), ClassInfo("c", (2, 2, 2), (), False))
)


class Listed(Dataset[Any]):
    def __init__(self, clips: tuple[Any, ...]) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Any:
        return self.clips[index]


@dataclass(frozen=True, eq=False)
class Handmade(DataConfig):
    """Clips in memory."""

    clips: tuple[Any, ...]
    size: tuple[int, int] = (SIDE, SIDE)

    @property
    def label_space(self) -> LabelSpace:
        return THREE

    def open(self) -> Dataset[Any]:
        return Listed(self.clips)


class Reader(VideoSegmenter):
    """Reads the class off the red channel of the current frame, or, where that is white, of the key frame."""

    num_classes = 3
    stride = 1
    state_names = ("red",)

    def encode_key(self, frame: Tensor) -> KeyState:
        return (frame[:, :1],)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        red = torch.where(frame[:, :1] == 1, state[0], frame[:, :1])
        scores = -(10 * red - torch.arange(3).view(1, 3, 1, 1)).abs()
        return Propagation(scores, state, scores, None)


class Constant(FlowNet):
    """The same flow everywhere."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.flow = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        return self.flow.expand(len(current), 2, current.shape[2] // 4, current.shape[3] // 4)


def labelled(last_labels: Tensor, *reds: float) -> LabelledClip:
    """A clip whose frames are red to a degree each; the labels of all frames but the last are class 2."""
    frames = torch.zeros(len(reds), 3, SIDE, SIDE)
    frames[:, 0] = torch.tensor(reds).view(-1, 1, 1)
    labels = torch.full((len(reds), SIDE, SIDE), 2)
    labels[-1] = last_labels
    return LabelledClip(frames, labels, labels[-1, 2::4, 2::4])


def all_of(category: int) -> Tensor:
    return torch.full((SIDE, SIDE), category)


def test_only_the_labels_of_last_frames_are_compared_and_ignored_pixels_left_out() -> None:
    half = all_of(1)
    half[: SIDE // 2] = IGNORE
    clips = (labelled(all_of(0), 0.2, 0.0), labelled(half, 0.2, 0.0), labelled(all_of(1), 0.2, 0.1))
    confusion = segmentation_confusion(Reader(), Handmade(clips), CPU)
    pixels = SIDE * SIDE
    assert confusion.tolist() == [[pixels, 0, 0], [pixels // 2, pixels, 0], [0, 0, 0]]


def test_the_first_frame_of_a_clip_is_the_key_frame() -> None:
    confusion = segmentation_confusion(Reader(), Handmade((labelled(all_of(1), 0.1, 0.0, 1.0),)), CPU)
    assert confusion[1, 1] == SIDE * SIDE


def test_every_clip_counts_once_also_in_the_last_and_smaller_batch() -> None:
    clips = tuple(labelled(all_of(0), 0.0, 0.0) for _ in range(2 * BATCH + 1))
    assert segmentation_confusion(Reader(), Handmade(clips), CPU)[0, 0] == len(clips) * SIDE * SIDE


def test_the_score_of_a_segmenter_is_the_mean_iou_over_evaluated_classes() -> None:
    # Class 0: half of its pixels found, IoU 50. Class 1: all found, but as many of class 2 are taken for it, IoU 50.
    upper = torch.zeros(SIDE, SIDE)
    upper[: SIDE // 2] = 0.2
    first = labelled(all_of(0), 0.0, 0.0)
    first.frames[-1, 0] = upper
    clips = (first, labelled(all_of(1), 0.0, 0.1), labelled(all_of(2), 0.0, 0.1))
    validation = SegmentationValidation(data=Handmade(clips))
    measures = validation.measure({"segmenter": Reader()}, CPU)
    assert measures == {"miou": 50.0}
    assert validation.score(measures) == 50.0


def test_flow_is_worth_what_it_adds_to_position() -> None:
    ratio = FlowRatio(3, width=4)
    for classifier, bias in ((ratio.of_flow, (math.log(2), 0.0, 0.0)), (ratio.of_position, (0.0, 0.0, 0.0))):
        for parameter in classifier.parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            list(classifier.parameters())[-1].copy_(torch.tensor(bias))
    clips = (labelled(all_of(0), 0.0, 0.0), labelled(all_of(1), 0.0, 0.0))  # found with 1/2 and 1/4, or 1/3
    validation = FlowRatioValidation(data=Handmade(clips))
    measures = validation.measure({"flow_ratio": ratio, "teacher_flow": Constant(1, 0)}, CPU)
    assert measures == {"with_flow": pytest.approx(1.5 * math.log(2)), "of_position": pytest.approx(math.log(3))}
    assert validation.score(measures) == measures["of_position"] - measures["with_flow"]


class Divided(VideoSegmenter):
    """Of two classes: one of probability 0.8 in the upper half, an equal chance in the lower one."""

    num_classes = 2
    stride = 1

    def forward(self, frames: Tensor) -> Tensor:
        scores = torch.zeros(len(frames), 2, *frames.shape[-2:])
        scores[:, 1, : SIDE // 2] = math.log(0.8 / 0.2)
        return scores


class First(Divided):
    """Finds the first class everywhere; the lower half of `Divided` is that too."""

    def forward(self, frames: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(frames), 2, *frames.shape[-2:])


def test_confidence_by_hand_with_and_without_a_teacher() -> None:
    data = Handmade(tuple(Clip(torch.zeros(2, 3, SIDE, SIDE)) for _ in range(BATCH + 1)))  # which have no labels
    validation = ConfidenceValidation(data=data)
    measures = validation.measure({"segmenter": Divided()}, CPU)
    entropies = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)), math.log(2)
    assert measures == {
        "confidence": pytest.approx((80 + 50) / 2),
        "negative_entropy": pytest.approx(-sum(entropies) / 2),
    }
    assert validation.score(measures) == measures["confidence"]
    with_teacher = validation.measure({"segmenter": Divided(), "teacher": First()}, CPU)
    assert with_teacher == measures | {"teacher_agreement": 50.0}


def test_agreement_chooses_by_the_teacher() -> None:
    validation = AgreementValidation(data=Handmade((Clip(torch.zeros(2, 3, SIDE, SIDE)),)))
    assert validation.score(validation.measure({"segmenter": Divided(), "teacher": First()}, CPU)) == 50


def test_what_is_watched_chooses_nothing() -> None:
    labels = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    clip = LabelledClip(torch.zeros(2, 3, SIDE, SIDE), labels, labels[-1, ::4, ::4])
    choice = ConfidenceValidation(data=Handmade((clip,)))
    watched = WatchedValidation(data=choice.data, choice=choice)
    measures = watched.measure({"segmenter": First()}, CPU)
    assert measures == choice.measure({"segmenter": First()}, CPU) | {"miou": measures["miou"]}
    assert watched.score(measures) == choice.score(measures)
    assert watched.score(measures | {"miou": 0.0}) == watched.score(measures)


def test_confidence_is_of_clips_spread_over_the_data_and_of_their_last_two_frames() -> None:
    class Sure(Divided):
        """As sure as the frame before the last is red."""

        def forward(self, frames: Tensor) -> Tensor:
            share = frames[:, 0, :1]
            return torch.cat([share, 1 - share], dim=1).log()

    def reds(*values: float) -> Clip:
        return Clip(torch.tensor(values).view(-1, 1, 1, 1).expand(len(values), 3, SIDE, SIDE))

    data = Handmade((reds(0.5, 0.9, 0.1), reds(0.5, 0.6, 0.1), reds(0.5, 0.7, 0.1), reds(0.5, 0.6, 0.1)))
    networks: Networks = {"segmenter": Sure()}
    confidence = {
        num_clips: ConfidenceValidation(data=data, num_clips=num_clips).measure(networks, CPU)["confidence"]
        for num_clips in (1, 2, 40)
    }
    assert confidence == pytest.approx({1: 90, 2: 80, 40: 70})


def test_a_choice_by_no_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="num_clips is 0: look at 1 clip or more"):
        ConfidenceValidation(data=Handmade(()), num_clips=0)


def flow_clip(x: float, num_visible_rows: int) -> FlowClip:
    flow = torch.zeros(2, SIDE, SIDE)
    flow[0] = x
    valid = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    valid[:num_visible_rows] = True
    return FlowClip(torch.zeros(2, 3, SIDE, SIDE), flow, valid)


def test_the_flow_error_is_the_mean_over_visible_pixels_at_quarter_resolution() -> None:
    # 16 cells that move by 1 and 8 visible ones that move by 3, of a network that says 1.
    data = Handmade((flow_clip(4.0, SIDE), flow_clip(12.0, SIDE // 2)))
    assert flow_error(Constant(1, 0), data, CPU) == {
        "epe": pytest.approx(8 * 2 / 24), "epe_of_no_flow": pytest.approx((16 * 1 + 8 * 3) / 24),
    }  # fmt: skip


def test_clips_of_different_batches_weigh_the_same() -> None:
    clips = tuple(flow_clip(4.0, SIDE) for _ in range(BATCH))
    measures = flow_error(Constant(0, 0), Handmade((*clips, flow_clip(24.0, SIDE))), CPU)
    assert measures["epe"] == pytest.approx((BATCH * 1 + 6) / (BATCH + 1))


def test_the_implied_flow_is_compared_with_the_teachers_for_every_class_in_the_clip() -> None:
    both = all_of(0)
    both[:, : SIDE // 2] = 1
    clips = (labelled(all_of(2), 0.0, 0.0), labelled(both, 0.0, 0.0))
    # One class in the first clip; in the second two in the last frame and a third in the frame before.
    networks: Networks = {"sfm": Constant(1, 0), "teacher_flow": Constant(3, 4)}
    distances = [((count - 3) ** 2 + 4**2) ** 0.5 for count in (1, 3)]
    measures = SfmValidation(data=Handmade(clips)).measure(networks, CPU)
    assert measures == {"epe": pytest.approx(sum(distances) / 2)}


def test_the_flow_that_predictions_imply_is_measured_beside_their_mean_iou() -> None:
    # Of five clips in two batches. All three classes add their flow, whatever is predicted: 3 against (3, 4).
    clips = tuple(labelled(all_of(category), 0.0, category / 10) for category in (0, 1, 1, 2, 0))
    networks: Networks = {"segmenter": Reader(), "sfm": Constant(1, 0), "teacher_flow": Constant(3, 4)}
    validation = FlowConsistencyValidation(data=Handmade(clips))
    measures = validation.measure(networks, CPU)
    assert measures == {"miou": 100.0, "epe": pytest.approx(4)}
    assert validation.score(measures) == 100.0


@pytest.mark.parametrize("validation", [FlowValidation(data=Handmade(())), SfmValidation(data=Handmade(()))])
def test_the_best_flow_is_the_one_with_the_smallest_error(validation: Validation) -> None:
    assert validation.score({"epe": 0.5, "epe_of_no_flow": 1.0}) > validation.score({"epe": 0.7, "epe_of_no_flow": 9.0})


class Red(DeepLab):
    """Reads the class off the red channel."""

    def __init__(self) -> None:
        super().__init__("resnet10_slim", 3, auxiliary=False)

    def forward(self, frame: Tensor) -> Tensor:
        return -(10 * frame[:, :1, 4::8, 4::8] - torch.arange(3).view(1, 3, 1, 1)).abs()


class Undecided(DistortionMap):
    """Finds distortions a quarter likely everywhere."""

    def forward(self, warped: Tensor, image: Tensor) -> Tensor:
        del image
        return torch.full_like(warped[:, :1], 0.25)


def test_distortion_validation_compares_what_came_along_with_the_frames_own_class() -> None:
    networks: Networks = {"dmnet": Undecided(), "segmenter": PerFrame(Red(), 3), "flow_net": Constant(0, 0)}
    # Of the first frame's class are none of the later two, one of them, and both of them: half of all.
    clips = tuple(labelled(all_of(2), 0.0, *later) for later in ((0.1, 0.2), (0.0, 0.2), (0.0, 0.0)))
    validation = DistortionValidation(data=Handmade(clips))
    measures = validation.measure(networks, CPU)
    assert measures == {"bce": pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2), "distorted": pytest.approx(50)}
    assert validation.score(measures) == -measures["bce"]


def test_flow_validation_measures_the_network_of_that_name() -> None:
    data = Handmade((flow_clip(4.0, SIDE),))
    measures = FlowValidation(data=data).measure({"flow_net": Constant(1, 0), "other": Constant(9, 9)}, CPU)
    assert measures == {"epe": 0.0, "epe_of_no_flow": 1.0}
