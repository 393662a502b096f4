"""RAFT: flow that a recurrent network refines by looking up how alike pixels are.

Teed and Deng, RAFT: Recurrent All-Pairs Field Transforms for Optical Flow, ECCV 2020; the second flow network of SFC
(Table 5). Names of weights are those of the released networks.

    f, f' = fnet(x_t), fnet(x_{t-1});  hidden, context = tanh, relu of cnet(x_t);  flow = 0
    repeat:  hidden = GRU(hidden, [context, motion(similarities of f and f' around x + flow, flow)])
             flow = flow + head(hidden)
    flow at 1/4 resolution = convex combinations, with weights from hidden, of the nearest 3 x 3 flows at 1/8

A refinement does not differentiate the flow that it starts from, as in the released code. Departures, none of which
changes a figure by more than rounding: where the released code enlarges the flow eight times, this combines straight to
the quarter resolution that flow networks give, by the mean weights of 4 x 4 pixels, and after the last refinement only;
frames of any size are taken, the last row and column repeated up to a multiple of 8. Similarities, centres and flow are
in single precision where the network is in half: at pixel 100 half precision is a sixteenth of a pixel apart. As in
the released fine-tuning, BatchNorm's statistics stay as they are, in training too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.correlation import SIMILARITIES, correlation_pyramid, look_up
from training.models.optical_flow import FlowNet, FlowNetConfig

STRIDE = 8  # pixels of the frame to one at which flow is refined
SMALLEST = 2 * STRIDE  # side of a frame in pixels: InstanceNorm needs more than one pixel


class Refinement(NamedTuple):
    """What is known after some iterations."""

    flow: Tensor  # (B, 2, h, w) at 1/8 resolution, current to previous, (x, y) in pixels of that resolution
    hidden: Tensor  # (B, C, h, w), the recurrent network's memory


class Raft(FlowNet):
    """Encodes both frames to 1/8 resolution and refines the flow between them there."""

    # lose too much in 8-bit integers: the stems, what reads flow and what writes it
    sensitive_layers = ("fnet.conv1", "cnet.conv1", "update_block.encoder.convf1", "update_block.flow_head")

    def __init__(self, iterations: int = 12, width: float = 1.0) -> None:
        """Draws new weights.

        Args:
            iterations: Refinements, at least 1.
            width: Factor on all channels.

        Raises:
            ValueError: if there are no iterations.
        """
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations of RAFT is {iterations}: choose at least 1")
        self.iterations = iterations
        self.hidden_channels = round(128 * width)
        self.fnet = _Encoder(round(256 * width), width, nn.InstanceNorm2d)
        self.cnet = _Encoder(2 * self.hidden_channels, width, FixedBatchNorm)
        self.update_block = _UpdateBlock(self.hidden_channels, width)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """See `FlowNet.forward`."""
        *_, last = self.refinements(current, previous)
        weights = 0.25 * self.update_block.mask(last.hidden)  # a quarter, as in the released network
        flow = upsample_convexly(last.flow, weights.to(last.flow.dtype))
        height, width = current.shape[2:]
        return flow[:, :, : -(-height // 4), : -(-width // 4)]

    def refinements(self, current: Tensor, previous: Tensor) -> Iterator[Refinement]:
        """The state after each iteration; arguments as of `forward`."""
        current, previous = _network_input(current), _network_input(previous)
        of_current, of_previous = self._features(current, previous)
        pyramid = correlation_pyramid(of_current, of_previous)
        hidden, context = self.cnet(current).split(self.hidden_channels, dim=1)
        hidden, context = hidden.tanh(), context.relu()
        flow = torch.zeros_like(of_current[:, :2])
        pixels = _pixels(flow)
        for _ in range(self.iterations):
            flow = flow.detach()  # what was found before is where to look, not what to improve
            similarities = look_up(pyramid, pixels + flow).to(hidden.dtype)
            hidden, step = self.update_block(hidden, context, similarities, flow.to(hidden.dtype))
            flow = flow + step
            yield Refinement(flow, hidden)

    def _features(self, current: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Of both frames in one pass, in single precision or better."""
        features = self.fnet(torch.cat([current, previous]))
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        batch = current.shape[0]  # unlike len(), and chunk(), no constant to an exporter
        return features[:batch], features[batch:]


