"""Small networks and random frames."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from training.models.accel import Accel, AccelConfig
from training.models.flownet_s import FlowNetS, FlowNetSConfig


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def frames() -> Tensor:
    """Two clips of three frames, in float64 so that equal means equal: (2, 3, 3, 32, 32)."""
    return torch.rand(2, 3, 3, 32, 32, dtype=torch.float64)


@pytest.fixture
def flow_net() -> FlowNetS:
    """In float64, with weights that make flows of about a pixel."""
    network = FlowNetS(width=1 / 4).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.fixture
def accel() -> Accel:
    """A reference branch unlike the update branch, in float64 and evaluation mode, with a bias to fold."""
    config = AccelConfig(reference="resnet18", update="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4))
    segmenter = config.build(num_classes=5).double().eval()
    torch.nn.init.normal_(segmenter.merge.get_parameter("bias"))
    for branch in (segmenter.net_ref, segmenter.net_update):
        for parameter in branch.layer6.parameters():
            torch.nn.init.normal_(parameter)
    return segmenter
