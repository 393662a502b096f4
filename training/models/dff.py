"""Deep Feature Flow: the scores of a key frame carried along the flow, and no network on the current frame.

Zhu, Xiong, Dai, Yuan and Wei, Deep Feature Flow for Video Recognition, CVPR 2017. Names of weights are those of Accel's
official code (net_ref, flownet), and `scale`.

    key = up2(net_ref(x_k));   F, D = flow(x_t -> x_k), the features that the flow is read off
    scores = warp(key, F) * S, at 1/4 resolution;   S = 1 + 1x1 convolution of D

The flow leads from the current frame straight to the key frame, which is why the state keeps that frame: nothing is
warped twice, and errors do not add up; but the further away the key frame, the longer the flow.

Departures from the released code, which takes them over from its detector: class scores are carried instead of
features of 1024 channels, as SFC does in Accel; the flow network sees whole frames instead of halved ones; and thus
its features and its flow are those of 1/4 resolution, and not of 1/16. The scale map's bias is 1 and is not trained, as
there, so it is no parameter here; its weights start at zero, so that S is 1.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn

from training.models.deeplab import BackboneName, DeepLab
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.upsampling import upsample
from training.models.video_segmenter import KeyState, Motion, Propagation, SegmenterConfig, VideoSegmenter
from training.models.warping import warp


class Dff(VideoSegmenter):
    """The state is the key frame and its scores at 1/4 resolution. It stays as it is until the next key frame."""

    stride = 4
    state_names = ("key_scores", "image_of_key")
    reads_previous = False
    sensitive_layers = ("scale",)  # in 8-bit integers it would be far from 1 where it should be close

    def __init__(self, net_ref: DeepLab, flownet: FlowNet, num_classes: int, scale_map: bool) -> None:
        """Joins a network of `num_classes` scores and a flow network; see `DffConfig.scale_map`.

        Raises:
            ValueError: if there is to be a scale map, and the flow network gives no features to make it of.
        """
        super().__init__()
        if scale_map and not flownet.feature_channels:
            raise ValueError(
                f"{type(flownet).__name__} gives no features to make a scale map of: set scale_map off, or choose a"
                " flow network that does, such as flownet_s"
            )
        self.num_classes = num_classes
        self.net_ref = net_ref
        self.flownet = flownet
        self.scale: nn.Conv2d | None = None
        if scale_map:
            self.scale = nn.Conv2d(flownet.feature_channels, num_classes, 1, bias=False)
            nn.init.zeros_(self.scale.weight)

    def encode_key(self, frame: Tensor) -> KeyState:
        """The network's scores, at 1/4 resolution, and the frame."""
        return upsample(self.net_ref(frame), 2), frame

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        """Warps the key frame's scores onto `frame` and scales them."""
        del previous
        key_scores, key_frame = state
        if self.scale is None:
            flow = self.flownet(frame, key_frame)
            logits = warp(key_scores, flow)
        else:
            flow, features = self.flownet.with_features(frame, key_frame)
            logits = warp(key_scores, flow) * (1 + self.scale(features))
        return Propagation(logits, state=state, propagated_logits=logits, motion=Motion(flow, key_frame))

    def around_backbones(self) -> tuple[nn.Module, ...]:
        """The flow network, the scale map if there is one, and the classifier."""
        return (self.flownet, *(() if self.scale is None else (self.scale,)), self.net_ref.layer6)


@dataclass(frozen=True)
class DffConfig(SegmenterConfig):
    """Deep Feature Flow with a DeepLab and a flow network."""

    reference: BackboneName = "resnet101"  # residual network on key frames: the only one, so the step is cheap
    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # flow network from any frame to its key frame
    # multiply warped scores with what the flow network's features say, as in the paper; RAFT has no such features
    scale_map: bool = True

    def build(self, num_classes: int) -> Dff:
        """A newly initialised segmenter."""
        net_ref = DeepLab(self.reference, num_classes, auxiliary=False)
        return Dff(net_ref, self.flow_net.build(), num_classes, self.scale_map)
