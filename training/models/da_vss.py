"""Distortion-aware video segmentation: old scores carried along the flow, and replaced where that distorted them.

Zhuang, Wang and Wang, Video Semantic Segmentation with Distortion-Aware Feature Correction, TCSVT 2020. Names of
weights are those of Accel's official code (net_ref, flownet), and `dmnet` and `cfnet` (`training.models.distortion`).

    P(0) = up2(net_ref(x_0));   P(i) = warp(P(i-1), flow(x_i -> x_{i-1}))
    W(0) = down4(x_0);          W(i) = warp(W(i-1), the same flow)
    D = DMNet(W, down4(x_t));   scores = P (1 - D) + CFNet(x_t) D, at 1/4 resolution

The image travels with the scores, so it is distorted where they are, and unlike them it can be compared with what is
there now. What is carried on is P, not the corrected scores, as in the original's hops. DMNet is trained before all
else (`training.methods.distortion_pretraining`) and stays as it is afterwards, statistics included.

Departures from the released code: DeepLabV2 in place of DeepLabv3+, its scores enlarged to 1/4 resolution, as in SFC's
Accel; FlowNetS with its biases. There scores and distortion map are blended after both have been enlarged to the
frame's size; here at 1/4 resolution, which is the same where D is constant and otherwise differs between pixels of
that grid alone. Resizing is bilinear with `align_corners=False`, as everywhere here, where it has True. CFNet's initial
weights are torch's.
"""

from dataclasses import dataclass, field
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.deeplab import BackboneName, DeepLab
from training.models.distortion import Correction, DistortionMap
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.upsampling import upsample
from training.models.video_segmenter import KeyState, Motion, Propagation, SegmenterConfig, VideoSegmenter
from training.models.warping import warp


class DaVss(VideoSegmenter):
    """The state is the network's scores and the image, at 1/4 resolution, both warped from frame to frame."""

    stride = 4
    state_names = ("reference_scores", "warped_image")
    sensitive_layers = ("dmnet",)  # of few channels, and its cosine of small differences: too little for 8-bit integers

    def __init__(
        self, net_ref: DeepLab, flownet: FlowNet, dmnet: DistortionMap, cfnet: Correction, num_classes: int
    ) -> None:
        """Joins networks of `num_classes` scores each; `dmnet` stays in evaluation mode."""
        super().__init__()
        self.num_classes = num_classes
        self.net_ref = net_ref
        self.flownet = flownet
        self.dmnet = dmnet.eval()
        self.cfnet = cfnet

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode of all networks but `dmnet`, whose statistics were fixed with its weights."""
        super().train(mode)
        self.dmnet.eval()
        return self

    def encode_key(self, frame: Tensor) -> KeyState:
        """The network's scores and the frame, at 1/4 resolution."""
        return upsample(self.net_ref(frame), 2), at_quarter_resolution(frame)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Warps scores and image onto `frame`, and corrects the scores where the image is distorted."""
        flow = self.flownet(frame, previous)
        scores, image = (warp(tensor, flow) for tensor in state)
        distortion_map = self.dmnet(image, at_quarter_resolution(frame))
        propagated = scores * (1 - distortion_map)
        logits = propagated + self.cfnet(frame) * distortion_map
        return Propagation(logits, state=(scores, image), propagated_logits=propagated, motion=Motion(flow, previous))

    def around_backbones(self) -> tuple[nn.Module, ...]:
        """The flow network, the correcting network and the classifier."""
        return (self.flownet, self.cfnet, self.net_ref.layer6)


def at_quarter_resolution(frame: Tensor) -> Tensor:
    """A frame (B, 3, H, W) as (B, 3, H / 4, W / 4), bilinear: of 4x4 pixels the mean of the inner four."""
    return F.interpolate(frame, scale_factor=0.25, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class DaVssConfig(SegmenterConfig):
    """DA-VSS with a DeepLab, a flow network and the two networks of its own."""

    reference: BackboneName = "resnet101"  # residual network on key frames
    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # flow network between consecutive frames
    correction_width: float = 1.0  # factor on CFNet's channels; 1 is the official network of 9.49 M parameters

    def build(self, num_classes: int) -> DaVss:
        """A newly initialised segmenter."""
        return DaVss(
            net_ref=DeepLab(self.reference, num_classes, auxiliary=False),
            flownet=self.flow_net.build(),
            dmnet=DistortionMap(),
            cfnet=Correction(num_classes, self.correction_width),
            num_classes=num_classes,
        )
