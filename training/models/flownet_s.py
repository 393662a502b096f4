"""The thin FlowNetS of Deep Feature Flow and SFC: 3/8 of FlowNetS's width, flow at quarter resolution.

Fischer et al., FlowNet: Learning Optical Flow with Convolutional Networks, ICCV 2015. Names of weights are those of
the official SFC code. Its deconvolutions are unpadded and cropped afterwards, which is what odd sizes rely on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.input_conversion import flow_input
from training.models.optical_flow import FlowNet, FlowNetConfig

Modulate = Callable[[Tensor, int], Tensor]  # an encoder map and its level -> a map of the same size

FLOW_UNIT = 20 / 4  # the network counts in 20 full-resolution pixels; four of those are one quarter-resolution pixel


class FlowNetS(FlowNet):
    """Encoder to 1/64 resolution, decoder back to 1/4 that refines the flow level by level."""

    # lose too much in 8-bit integers: the stem and what predicts flow
    sensitive_layers = ("conv1", "predict_flow6", "predict_flow5", "predict_flow4", "predict_flow3", "predict_flow2")

    def __init__(self, width: float = 1.0) -> None:
        """Draws new weights.

        Args:
            width: Factor on all channels.
        """
        super().__init__()
        c1, c2, c3, c4, c6 = (round(width * channels) for channels in (24, 48, 96, 192, 384))
        self.encoder_channels = {2: c2, 3: c3, 4: c4, 5: c4, 6: c6}  # by level
        self.conv1 = _convolution(6, c1, kernel=7, stride=2)
        self.conv2 = _convolution(c1, c2, kernel=5, stride=2)
        self.conv3 = _convolution(c2, c3, kernel=5, stride=2)
        self.conv3_1 = _convolution(c3, c3)
        self.conv4 = _convolution(c3, c4, stride=2)
        self.conv4_1 = _convolution(c4, c4)
        self.conv5 = _convolution(c4, c4, stride=2)
        self.conv5_1 = _convolution(c4, c4)
        self.conv6 = _convolution(c4, c6, stride=2)
        self.conv6_1 = _convolution(c6, c6)

        # A decoder level sees its encoder map, the deconvolved level below and that level's flow.
        d5, d4, d3, d2 = c4 + c4 + 2, c4 + c3 + 2, c3 + c2 + 2, c2 + c1 + 2
        self.feature_channels = d2
        self.deconv5 = _deconvolution(c6, c4)
        self.deconv4 = _deconvolution(d5, c3)
        self.deconv3 = _deconvolution(d4, c2)
        self.deconv2 = _deconvolution(d3, c1)
        self.predict_flow6 = nn.Conv2d(c6, 2, 3, padding=1)
        self.predict_flow5 = nn.Conv2d(d5, 2, 3, padding=1)
        self.predict_flow4 = nn.Conv2d(d4, 2, 3, padding=1)
        self.predict_flow3 = nn.Conv2d(d3, 2, 3, padding=1)
        self.predict_flow2 = nn.Conv2d(d2, 2, 3, padding=1)
        self.upsample_flow6to5 = nn.ConvTranspose2d(2, 2, 4, stride=2)
        self.upsample_flow5to4 = nn.ConvTranspose2d(2, 2, 4, stride=2)
        self.upsample_flow4to3 = nn.ConvTranspose2d(2, 2, 4, stride=2)
        self.upsample_flow3to2 = nn.ConvTranspose2d(2, 2, 4, stride=2)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """See `FlowNet.forward`."""
        return self.with_features(current, previous)[0]

    def with_features(
        self, current: Tensor, previous: Tensor, modulate: Modulate = lambda features, _: features
    ) -> tuple[Tensor, Tensor]:
        """See `FlowNet.with_features`; the official code calls these features concat2.

        `modulate` gets the encoder's maps of levels 2 to 6, at 1 / 2^level of the resolution, and gives others.
        """
        level2 = modulate(self.conv2(self.conv1(torch.cat([flow_input(current), flow_input(previous)], dim=1))), 2)
        level3 = modulate(self.conv3_1(self.conv3(level2)), 3)
        level4 = modulate(self.conv4_1(self.conv4(level3)), 4)
        level5 = modulate(self.conv5_1(self.conv5(level4)), 5)
        level6 = modulate(self.conv6_1(self.conv6(level5)), 6)

        flow6 = self.predict_flow6(level6)
        level5 = concatenate(level5, self.deconv5(level6), self.upsample_flow6to5(flow6))
        flow5 = self.predict_flow5(level5)
        level4 = concatenate(level4, self.deconv4(level5), self.upsample_flow5to4(flow5))
        flow4 = self.predict_flow4(level4)
        level3 = concatenate(level3, self.deconv3(level4), self.upsample_flow4to3(flow4))
        flow3 = self.predict_flow3(level3)
        level2 = concatenate(level2, self.deconv2(level3), self.upsample_flow3to2(flow3))
        flow: Tensor = FLOW_UNIT * self.predict_flow2(level2)
        return flow, level2


def _convolution(in_channels: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2), nn.LeakyReLU(0.1, inplace=True)
    )


def _deconvolution(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(in_channels, channels, 4, stride=2), nn.LeakyReLU(0.1, inplace=True))


def concatenate(encoded: Tensor, *decoded: Tensor) -> Tensor:
    """Joins the encoder's map with deconvolved maps (2n + 2 pixels a side) cropped to it, from the second pixel on."""
    h, w = encoded.shape[2:]
    return torch.cat([encoded, *(maps[:, :, 1 : 1 + h, 1 : 1 + w] for maps in decoded)], dim=1)


@dataclass(frozen=True)
class FlowNetSConfig(FlowNetConfig):
    """The thin FlowNetS."""

    width: float = 1.0  # factor on all channels; 1 is the official network of 5.46 M parameters, 0.375 has 0.77 M

    def build(self) -> FlowNetS:
        """A newly initialised network."""
        return FlowNetS(self.width)
