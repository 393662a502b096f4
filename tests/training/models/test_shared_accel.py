import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.acceleration import accelerate
from training.models.deeplab import DeepLab
from training.models.flownet_s import FlowNetSConfig
from training.models.input_conversion import segmentation_input
from training.models.optical_flow import FlowNet
from training.models.shared_accel import SharedAccel, SharedAccelConfig

CONFIG = SharedAccelConfig(backbone="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4))


class Constant(FlowNet):
    """One flow everywhere, in quarter-resolution pixels."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__()
        self.flow = torch.tensor([x, y], dtype=torch.float64).view(1, 2, 1, 1)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        del previous
        batch, _, height, width = current.shape
        return self.flow.expand(batch, 2, height // 4, width // 4)


@pytest.fixture
def segmenter() -> SharedAccel:
    """In float64, with a fusion that sees the past, and scores that differ from pixel to pixel."""
    segmenter = CONFIG.build(num_classes=5).double().eval()
    nn.init.normal_(segmenter.sf_layer.weight)
    for classifier in (segmenter.segnet.layer5, segmenter.segnet.layer6):
        for parameter in classifier.parameters():
            nn.init.normal_(parameter)
    return segmenter


@torch.no_grad()
def test_a_new_network_segments_every_frame_by_itself(frames: Tensor) -> None:
    segmenter = CONFIG.build(num_classes=5).double().eval()
    levels = segmenter.level_logits(frames)
    torch.testing.assert_close(levels, segmenter.segnet.level_scores(frames[:, -1]))
    propagation = segmenter.propagate(segmenter.encode_key(frames[:, 0]), frames[:, 0], frames[:, 1])
    torch.testing.assert_close(propagation.logits, segmenter.segnet(frames[:, 1]))
    assert not propagation.propagated_logits.any()


@torch.no_grad()
def test_without_flow_the_scores_of_both_frames_are_added_as_the_fusion_says(
    segmenter: SharedAccel, frames: Tensor
) -> None:
    segmenter.flownet = Constant(0, 0)
    identity = torch.eye(5, dtype=torch.float64)
    segmenter.sf_layer.weight.copy_(torch.cat([2 * identity, identity.flip(0)], dim=1).view(5, 10, 1, 1))
    past, current = (segmenter.segnet.level_scores(frames[:, index]) for index in (0, 2))
    main, auxiliary = (2 * now + then.flip(1) for now, then in zip(current, past, strict=True))
    torch.testing.assert_close(segmenter.level_logits(frames), (main, auxiliary))
    torch.testing.assert_close(segmenter(frames), F.interpolate(main, (32, 32), mode="bilinear", align_corners=True))
    propagation = segmenter.propagate(segmenter.encode_key(frames[:, 0]), frames[:, 0], frames[:, 2])
    torch.testing.assert_close(propagation.propagated_logits, past[0].flip(1))
    torch.testing.assert_close(propagation.state, past[:1])


@torch.no_grad()
def test_flow_in_quarter_pixels_moves_the_eighth_by_half(segmenter: SharedAccel, frames: Tensor) -> None:
    segmenter.flownet = Constant(2, -4)  # look one pixel of the scores to the right and two up
    (scores,) = segmenter.encode_key(frames[:, 0])
    (past,) = segmenter.propagate((scores,), frames[:, 0], frames[:, 1]).state
    assert scores.shape == (2, 5, 5, 5)
    torch.testing.assert_close(past[:, :, 2:, :-1], scores[:, :, :-2, 1:])
    torch.testing.assert_close(past[:, :, :2, -1], scores[:, :, [0, 0], -1])  # the border is repeated


@torch.no_grad()
def test_the_past_is_moved_on_from_frame_to_frame(segmenter: SharedAccel, frames: Tensor) -> None:
    segmenter.flownet = Constant(2, 0)
    scores = segmenter.segnet.level_scores(frames[:, 0])
    *_, last = segmenter.propagations(frames)
    torch.testing.assert_close(last.state[0][..., :-2], scores[0][..., 2:])
    fused = segmenter.sf_layer(torch.cat([segmenter.segnet.level_scores(frames[:, 2])[1], scores[1].roll(-2, 3)], 1))
    torch.testing.assert_close(segmenter.level_logits(frames)[1][..., :-2], fused[..., :-2])


def test_no_gradient_reaches_the_network_through_the_past(segmenter: SharedAccel, frames: Tensor) -> None:
    segmenter.flownet = Constant(1, 0)
    previous, current = frames[:, 0].clone().requires_grad_(), frames[:, 1].clone().requires_grad_()
    main, auxiliary = segmenter.level_logits(torch.stack([previous, current], dim=1))
    torch.autograd.backward((main + auxiliary).square().sum())
    assert previous.grad is not None
    assert current.grad is not None
    assert not previous.grad.any()
    assert current.grad.any()


@pytest.mark.parametrize("level", [0, 1])
def test_the_flow_network_learns_through_the_past(segmenter: SharedAccel, frames: Tensor, level: int) -> None:
    torch.autograd.backward(segmenter.level_logits(frames[:, :2])[level].square().sum())
    gradient = segmenter.flownet.get_parameter("conv1.0.weight").grad
    assert gradient is not None
    assert gradient.any()


def test_only_what_lies_around_the_backbone_and_the_backbone_make_up_the_network(segmenter: SharedAccel) -> None:
    around = [name for module in segmenter.around_backbones() for name, _ in module.named_parameters()]
    backbone = [name for name, _ in segmenter.segnet.named_parameters() if not name.startswith(("layer5.", "layer6."))]
    assert len(around) + len(backbone) == len(list(segmenter.parameters()))


def test_sizes_and_names_of_the_official_network() -> None:
    with torch.device("meta"):
        segmenter = SharedAccelConfig().build(num_classes=15)
        levels = segmenter.level_logits(torch.zeros(1, 2, 3, 512, 1024))
    assert [level.shape for level in levels] == [(1, 15, 65, 129), (1, 15, 65, 129)]
    assert segmenter.upsample(levels[0]).shape == (1, 15, 512, 1024)
    assert segmenter.upsample(levels[0], stride=4).shape == (1, 15, 128, 256)
    names = {name for name in segmenter.state_dict() if not name.startswith("flownet.")}
    assert len(names) == 640 + 1
    assert {"sf_layer.weight", "segnet.layer5.conv2d_list.0.weight", "segnet.layer3.22.bn3.running_var"} <= names


@torch.no_grad()
def test_pooling_with_ceil_mode_is_that_of_torch(frames: Tensor) -> None:
    network = DeepLab("resnet10_slim", 5, auxiliary=True, ceil_mode=True).double().eval()
    pooled = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)(
        F.relu(network.bn1(network.conv1(segmentation_input(frames[:, 0]))))
    )
    middle = network.layer3(network.layer2(network.layer1(pooled)))
    deep = network.layer4(middle)
    assert deep.shape[2:] == (5, 5)
    torch.testing.assert_close(network.level_scores(frames[:, 0]), (network.layer6(deep), network.layer5(middle)))


def test_an_accelerated_network_pools_the_same_way(segmenter: SharedAccel, frames: Tensor) -> None:
    accelerate(segmenter.float(), "bf16", is_compiled=False)
    assert segmenter.train()(frames.float()).shape == (2, 5, 32, 32)
