import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.da_vss import DaVss, DaVssConfig, at_quarter_resolution
from training.models.distortion import Correction, DistortionMap, distortion
from training.models.flownet_s import FlowNetS, FlowNetSConfig
from training.models.upsampling import upsample
from training.models.warping import warp


class Constant(DistortionMap):
    """Finds the same distortion everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, warped: Tensor, image: Tensor) -> Tensor:
        return torch.full_like(warped[:, :1], self.value)


@pytest.fixture
def da_vss(flow_net: FlowNetS) -> DaVss:
    """In float64 and evaluation mode, with flows of about a pixel and scores that vary."""
    config = DaVssConfig(reference="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4), correction_width=1 / 4)
    segmenter = config.build(num_classes=5).double().eval()
    segmenter.flownet.load_state_dict(flow_net.state_dict())
    for parameter in segmenter.net_ref.layer6.parameters():
        nn.init.normal_(parameter)
    give_biases(segmenter.dmnet)
    return segmenter


def give_biases(network: DistortionMap) -> None:
    """As after training; new ones are zero, and then features that are all zero are common."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)


def test_distortion_by_hand() -> None:
    features = torch.tensor([[1.0, 1.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 4.0, 0.0]]).view(1, 2, 1, 5)
    others = torch.tensor([[2.0, -5.0, 0.0, 4.0, 0.0], [0.0, 0.0, 7.0, 3.0, 0.0]]).view(1, 2, 1, 5)
    # One way, opposite ways, a right angle, cos = 24 / 25, and nothing.
    torch.testing.assert_close(distortion(features, others).flatten(), torch.tensor([0, 1, 0.5, 0.02, 0.5]))


@pytest.mark.parametrize("is_training", [True, False])
def test_equal_images_are_not_distorted_and_others_are(is_training: bool) -> None:
    network = DistortionMap().double().train(is_training)
    give_biases(network)
    image, other = torch.rand(2, 2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(network(image, image), torch.zeros(2, 1, 16, 16, dtype=torch.float64))
    elsewhere = network(image, other)
    assert 0 <= elsewhere.min() < elsewhere.max() <= 1


@torch.no_grad()
def test_a_still_scene_keeps_the_propagated_scores(da_vss: DaVss, frames: Tensor) -> None:
    for parameter in da_vss.flownet.parameters():
        nn.init.zeros_(parameter)
    still = frames[:, :1].expand(-1, 3, -1, -1, -1)
    torch.testing.assert_close(da_vss(still), upsample(upsample(da_vss.net_ref(frames[:, 0]), 2), 4))


@torch.no_grad()
def test_a_constant_distortion_blends_as_the_released_code_does(da_vss: DaVss, frames: Tensor) -> None:
    da_vss.dmnet = Constant(0.25)
    key, frame = frames[:, 0], frames[:, 1]
    step = da_vss.propagate(da_vss.encode_key(key), key, frame)
    propagated = warp(upsample(da_vss.net_ref(key), 2), da_vss.flownet(frame, key))
    torch.testing.assert_close(step.propagated_logits, 0.75 * propagated)
    # There: both parts enlarged first, then blended.
    enlarged_first = 0.75 * upsample(propagated, 4) + 0.25 * upsample(da_vss.cfnet(frame), 4)
    torch.testing.assert_close(da_vss.upsample(step.logits), enlarged_first)


@torch.no_grad()
def test_scores_and_image_are_warped_from_frame_to_frame_uncorrected(da_vss: DaVss, frames: Tensor) -> None:
    da_vss.dmnet = DistortionMap().double().eval()  # without biases it finds more in small differences
    first, second, third = frames.unbind(1)
    flows = da_vss.flownet(second, first), da_vss.flownet(third, second)
    *_, last = da_vss.propagations(frames)
    scores, image = last.state
    torch.testing.assert_close(scores, warp(warp(upsample(da_vss.net_ref(first), 2), flows[0]), flows[1]))
    torch.testing.assert_close(image, warp(warp(at_quarter_resolution(first), flows[0]), flows[1]))
    distortion_map = da_vss.dmnet(image, at_quarter_resolution(third))
    assert distortion_map.std() > 0.01
    expected = scores * (1 - distortion_map) + da_vss.cfnet(third) * distortion_map
    torch.testing.assert_close(last.logits, expected)
    assert last.motion is not None
    torch.testing.assert_close(last.motion.flow, flows[1])


def test_frames_become_small_by_the_mean_of_the_inner_four_of_sixteen_pixels() -> None:
    frame = torch.zeros(1, 3, 8, 8)
    frame[:, :, 1:3, 5:7] = 1
    frame[:, :, 4, :] = 7  # the outer ones do not count
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(at_quarter_resolution(frame), expected.expand(1, 3, 2, 2))


def test_training_leaves_the_statistics_of_the_distortion_network_alone(da_vss: DaVss, frames: Tensor) -> None:
    before = {name: value.clone() for name, value in da_vss.state_dict().items()}
    da_vss.train()
    assert da_vss.cfnet.training
    assert da_vss.net_ref.training
    assert not any(module.training for module in da_vss.dmnet.modules())
    da_vss(frames)
    moved = {name.split(".")[0] for name, value in da_vss.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"net_ref", "cfnet"}


def test_networks_have_the_official_number_of_parameters() -> None:
    with torch.device("meta"):
        da_vss = DaVssConfig().build(num_classes=19)
        corrections = [Correction(num_classes) for num_classes in (15, 19)]
    assert sum(each.numel() for each in da_vss.dmnet.parameters()) == 764
    assert [sum(each.numel() for each in network.parameters()) for network in corrections] == [9_487_311, 9_487_699]
    assert {name.split(".")[0] for name, _ in da_vss.named_parameters()} == {"net_ref", "flownet", "dmnet", "cfnet"}


def test_inner_statistics_of_the_distortion_network_move_slowly_and_the_last_ones_fast() -> None:
    momenta = [norm.momentum for norm in DistortionMap().modules() if isinstance(norm, nn.BatchNorm2d)]
    assert momenta == 3 * [3e-4, 3e-4, 0.1]


def test_correction_networks_take_sizes_that_are_no_multiples_of_64() -> None:
    network = Correction(5, width=1 / 4).eval()
    assert network(torch.rand(1, 3, 72, 104)).shape == (1, 5, 18, 26)


def test_the_correction_networks_deconvolutions_are_cropped_from_the_second_pixel_on() -> None:
    network = Correction(5, width=1 / 4)
    features = torch.rand(1, 128, 3, 4)
    weight = network.get_parameter("deconv5.0.weight")
    padded = F.leaky_relu(F.conv_transpose2d(features, weight, stride=2, padding=1), 0.1)
    torch.testing.assert_close(network.deconv5(features)[:, :, 1:7, 1:9], padded)
