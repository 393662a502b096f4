"""DeepLabV2 on dilated ResNets, the segmentation network of SFC and of most work it compares with.

Chen et al., DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution and Fully Connected
CRFs, TPAMI 2018; auxiliary classifier as in Tsai et al., CVPR 2018. Names of weights, `ceil_mode=False` in the
pooling and one classifier per level follow the official SFC code. Scores come out at 1/8 resolution. ADVENT and those
after it pool with `ceil_mode=True`: one more row and column, so that pixel 8 i of the frame is pixel i of the scores up
to the frame's border.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.input_conversion import segmentation_input

BackboneName = Literal["resnet101", "resnet50", "resnet34", "resnet18", "resnet10_slim"]


@dataclass(frozen=True)
class Backbone:
    """What tells one residual network from another."""

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]  # blocks in layer1 .. layer4
    widths: tuple[int, int, int, int]  # channels inside the blocks of layer1 .. layer4; the stem has widths[0]


BACKBONES: dict[BackboneName, Backbone] = {
    "resnet101": Backbone("bottleneck", (3, 4, 23, 3), (64, 128, 256, 512)),
    "resnet50": Backbone("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet34": Backbone("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet18": Backbone("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet10_slim": Backbone("basic", (1, 1, 1, 1), (24, 48, 96, 96)),  # trains on a CPU
}
STRIDES = (1, 2, 1, 1)  # of layer1 .. layer4, after the stem's 4
DILATIONS = (1, 1, 2, 4)


class DeepLab(nn.Module):
    """Class scores (B, C, h, w) of single frames, (H / 8, W / 8) or, with `ceil_mode`, (H / 8 + 1, W / 8 + 1)."""

    sensitive_layers = ("conv1", "layer5", "layer6")  # lose too much in 8-bit integers: the stem and the classifiers

    def __init__(self, backbone: BackboneName, num_classes: int, auxiliary: bool, ceil_mode: bool = False) -> None:
        """Draws new weights.

        Args:
            backbone: Name of the residual network.
            num_classes: C.
            auxiliary: Adds a second classifier on layer3 ("multi-level"), which only training uses.
            ceil_mode: Pools as ADVENT does: maps have one more row and column.
        """
        super().__init__()
        spec = BACKBONES[backbone]
        channels = spec.widths[0]
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        layers = []
        block = Bottleneck if spec.block == "bottleneck" else BasicBlock
        for depth, width, stride, dilation in zip(spec.depths, spec.widths, STRIDES, DILATIONS, strict=True):
            blocks = [block(channels, width, stride, dilation)]
            channels = block.expansion * width
            blocks += [block(channels, width, 1, dilation) for _ in range(depth - 1)]
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        if auxiliary:
            self.layer5 = Classifier(block.expansion * spec.widths[2], num_classes)
        self.layer6 = Classifier(channels, num_classes)
        self.auxiliary = auxiliary
        self.ceil_mode = ceil_mode
        self.training_trunk: Trunk = trunk  # in training mode, in whose place `training.acceleration` puts faster ones
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def features(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """What layer3 and layer4 make of a frame (B, 3, H, W), RGB in 0..1: two maps of the scores' size."""
        return self.training_trunk(self, frame) if self.training else trunk(self, frame)

    def forward(self, frame: Tensor) -> Tensor:
        """Scores of the main classifier."""
        scores: Tensor = self.layer6(self.features(frame)[1])
        return scores

    def level_scores(self, frame: Tensor) -> tuple[Tensor, ...]:
        """Scores of every classifier: the main one first, then the auxiliary one where there is one."""
        middle, deep = self.features(frame)
        return (self.layer6(deep), self.layer5(middle)) if self.auxiliary else (self.layer6(deep),)

    # nn.Module's call is untyped: state once what the network returns.
    def __call__(self, frame: Tensor) -> Tensor:
        """`forward`, with hooks."""
        scores: Tensor = super().__call__(frame)
        return scores


Trunk = Callable[[DeepLab, Tensor], tuple[Tensor, Tensor]]


def trunk(network: DeepLab, frame: Tensor) -> tuple[Tensor, Tensor]:
    """See `DeepLab.features`."""
    stem = F.relu(network.bn1(network.conv1(segmentation_input(frame))), inplace=True)
    pooled = F.max_pool2d(stem, 3, stride=2, padding=1, ceil_mode=network.ceil_mode)
    shallow = network.layer2(network.layer1(pooled))
    middle: Tensor = network.layer3(shallow)
    deep: Tensor = network.layer4(middle)
    return middle, deep


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        """The first convolution carries the stride."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, width, h / stride, w / stride)."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(residual)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int) -> None:
        """The first convolution carries the stride, as in Caffe; the 3x3 one would, in torchvision."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, h, w) to (B, 4 * width, h / stride, w / stride)."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = F.relu(self.bn2(self.conv2(residual)), inplace=True)
        return F.relu(self.bn3(self.conv3(residual)) + self.downsample(x), inplace=True)


def _shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class Classifier(nn.Module):
    """Parallel convolutions of growing dilation, summed (atrous spatial pyramid pooling)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        """Four 3x3 convolutions with bias."""
        super().__init__()
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(in_channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in (6, 12, 18, 24)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Class scores (B, C, h, w) of features (B, in_channels, h, w)."""
        first, second, third, fourth = (convolution(features) for convolution in self.conv2d_list)
        scores: Tensor = first + second + third + fourth
        return scores

    @torch.no_grad()
    def mix(self, matrix: Tensor, bias: Tensor) -> None:
        """Changes the weights such that the scores become `matrix` (C, C) times what they were, plus `bias` (C)."""
        for index, convolution in enumerate(self.conv2d_list):
            for parameter in convolution.parameters():  # weight (C, in_channels, 3, 3) and bias (C)
                parameter.copy_(torch.tensordot(matrix, parameter, dims=1))
            if index == 0:
                convolution.get_parameter("bias").add_(bias)
