"""What a run is judged by: a labelled data set and the figure read off it."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from training.data import DataConfig
from training.data.clip import Clip, FlowClip, LabelledClip
from training.data.unlabelled import Unlabelled
from training.methods.distortion_pretraining import distortion_examples, distortion_loss
from training.methods.flow_ratio_pretraining import flow_ratio_losses
from training.methods.flow_supervision import quarter_flow
from training.methods.losses import end_point_error, prediction_flow_loss
from training.methods.method import Networks
from training.metrics import confusion_matrix, mean_iou
from training.models.distortion import DistortionMap
from training.models.optical_flow import FlowNet
from training.models.segmentation_to_flow import flow_from_labels
from training.models.video_segmenter import VideoSegmenter

Measures = dict[str, float]
BATCH = 4  # clips evaluated at once


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A figure to select checkpoints by."""

    data: DataConfig

    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """The figures of networks in evaluation mode."""
        raise NotImplementedError

    def score(self, measures: Measures) -> float:
        """What the best checkpoint has the most of."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SegmentationValidation(Validation):
    """Mean IoU of the network "segmenter" in percent. On the target's validation frames this uses target labels."""

    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`miou` in percent."""
        confusion = segmentation_confusion(cast("VideoSegmenter", networks["segmenter"]), self.data, device)
        return {"miou": mean_iou(confusion, self.data.label_space.evaluated)}

    def score(self, measures: Measures) -> float:
        """The mean IoU."""
        return measures["miou"]


@dataclass(frozen=True, kw_only=True)
class FlowConsistencyValidation(SegmentationValidation):
    """The mean IoU and, beside it, what SFC minimises: of the networks "segmenter", "sfm" and "teacher_flow"."""

    softmax_scale: float = 100.0  # lambda_s, Eq. 3

    @torch.no_grad()
    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`miou` in percent, and `epe` of the flow that predictions imply, in quarter-resolution pixels (Fig. 5)."""
        segmenter = cast("VideoSegmenter", networks["segmenter"])
        sfm, teacher_flow = cast("FlowNet", networks["sfm"]), cast("FlowNet", networks["teacher_flow"])
        total, num_clips = 0.0, 0
        for clip in DataLoader(cast("Dataset[LabelledClip]", self.data.open()), BATCH):
            frames = clip.frames[:, -2:].to(device)
            pair = frames[:, 1], frames[:, 0]
            scores = segmenter(frames), segmenter(frames[:, :1])
            error = prediction_flow_loss(sfm, teacher_flow(*pair), scores, pair, self.softmax_scale)
            total, num_clips = total + len(frames) * float(error), num_clips + len(frames)
        return {**super().measure(networks, device), "epe": total / num_clips}


@dataclass(frozen=True, kw_only=True)
class FlowValidation(Validation):
    """End-point error of the network "flow_net" against true flow; `data` must carry flow."""

    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`epe` and, for scale, `epe_of_no_flow`, in quarter-resolution pixels."""
        return flow_error(cast("FlowNet", networks["flow_net"]), self.data, device)

    def score(self, measures: Measures) -> float:
        """The end-point error, negated."""
        return -measures["epe"]


@dataclass(frozen=True, kw_only=True)
class SfmValidation(Validation):
    """Mean end-point error between the flow that "sfm" reads off labels and that of "teacher_flow"."""

    @torch.no_grad()
    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`epe` over all pixels, as the released code measures it, in quarter-resolution pixels."""
        sfm, teacher_flow = cast("FlowNet", networks["sfm"]), cast("FlowNet", networks["teacher_flow"])
        errors = []
        for batch in DataLoader(cast("Dataset[LabelledClip]", self.data.open()), BATCH):
            clip = LabelledClip(*(tensor.to(device) for tensor in batch))
            frames, labels = (clip.frames[:, -1], clip.frames[:, -2]), (clip.labels[:, -1], clip.labels[:, -2])
            implied = flow_from_labels(sfm, *labels, *frames)
            errors.append(end_point_error(implied, teacher_flow(*frames)).mean((1, 2)))
        return {"epe": float(torch.cat(errors).mean())}

    def score(self, measures: Measures) -> float:
        """The end-point error, negated."""
        return -measures["epe"]


@dataclass(frozen=True, kw_only=True)
class FlowRatioValidation(Validation):
    """How much better "flow_ratio" knows the class with the flow of "teacher_flow" than by position alone."""

    @torch.no_grad()
    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """Mean cross entropy of either classifier over clips, `with_flow` and `of_position`, in nats."""
        losses = []
        for batch in DataLoader(cast("Dataset[LabelledClip]", self.data.open()), 1):
            clip = LabelledClip(*(tensor.to(device) for tensor in batch))
            losses.append(torch.stack(flow_ratio_losses(networks, clip)))
        with_flow, of_position = torch.stack(losses).mean(0).tolist()
        return {"with_flow": with_flow, "of_position": of_position}

    def score(self, measures: Measures) -> float:
        """What flow adds, in nats."""
        return measures["of_position"] - measures["with_flow"]


