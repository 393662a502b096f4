"""Accel: old scores carried along the flow, corrected by a network on the current frame.

Jain, Wang and Gonzalez, Accel: A Corrective Fusion Network for Efficient Semantic Segmentation on Video, CVPR 2019, in
the form SFC gave it: class scores instead of features are warped and merged, two DeepLabV2 networks, thin FlowNetS.
Names of weights are the official ones (net_ref, net_update, flownet, merge).

    ref(0) = up2(net_ref(x_0));   ref(i) = warp(ref(i-1), flow(x_i -> x_{i-1}))
    scores = merge([ref, up2(net_update(x_t))]), a 1x1 convolution at 1/4 resolution
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.deeplab import BackboneName, DeepLab
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.upsampling import upsample
from training.models.video_segmenter import KeyState, Motion, Propagation, SegmenterConfig, VideoSegmenter
from training.models.warping import warp


class Accel(VideoSegmenter):
    """The state is the reference network's scores at 1/4 resolution, warped from frame to frame."""

    stride = 4
    state_names = ("reference_scores",)

    def __init__(
        self,
        net_ref: DeepLab,
        net_update: DeepLab,
        flownet: FlowNet,
        num_classes: int,
        merge_start: Literal["random", "average"],
    ) -> None:
        """Joins networks of `num_classes` scores each by a new merge layer; see `AccelConfig.merge_start`."""
        super().__init__()
        self.num_classes = num_classes
        self.net_ref = net_ref
        self.net_update = net_update
        self.flownet = flownet
        self.merge = nn.Conv2d(2 * num_classes, num_classes, 1)
        nn.init.zeros_(self.merge.get_parameter("bias"))
        match merge_start:
            case "random":
                nn.init.xavier_normal_(self.merge.weight)
            case "average":
                with torch.no_grad():
                    self.merge.weight.copy_(torch.eye(num_classes).repeat(1, 2)[:, :, None, None] / 2)

    def encode_key(self, frame: Tensor) -> KeyState:
        """The reference network's scores, at 1/4 resolution."""
        return (upsample(self.net_ref(frame), 2),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Warps the reference scores onto `frame` and merges them with the update network's."""
        return self.correct(state, previous, frame, self.net_update(frame))

    def correct(self, state: KeyState, previous: Tensor, frame: Tensor, update_scores: Tensor) -> Propagation:
        """`propagate` where the update network's scores of `frame`, (B, C, H / 8, W / 8), are known already."""
        flow = self.flownet(frame, previous)
        reference = warp(state[0], flow)
        updated = upsample(update_scores, 2)
        # Of what merge adds up, the part that the past contributes.
        propagated = F.conv2d(reference, self.merge.weight[:, : self.num_classes])
        logits = self.merge(torch.cat([reference, updated], dim=1))
        return Propagation(logits, state=(reference,), propagated_logits=propagated, motion=Motion(flow, previous))

    def around_backbones(self) -> tuple[nn.Module, ...]:
        """The merge layer, the flow network and both classifiers."""
        return (self.merge, self.flownet, self.net_ref.layer6, self.net_update.layer6)

    def folded(self) -> "FoldedAccel":
        """The same function with `merge` inside the two classifiers: up-sampling and warping commute with it."""
        net_ref, net_update = copy.deepcopy(self.net_ref), copy.deepcopy(self.net_update)
        of_reference, of_update = self.merge.weight[:, :, 0, 0].chunk(2, dim=1)
        bias = self.merge.get_parameter("bias")
        net_ref.layer6.mix(of_reference, torch.zeros_like(bias))
        net_update.layer6.mix(of_update, bias)
        return FoldedAccel(net_ref, net_update, self.flownet, self.num_classes)


class FoldedAccel(VideoSegmenter):
    """`Accel` without its merge layer: the classifiers' scores are already weighted, so they are added."""

    stride = 4
    state_names = ("weighted_reference_scores",)

    def __init__(self, net_ref: DeepLab, net_update: DeepLab, flownet: FlowNet, num_classes: int) -> None:
        """Joins networks whose scores are to be added."""
        super().__init__()
        self.num_classes = num_classes
        self.net_ref = net_ref
        self.net_update = net_update
        self.flownet = flownet

    def encode_key(self, frame: Tensor) -> KeyState:
        """The reference network's weighted scores, at 1/4 resolution."""
        return (upsample(self.net_ref(frame), 2),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Warps the reference scores onto `frame` and adds the update network's."""
        flow = self.flownet(frame, previous)
        reference = warp(state[0], flow)
        logits = reference + upsample(self.net_update(frame), 2)
        return Propagation(logits, state=(reference,), propagated_logits=reference, motion=Motion(flow, previous))


@dataclass(frozen=True)
class AccelConfig(SegmenterConfig):
    """Accel with two DeepLabs and a flow network."""

    reference: BackboneName = "resnet101"  # residual network on key frames: the expensive one
    update: BackboneName = "resnet101"  # residual network on every frame; a smaller one makes streaming cheap
    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # flow network between consecutive frames
    # weights of a new merge layer: drawn, as in the official code, or the mean of both branches, for short trainings
    merge_start: Literal["random", "average"] = "random"

    def build(self, num_classes: int) -> Accel:
        """A newly initialised segmenter."""
        return Accel(
            net_ref=DeepLab(self.reference, num_classes, auxiliary=False),
            net_update=DeepLab(self.update, num_classes, auxiliary=False),
            flownet=self.flow_net.build(),
            num_classes=num_classes,
            merge_start=self.merge_start,
        )