def upsample_convexly(flow: Tensor, weights: Tensor) -> Tensor:
    """Flow at 1/4 resolution, each pixel a weighted mean of the nearest 3 x 3 at 1/8; zero flow lies outside.

    Equal to the mean over 4 x 4 pixels of the flow enlarged to full resolution.

    Args:
        flow: (B, 2, h, w), in pixels of 1/8 resolution.
        weights: (B, 9 * 8 * 8, h, w), before softmax: of each of the neighbours (rows from top to bottom), for each
            full-resolution pixel (rows from top to bottom) of a pixel.

    Returns:
        (B, 2, 2 h, 2 w), in pixels of 1/4 resolution.
    """
    batch, _, h, w = flow.shape
    shares = weights.reshape(batch, 9, 64, h, w).softmax(1)
    # Rows of 4, then columns of 4: in four dimensions, since runtimes know few operations in more.
    rows = shares.reshape(-1, 2, 4, 8 * h * w).mean(2)
    shares = rows.reshape(-1, 2, 4, h * w).mean(2).reshape(batch, 9, 4, h, w)
    padded = F.pad(2 * flow, (1, 1, 1, 1))
    neighbours = [padded[:, :, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    of_axes = torch.stack(neighbours, dim=2).unsqueeze(3).unbind(1)  # x and y, each (B, 9, 1, h, w)
    return F.pixel_shuffle(torch.cat([(shares * axis).sum(1) for axis in of_axes], dim=1), 2)


def _network_input(frame: Tensor) -> Tensor:
    """RGB in -1..1, the border repeated to a size that the network can take."""
    height, width = frame.shape[2:]
    right, below = (max(-(-side // STRIDE) * STRIDE, SMALLEST) - side for side in (width, height))
    scaled = 2 * frame - 1
    return F.pad(scaled, (0, right, 0, below), mode="replicate") if right or below else scaled


def _pixels(flow: Tensor) -> Tensor:
    """Where each pixel of a map (B, 2, h, w) is, (2, h, w), (x, y)."""
    h, w = flow.shape[2:]
    rows, columns = (torch.arange(side, dtype=flow.dtype, device=flow.device) for side in (h, w))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


class FixedBatchNorm(nn.Module):
    """BatchNorm whose statistics no mode and nobody who re-estimates them moves; weights are those of `BatchNorm2d`."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        """Changes nothing at first."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))  # released files have it

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) of mean 0 and deviation 1, if those of `running_mean` and `running_var` come in."""
        return F.batch_norm(features, self.running_mean, self.running_var, self.weight, self.bias)


class _Encoder(nn.Module):
    def __init__(self, out_channels: int, width: float, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        c1, c2, c3 = (round(width * channels) for channels in (64, 96, 128))
        self.conv1 = nn.Conv2d(3, c1, 7, stride=2, padding=3)
        self.norm1 = norm(c1)
        self.layer1 = nn.Sequential(_Block(c1, c1, 1, norm), _Block(c1, c1, 1, norm))
        self.layer2 = nn.Sequential(_Block(c1, c2, 2, norm), _Block(c2, c2, 1, norm))
        self.layer3 = nn.Sequential(_Block(c2, c3, 2, norm), _Block(c3, c3, 1, norm))
        self.conv2 = nn.Conv2d(c3, out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, frame: Tensor) -> Tensor:
        features: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(self.norm1(self.conv1(frame)).relu()))))
        return features


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = norm(channels)
        self.norm2 = norm(channels)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.norm3 = norm(channels)  # released files have it under both names
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride), self.norm3)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.norm1(self.conv1(features)).relu()
        residual = self.norm2(self.conv2(residual)).relu()
        joined: Tensor = self.downsample(features) + residual
        return joined.relu()


class _UpdateBlock(nn.Module):
    """One refinement; and `mask`, the weights of the convex combinations."""

    def __init__(self, hidden_channels: int, width: float) -> None:
        super().__init__()
        motion_channels = round(128 * width)
        self.encoder = _MotionEncoder(motion_channels, width)
        self.gru = _SeparableGru(hidden_channels, hidden_channels + motion_channels)
        self.flow_head = _FlowHead(hidden_channels, round(256 * width))
        wide = round(256 * width)
        self.mask = nn.Sequential(nn.Conv2d(hidden_channels, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, 576, 1))

    def forward(self, hidden: Tensor, context: Tensor, similarities: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The new memory, and what to add to the flow."""
        hidden = self.gru(hidden, torch.cat([context, self.encoder(similarities, flow)], dim=1))
        return hidden, self.flow_head(hidden)


class _MotionEncoder(nn.Module):
    def __init__(self, out_channels: int, width: float) -> None:
        super().__init__()
        c1, c2, f1, f2 = (round(width * channels) for channels in (256, 192, 128, 64))
        self.convc1 = nn.Conv2d(SIMILARITIES, c1, 1)
        self.convc2 = nn.Conv2d(c1, c2, 3, padding=1)
        self.convf1 = nn.Conv2d(2, f1, 7, padding=3)
        self.convf2 = nn.Conv2d(f1, f2, 3, padding=1)
        self.conv = nn.Conv2d(c2 + f2, out_channels - 2, 3, padding=1)

    def forward(self, similarities: Tensor, flow: Tensor) -> Tensor:
        of_similarities = self.convc2(self.convc1(similarities).relu()).relu()
        of_flow = self.convf2(self.convf1(flow).relu()).relu()
        return torch.cat([self.conv(torch.cat([of_similarities, of_flow], dim=1)).relu(), flow], dim=1)


class _SeparableGru(nn.Module):
    """Looks along rows, then along columns."""

    def __init__(self, hidden_channels: int, in_channels: int) -> None:
        super().__init__()
        channels = (hidden_channels + in_channels, hidden_channels)
        self.convz1 = nn.Conv2d(*channels, (1, 5), padding=(0, 2))
        self.convr1 = nn.Conv2d(*channels, (1, 5), padding=(0, 2))
        self.convq1 = nn.Conv2d(*channels, (1, 5), padding=(0, 2))
        self.convz2 = nn.Conv2d(*channels, (5, 1), padding=(2, 0))
        self.convr2 = nn.Conv2d(*channels, (5, 1), padding=(2, 0))
        self.convq2 = nn.Conv2d(*channels, (5, 1), padding=(2, 0))

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        hidden = _gated(hidden, features, self.convz1, self.convr1, self.convq1)
        return _gated(hidden, features, self.convz2, self.convr2, self.convq2)


def _gated(hidden: Tensor, features: Tensor, convz: nn.Module, convr: nn.Module, convq: nn.Module) -> Tensor:
    both = torch.cat([hidden, features], dim=1)
    update: Tensor = convz(both).sigmoid()
    reset: Tensor = convr(both).sigmoid()
    candidate: Tensor = convq(torch.cat([reset * hidden, features], dim=1)).tanh()
    return (1 - update) * hidden + update * candidate


class _FlowHead(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        step: Tensor = self.conv2(self.conv1(hidden).relu())
        return step


@dataclass(frozen=True)
class RaftConfig(FlowNetConfig):
    """RAFT."""

    # refinements of the flow, at least 1: each takes 22 GMAC (billions of multiplications) for frames of 512 x 1024, on
    # top of 128; FlowNetS takes 7 in all. Released networks were trained with 12
    iterations: int = 12
    width: float = 1.0  # factor on all channels; 1 is the released network of 5.26 M parameters

    def build(self) -> Raft:
        """A newly initialised network."""
        return Raft(self.iterations, self.width)