@dataclass(frozen=True, kw_only=True)
class DistortionValidation(Validation):
    """How well "dmnet" tells where scores of "segmenter" that came along the flow of "flow_net" are wrong."""

    @torch.no_grad()
    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`bce` over pixels and hops and, for scale, `distorted`, the share of pixels (%) that are."""
        losses, shares = [], []
        for clip in DataLoader(cast("Dataset[LabelledClip]", self.data.open()), 1):
            examples = list(distortion_examples(networks, clip.frames.to(device)))
            losses.append(distortion_loss(cast("DistortionMap", networks["dmnet"]), examples))
            shares += [example.is_wrong.double().mean() for example in examples]
        return {"bce": float(torch.stack(losses).mean()), "distorted": 100 * float(torch.stack(shares).mean())}

    def score(self, measures: Measures) -> float:
        """The binary cross entropy, negated."""
        return -measures["bce"]


@dataclass(frozen=True, kw_only=True)
class ConfidenceValidation(Validation):
    """How sure the network "segmenter" is of the last frames of `data`; labels that these may have are not looked at.

    A choice without labels. On a prototype of the embedded world the mean confidence of 28 trainings went with their
    mean IoU (rank correlation 0.81). Compare checkpoints of one training: a network that calls all of a frame one class
    can be sure of it.
    """

    num_clips: int = 40  # clips looked at, spread evenly over the data; all where there are fewer

    def __post_init__(self) -> None:
        """Refuses what cannot be measured."""
        if self.num_clips < 1:
            raise ValueError(f"num_clips is {self.num_clips}: look at 1 clip or more")

    @torch.no_grad()
    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """Means over pixels: `confidence` (%), the largest probability, and `negative_entropy` in nats.

        Where there is a network "teacher" also `teacher_agreement` (%), the share of pixels of the same class in both.
        """
        segmenter, teacher = cast("VideoSegmenter", networks["segmenter"]), networks.get("teacher")
        clips = []
        for batch in DataLoader(_spread(Unlabelled(self.data.open()), self.num_clips), BATCH):
            frames = batch.frames[:, -2:].to(device)
            logarithms = segmenter(frames).log_softmax(dim=1)
            probabilities, labels = logarithms.exp(), logarithms.argmax(dim=1)
            of_pixels = {
                "confidence": 100 * probabilities.amax(dim=1),
                "negative_entropy": (probabilities * logarithms).sum(dim=1),
            }
            if teacher is not None:
                of_pixels["teacher_agreement"] = 100.0 * (teacher(frames).argmax(dim=1) == labels)
            clips.append({name: values.double().mean((1, 2)) for name, values in of_pixels.items()})
        return {name: float(torch.cat([batch[name] for batch in clips]).mean()) for name in clips[0]}

    def score(self, measures: Measures) -> float:
        """The mean confidence."""
        return measures["confidence"]


@dataclass(frozen=True, kw_only=True)
class AgreementValidation(ConfidenceValidation):
    """The same figures for the networks "segmenter" and "teacher", chosen by how far these agree.

    Another choice without labels, for methods whose teacher gives probabilities: a student of these need not get surer
    as it gets better, but comes closer to its teacher. Not for checkpoints so early that the average has hardly left
    the student yet.
    """

    def score(self, measures: Measures) -> float:
        """The share of pixels of the same class in both."""
        return measures["teacher_agreement"]


@dataclass(frozen=True, kw_only=True)
class WatchedValidation(Validation):
    """What another validation chooses, and the mean IoU of all it chooses among: what choosing without labels costs."""

    choice: Validation  # chooses, on its own data

    def measure(self, networks: Networks, device: torch.device) -> Measures:
        """`miou` in percent, by labels of `data` that choose nothing, beside what is chosen by."""
        confusion = segmentation_confusion(cast("VideoSegmenter", networks["segmenter"]), self.data, device)
        miou = mean_iou(confusion, self.data.label_space.evaluated)
        return {**self.choice.measure(networks, device), "miou": miou}

    def score(self, measures: Measures) -> float:
        """That of the other."""
        return self.choice.score(measures)


def _spread(dataset: Unlabelled, num_clips: int) -> Dataset[Clip]:
    num_chosen = min(num_clips, len(dataset))
    return Subset(dataset, [number * len(dataset) // num_chosen for number in range(num_chosen)])


VALIDATIONS: tuple[type[Validation], ...] = (
    SegmentationValidation,
    FlowConsistencyValidation,
    ConfidenceValidation,
    AgreementValidation,
    WatchedValidation,
    FlowValidation,
    SfmValidation,
    FlowRatioValidation,
    DistortionValidation,
)


@torch.no_grad()
def segmentation_confusion(segmenter: VideoSegmenter, data: DataConfig, device: torch.device) -> Tensor:
    """Confusion matrix (C, C) of the last frame's predictions at the labels' size, on the CPU.

    Each clip is segmented as in the paper's evaluation: its first frame is the key frame.
    """
    total = torch.zeros(segmenter.num_classes, segmenter.num_classes, dtype=torch.int64)
    for clip in DataLoader(cast("Dataset[LabelledClip]", data.open()), BATCH):
        predictions = segmenter(clip.frames.to(device)).argmax(1).cpu()
        total += confusion_matrix(clip.labels[:, -1], predictions, segmenter.num_classes)
    return total


@torch.no_grad()
def flow_error(flow_net: FlowNet, data: DataConfig, device: torch.device) -> Measures:
    """Mean end-point error over visible pixels, in quarter-resolution pixels."""
    error, error_of_none, visible = 0.0, 0.0, 0.0
    for clip in DataLoader(cast("Dataset[FlowClip]", data.open()), BATCH):
        key_frame, frame = clip.frames.to(device).unbind(1)
        true_flow, weight = quarter_flow(clip.flow.to(device), clip.valid.to(device))
        flow = flow_net(frame, key_frame)
        error += float((end_point_error(flow, true_flow) * weight).sum())
        error_of_none += float((end_point_error(torch.zeros_like(flow), true_flow) * weight).sum())
        visible += float(weight.sum())
    return {"epe": error / visible, "epe_of_no_flow": error_of_none / visible}
