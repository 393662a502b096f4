"""The two small networks of DA-VSS: one tells where warping went wrong, the other segments those places anew.

Zhuang, Wang and Wang, Video Semantic Segmentation with Distortion-Aware Feature Correction, TCSVT 2020. Both take
frames as they are, RGB in 0..1. The distortion map is half the cosine distance of what a shared tower makes of the two
images at a pixel, so it is 0 where they look the same to it.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from training.models.flownet_s import concatenate


class DistortionMap(nn.Module):
    """DMNet: where a warped image differs from the image that it was warped onto. 764 parameters."""

    def __init__(self, inner_momentum: float = 3e-4) -> None:
        """Draws new weights.

        Args:
            inner_momentum: of the statistics of the BatchNorms inside the blocks: how much a new batch weighs.
        """
        super().__init__()
        self.tower = nn.Sequential(
            _separable(3, 4, inner_momentum),
            _separable(4, 8, inner_momentum),
            _separable(8, 16, inner_momentum),
            nn.Conv2d(16, 16, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, warped: Tensor, image: Tensor) -> Tensor:
        """The distortion map (B, 1, h, w) in 0..1 of two images (B, 3, h, w), RGB in 0..1."""
        return distortion(self.tower(warped), self.tower(image))

    # nn.Module's call is untyped: state once what the network returns.
    def __call__(self, warped: Tensor, image: Tensor) -> Tensor:
        """`forward`, with hooks."""
        distortion_map: Tensor = super().__call__(warped, image)
        return distortion_map


def distortion(features: Tensor, true_features: Tensor) -> Tensor:
    """Half the cosine distance (B, 1, h, w) of features (B, D, h, w): 0 if they point one way, 1 if opposite ways.

    Where one of them is zero it is 0.5.
    """
    similarity = F.cosine_similarity(features, true_features, dim=1)
    return (0.5 - 0.5 * similarity).clamp(0, 1).unsqueeze(1)


def _separable(in_channels: int, channels: int, momentum: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels),
        nn.BatchNorm2d(in_channels, momentum=momentum),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, channels, 1),
        nn.BatchNorm2d(channels, momentum=momentum),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class Correction(nn.Module):
    """CFNet: class scores (B, C, H / 4, W / 4) of a frame. 9.49 M parameters, and few operations for that.

    Built like FlowNetS: an encoder to 1/64 resolution, and a decoder back to 1/4 that sees each encoder map again.
    """

    sensitive_layers = ("conv1", "classifier")  # lose too much in 8-bit integers

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        """Draws new weights.

        Args:
            num_classes: C.
            width: Factor on all channels.
        """
        super().__init__()
        c1, c2, c3, c4, c6 = (round(width * channels) for channels in (32, 64, 128, 256, 512))
        self.conv1 = _convolution(3, c1, stride=2)
        self.conv2 = _convolution(c1, c2, stride=2)
        self.conv3 = _convolution(c2, c3, stride=2)
        self.conv3_1 = _convolution(c3, c3)
        self.conv4 = _convolution(c3, c4, stride=2)
        self.conv4_1 = _convolution(c4, c4)
        self.conv5 = _convolution(c4, c4, stride=2)
        self.conv5_1 = _convolution(c4, c4)
        self.conv6 = _convolution(c4, c6, stride=2)
        self.conv6_1 = _convolution(c6, c6)
        self.deconv5 = _deconvolution(c6, c4)
        self.deconv4 = _deconvolution(c4 + c4, c3)
        self.deconv3 = _deconvolution(c4 + c3, c2)
        self.deconv2 = _deconvolution(c3 + c2, c1)
        self.classifier = nn.Conv2d(c2 + c1, num_classes, 1)

    def forward(self, frame: Tensor) -> Tensor:
        """Class scores of a frame (B, 3, H, W), RGB in 0..1."""
        level2 = self.conv2(self.conv1(frame))
        level3 = self.conv3_1(self.conv3(level2))
        level4 = self.conv4_1(self.conv4(level3))
        level5 = self.conv5_1(self.conv5(level4))
        level6 = self.conv6_1(self.conv6(level5))
        level5 = concatenate(level5, self.deconv5(level6))
        level4 = concatenate(level4, self.deconv4(level5))
        level3 = concatenate(level3, self.deconv3(level4))
        level2 = concatenate(level2, self.deconv2(level3))
        scores: Tensor = self.classifier(level2)
        return scores

    # nn.Module's call is untyped: state once what the network returns.
    def __call__(self, frame: Tensor) -> Tensor:
        """`forward`, with hooks."""
        scores: Tensor = super().__call__(frame)
        return scores


def _convolution(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _deconvolution(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, channels, 4, stride=2, bias=False), nn.LeakyReLU(0.1, inplace=True)
    )
