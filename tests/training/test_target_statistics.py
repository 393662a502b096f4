import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip
from training.models import SEGMENTERS
from training.models.accel import AccelConfig
from training.models.da_vss import DaVss, DaVssConfig
from training.models.dff import DffConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.models.shared_accel import SharedAccelConfig
from training.models.video_segmenter import SegmenterConfig
from training.target_statistics import with_target_statistics

CPU = torch.device("cpu")
FLOW_NET = FlowNetSConfig(width=1 / 4)
SMALL: dict[str, SegmenterConfig] = {
    "per_frame": PerFrameConfig(backbone="resnet10_slim"),
    "accel": AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FLOW_NET),
    "dff": DffConfig(reference="resnet10_slim", flow_net=FLOW_NET),
    "da_vss": DaVssConfig(reference="resnet10_slim", flow_net=FLOW_NET, correction_width=1 / 4),
    "shared_accel": SharedAccelConfig(backbone="resnet10_slim", flow_net=FLOW_NET),
}


class Normalized(nn.Module):
    """All frames of a batch through one BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)

    def forward(self, frames: Tensor) -> Tensor:
        normalized: Tensor = self.bn(frames.flatten(0, 1))
        return normalized


def clip(low: float, high: float) -> Clip:
    """A batch of one clip of two frames; half of the pixels of every channel are low, half are high."""
    frames = torch.full((1, 2, 3, 2, 2), float(low))
    frames[..., 0] = high
    return Clip(frames)


def test_the_statistics_become_the_averages_over_the_targets_batches() -> None:
    network = Normalized()
    adapted = with_target_statistics(network, [clip(0, 1), clip(2, 6)], CPU)
    assert isinstance(adapted, Normalized)
    # Means 0.5 and 4. Variances are estimated from 8 pixels with 7 in the denominator: 8 / 7 of 0.25 and of 4.
    torch.testing.assert_close(adapted.bn.running_mean, torch.full((3,), 2.25))
    torch.testing.assert_close(adapted.bn.running_var, torch.full((3,), 8 / 7 * 2.125))


def test_what_was_learnt_of_the_source_is_forgotten_and_the_network_itself_untouched() -> None:
    network = Normalized().train()
    for _ in range(3):
        network(clip(50, 90).frames)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    adapted = with_target_statistics(network, [clip(0, 1)], CPU)
    assert isinstance(adapted, Normalized)
    torch.testing.assert_close(adapted.bn.running_mean, torch.full((3,), 0.5))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert not adapted.training
    assert not adapted.bn.training
    assert adapted.bn.momentum == network.bn.momentum


@pytest.mark.parametrize("name", SEGMENTERS)
def test_weights_stay_and_statistics_move_in_every_segmenter(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        segmenter = SMALL[name].build(num_classes=5).eval()
        target = [Clip(torch.rand(2, 2, 3, 32, 32)) for _ in range(2)]
    adapted = with_target_statistics(segmenter, target, CPU)
    weights, statistics = dict(adapted.named_parameters()), dict(adapted.named_buffers())
    assert all(torch.equal(value, weights[name]) for name, value in segmenter.named_parameters())
    # DA-VSS's distortion network has the statistics that it was trained with.
    means = [name for name in statistics if name.endswith("running_mean") and not name.startswith("dmnet.")]
    assert means
    assert not any(torch.equal(statistics[name], value) for name, value in segmenter.named_buffers() if name in means)
    assert not any(module.training for module in adapted.modules())


def test_statistics_that_training_leaves_alone_are_left_alone() -> None:
    segmenter = SMALL["da_vss"].build(num_classes=5).eval()
    assert isinstance(segmenter, DaVss)
    for name, buffer in segmenter.dmnet.named_buffers():
        if name.endswith("running_mean"):
            nn.init.constant_(buffer, 0.25)
    before = {name: buffer.clone() for name, buffer in segmenter.dmnet.named_buffers()}
    adapted = with_target_statistics(segmenter, [Clip(torch.rand(2, 2, 3, 32, 32))], CPU)
    assert isinstance(adapted, DaVss)
    assert all(torch.equal(buffer, before[name]) for name, buffer in adapted.dmnet.named_buffers())
