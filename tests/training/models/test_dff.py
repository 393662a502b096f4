import pytest
import torch
from torch import Tensor, nn

from training.models.dff import Dff, DffConfig
from training.models.flownet_s import FlowNetS, FlowNetSConfig
from training.models.optical_flow import FlowNet, FlowNetConfig
from training.models.upsampling import upsample
from training.models.warping import warp


@pytest.fixture
def dff(flow_net: FlowNetS) -> Dff:
    """In float64 and evaluation mode, with flows of about a pixel and scores that vary."""
    config = DffConfig(reference="resnet10_slim", flow_net=FlowNetSConfig(width=1 / 4))
    segmenter = config.build(num_classes=5).double().eval()
    segmenter.flownet.load_state_dict(flow_net.state_dict())
    for parameter in segmenter.net_ref.layer6.parameters():
        nn.init.normal_(parameter)
    return segmenter


class Blind(FlowNet):
    """Sees no motion and gives no features."""

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        del previous
        return current.new_zeros(current.shape[0], 2, current.shape[2] // 4, current.shape[3] // 4)


class BlindConfig(FlowNetConfig):
    def build(self) -> Blind:
        return Blind()


@torch.no_grad()
def test_without_flow_the_answer_is_the_key_frames_enlarged_scores(dff: Dff, frames: Tensor) -> None:
    for parameter in dff.flownet.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(dff(frames), upsample(upsample(dff.net_ref(frames[:, 0]), 2), 4))


@torch.no_grad()
def test_the_scale_map_by_hand(dff: Dff, frames: Tensor) -> None:
    state = dff.encode_key(frames[:, 0])
    plain = dff.propagate(state, frames[:, 1], frames[:, 2]).logits
    flow, features = dff.flownet.with_features(frames[:, 2], frames[:, 0])
    torch.testing.assert_close(plain, warp(state[0], flow))  # the scale is 1 at the start
    assert dff.scale is not None
    assert dff.scale.bias is None
    dff.scale.weight[2, 4] = 3.0  # scores of class 2 times (1 + three times feature 4)
    scaled = dff.propagate(state, frames[:, 1], frames[:, 2]).logits
    expected = plain.clone()
    expected[:, 2] *= 1 + 3 * features[:, 4]
    torch.testing.assert_close(scaled, expected)


@torch.no_grad()
def test_the_flow_leads_straight_to_the_key_frame_however_far_away(dff: Dff, frames: Tensor) -> None:
    *_, last = dff.propagations(frames)
    assert last.motion is not None
    torch.testing.assert_close(last.motion.flow, dff.flownet(frames[:, 2], frames[:, 0]))
    assert torch.equal(last.motion.earlier, frames[:, 0])
    torch.testing.assert_close(last.logits, next(dff.propagations(frames[:, [0, 2]])).logits)


@torch.no_grad()
def test_the_state_is_the_key_frame_with_its_scores_and_passes_as_it_is(dff: Dff, frames: Tensor) -> None:
    state = dff.encode_key(frames[:, 0])
    assert [tensor.shape for tensor in state] == [(2, 5, 8, 8), (2, 3, 32, 32)]
    step = dff.propagate(state, frames[:, 0], frames[:, 1])
    assert all(after is before for before, after in zip(state, step.state, strict=True))
    assert step.propagated_logits is step.logits


def test_a_flow_network_without_features_works_without_scale_map_alone(frames: Tensor) -> None:
    config = DffConfig(reference="resnet10_slim", flow_net=BlindConfig(), scale_map=False)
    segmenter = config.build(num_classes=5).double().eval()
    torch.testing.assert_close(segmenter(frames), upsample(segmenter.encode_key(frames[:, 0])[0], 4))
    assert segmenter.around_backbones() == (segmenter.flownet, segmenter.net_ref.layer6)
    with pytest.raises(ValueError, match="Blind gives no features to make a scale map of: set scale_map off"):
        DffConfig(reference="resnet10_slim", flow_net=BlindConfig()).build(num_classes=5)


def test_the_scale_map_looks_at_the_74_channels_of_the_official_flow_network() -> None:
    with torch.device("meta"):
        dff = DffConfig().build(num_classes=15)
    assert {name: tuple(each.shape) for name, each in dff.named_parameters() if name.startswith("scale")} == {
        "scale.weight": (15, 74, 1, 1)
    }
    assert {name.split(".")[0] for name, _ in dff.named_parameters()} == {"net_ref", "flownet", "scale"}
