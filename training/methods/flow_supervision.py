"""Trains a flow network on true flow: on the embedded world, what Flying Chairs is to the paper.

Dosovitskiy et al., FlowNet: Learning Optical Flow with Convolutional Networks, ICCV 2015. Minimised is the end-point
error at the network's quarter resolution, of its last scale only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from torch import Tensor
from torch.nn import functional as F

from training.data.clip import Clip, FlowClip
from training.methods.losses import end_point_error, weighted_mean
from training.methods.method import Networks, Update
from training.methods.optimization import Adam, OptimizerSpec, Poly, Schedule
from training.methods.pretraining import Pretraining
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig


@dataclass(eq=False)
class FlowSupervision(Pretraining[FlowClip]):
    """Trains a flow network from scratch; the target domain is not looked at."""

    trained = "flow_net"

    flow_net: FlowNetConfig = field(default_factory=FlowNetSConfig)  # the network
    optimizer: OptimizerSpec = field(default_factory=lambda: Adam(learning_rate=5e-4))  # of the flow network
    schedule: Schedule = field(default_factory=Poly)  # of the learning rate

    def networks(self, num_classes: int) -> Networks:
        """See `Method.networks`."""
        del num_classes
        return {"flow_net": self.flow_net.build()}

    def updates(self, networks: Networks, source: FlowClip, target: Clip) -> Iterator[Update]:
        """One step on the source."""
        del target
        flow_net = cast("FlowNet", networks["flow_net"])
        true_flow, visible = quarter_flow(source.flow, source.valid)
        flow = flow_net(source.frames[:, -1], source.frames[:, -2])
        yield Update("flow_net", {"end_point_error": weighted_mean(end_point_error(flow, true_flow), visible)})


def quarter_flow(flow: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """True flow as a flow network states it: averaged over the valid pixels of 4x4 cells, in pixels of that size.

    Args:
        flow: (B, 2, H, W), in pixels; H and W multiples of 4.
        valid: (B, H, W) bool.

    Returns:
        The flow (B, 2, H / 4, W / 4), zero where no pixel is valid, and the valid share (B, H / 4, W / 4) of each cell.
    """
    weight = valid.unsqueeze(1).to(flow.dtype)
    share = F.avg_pool2d(weight, 4)
    mean_flow = F.avg_pool2d(flow * weight, 4) / share.clamp(min=1 / 16)
    return mean_flow / 4, share.squeeze(1)
