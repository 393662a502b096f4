"""Pre-trains the network with which DA-VSS tells where warping went wrong, before its second stage.

Zhuang, Wang and Wang, Video Semantic Segmentation with Distortion-Aware Feature Correction, TCSVT 2020, first step. A
clip's first frame is the key frame; scores P and image W are carried from there to each later frame, hop by hop:

    L = mean over hops and pixels of BCE(up4 DMNet(W, down4(x_t)), [argmax up4(P) != argmax up4(up2(segmenter(x_t)))])

The truth is what the segmentation network says of the frame itself, so no labels are needed. Everything but DMNet is
frozen and in evaluation mode. As in the released code: two hops where clips have three frames, Adam, a tenth of its
rate from half of the run on. Departures: probabilities are kept away from 0 and 1 by `MARGIN`, because a pixel whose
two images are the same but for rounding has a cosine of 1, and a logarithm there would drown all others; resizing is
that of `training.models.da_vss`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.clip import Clip, LabelledClip
from training.methods.method import Networks, Update
from training.methods.optimization import Adam, OptimizerSpec, Schedule, StepDecay
from training.methods.pretraining import Pretraining
from training.models.da_vss import at_quarter_resolution
from training.models.distortion import DistortionMap
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.per_frame import PerFrame, PerFrameConfig
from training.models.upsampling import upsample
from training.models.warping import warp

MARGIN = 1e-6


class Example(NamedTuple):
    """What DMNet sees of a hop, and what it should say."""

    warped: Tensor  # (B, 3, H / 4, W / 4), the key frame as it came along the flow
    image: Tensor  # (B, 3, H / 4, W / 4), the current frame
    is_wrong: Tensor  # (B, H, W) bool, where the scores that came along have another class than the frame's own


@dataclass(eq=False)
class DistortionPretraining(Pretraining[LabelledClip]):
    """Trains "dmnet" with the frozen "segmenter" of stage one and "flow_net"; the target is not looked at."""

    trained = "dmnet"

    segmenter: PerFrameConfig = field(default_factory=PerFrameConfig)  # the network that DA-VSS has on key frames
    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # flow network between consecutive frames
    # of the statistics of DMNet's inner BatchNorms: how much a batch weighs; short trainings need more
    statistics_momentum: float = 3e-4
    optimizer: OptimizerSpec = field(default_factory=lambda: Adam(learning_rate=1e-4))  # of DMNet
    schedule: Schedule = field(default_factory=StepDecay)  # of the learning rate

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        return {
            "dmnet": DistortionMap(self.statistics_momentum),
            "segmenter": self.segmenter.build(num_classes),
            "flow_net": self.flow_net.build(),
        }

    def updates(self, networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
        """One step on the source's frames."""
        del target
        examples = list(distortion_examples(networks, source.frames))
        yield Update("dmnet", {"distortion": distortion_loss(cast("DistortionMap", networks["dmnet"]), examples)})


@torch.no_grad()
def distortion_examples(networks: Networks, frames: Tensor) -> Iterator[Example]:
    """The hops of clips (B, T, 3, H, W), T >= 2, whose first frame is the key frame."""
    segmenter, flow_net = cast("PerFrame", networks["segmenter"]), cast("FlowNet", networks["flow_net"])
    previous, *others = frames.unbind(1)
    scores, warped = upsample(segmenter.segnet(previous), 2), at_quarter_resolution(previous)
    for frame in others:
        flow = flow_net(frame, previous)
        scores, warped = warp(scores, flow), warp(warped, flow)
        own_scores = upsample(segmenter.segnet(frame), 2)
        is_wrong = upsample(scores, 4).argmax(1) != upsample(own_scores, 4).argmax(1)
        yield Example(warped, at_quarter_resolution(frame), is_wrong)
        previous = frame


def distortion_loss(dmnet: DistortionMap, examples: Sequence[Example]) -> Tensor:
    """Binary cross entropy of the enlarged distortion maps, mean over pixels and hops."""
    losses = []
    for example in examples:
        probability = upsample(dmnet(example.warped, example.image), 4).clamp(MARGIN, 1 - MARGIN)
        losses.append(F.binary_cross_entropy(probability, example.is_wrong.unsqueeze(1).to(probability.dtype)))
    return torch.stack(losses).mean()
