"""Accel as DA-VSN and TPS have it: one network sees both frames, and a layer without bias fuses what it made of them.

Guan et al., Domain Adaptive Video Segmentation via Temporal Consistency Regularization (DA-VSN), ICCV 2021; Xing et
al., Domain Adaptive Video Segmentation via Temporal Pseudo Supervision (TPS), ECCV 2022. Names of weights are the
official ones: `sf_layer`, and those of the DeepLab, here below `segnet`.

    past(0) = segnet(x_0);   past(i) = warp(past(i-1), flow(x_i -> x_{i-1}))
    scores = sf_layer([segnet(x_t), past(t)]), a 1x1 convolution that starts as [I | 0]: the current frame alone

The DeepLab pools with `ceil_mode`, and corners are aligned wherever maps change their size, as in ADVENT. In training
the main and the auxiliary classifier's scores are fused with the same weights, and no gradient reaches the network that
looks at earlier frames.

Departures. Flow was computed beforehand by FlowNet2 and read from files there; here a flow network is part of the
segmenter and can be trained through the warp. Flow was scaled by feature_h / 512 there, 1/7.88 at 512x1024; here by
1/8, the distance of the map's pixels in the frame. Scores are warped as in TPS; DA-VSN splats them forward in training.
Over more than one frame the past is warped on, as in `Accel`; there the key frame is always the frame before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.deeplab import BackboneName, DeepLab
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.video_segmenter import KeyState, Levels, Motion, Propagation, SegmenterConfig, VideoSegmenter
from training.models.warping import warp


class SharedAccel(VideoSegmenter):
    """The state is the main classifier's scores, (H / 8 + 1, W / 8 + 1) pixels, warped from frame to frame."""

    stride = 8
    state_names = ("past_scores",)
    num_levels = 2

    def __init__(self, segnet: DeepLab, flownet: FlowNet, num_classes: int) -> None:
        """Joins networks by a new fusion layer. `segnet` has an auxiliary classifier and pools with `ceil_mode`."""
        super().__init__()
        self.num_classes = num_classes
        self.segnet = segnet
        self.flownet = flownet
        self.sf_layer = nn.Conv2d(2 * num_classes, num_classes, 1, bias=False)
        with torch.no_grad():
            self.sf_layer.weight.copy_(torch.eye(num_classes, 2 * num_classes)[:, :, None, None])

    def encode_key(self, frame: Tensor) -> KeyState:
        """The main classifier's scores."""
        return (self.segnet(frame),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Warps the scores of the past onto `frame` and fuses the frame's own with them."""
        flow = self.flownet(frame, previous)
        past = _warp_at_quarter_flow(state[0], flow)
        logits = self.sf_layer(torch.cat([self.segnet(frame), past], dim=1))
        # Of what sf_layer adds up, the part that the past contributes.
        propagated = F.conv2d(past, self.sf_layer.weight[:, self.num_classes :])
        return Propagation(logits, state=(past,), propagated_logits=propagated, motion=Motion(flow, previous))

    def level_logits(self, frames: Tensor) -> Levels:
        """Fused scores of the main classifier, then of the auxiliary one; no gradient reaches the past's `segnet`."""
        previous, *others = frames.unbind(1)
        with torch.no_grad():
            past = torch.cat(self.segnet.level_scores(previous), dim=1)
        for frame in others or [previous]:
            past = _warp_at_quarter_flow(past, self.flownet(frame, previous))
            previous = frame
        fused = zip(self.segnet.level_scores(previous), past.chunk(2, dim=1), strict=True)
        return tuple(self.sf_layer(torch.cat(scores, dim=1)) for scores in fused)

    def upsample(self, logits: Tensor, stride: int = 1) -> Tensor:
        """See `VideoSegmenter.upsample`; `align_corners=True`."""
        h, w = logits.shape[2:]
        factor = self.stride // stride
        return _resize(logits, ((h - 1) * factor, (w - 1) * factor))

    def around_backbones(self) -> tuple[nn.Module, ...]:
        """The fusion layer, the flow network and both classifiers."""
        return (self.sf_layer, self.flownet, self.segnet.layer6, self.segnet.layer5)


def _warp_at_quarter_flow(scores: Tensor, flow: Tensor) -> Tensor:
    """Scores (B, *, H / 8 + 1, W / 8 + 1) along flow (B, 2, H / 4, W / 4) in pixels of its own resolution."""
    return warp(scores, _resize(flow, scores.shape[2:]) / 2)


def _resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


@dataclass(frozen=True)
class SharedAccelConfig(SegmenterConfig):
    """The Accel of DA-VSN and TPS: one DeepLab for both frames, and a flow network."""

    backbone: BackboneName = "resnet101"  # residual network on every frame
    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # flow network between consecutive frames

    def build(self, num_classes: int) -> SharedAccel:
        """A newly initialised segmenter."""
        segnet = DeepLab(self.backbone, num_classes, auxiliary=True, ceil_mode=True)
        return SharedAccel(segnet, self.flow_net.build(), num_classes)
