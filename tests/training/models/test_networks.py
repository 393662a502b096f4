import pytest
import torch
from torch import Tensor

from training.models import BACKBONES, FLOW_NETS
from training.models.deeplab import BackboneName, Classifier, DeepLab
from training.models.flownet_s import FlowNetS
from training.models.input_conversion import flow_input, segmentation_input


def _num_parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_inputs_are_bgr() -> None:
    orange = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    assert flow_input(orange).flatten().tolist() == [0.0, 0.5, 1.0]
    expected = torch.tensor([-104.00698793, 127.5 - 116.66876762, 255 - 122.67891434])
    torch.testing.assert_close(segmentation_input(orange).flatten(), expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_deeplab_gives_scores_at_an_eighth(backbone: BackboneName) -> None:
    network = DeepLab(backbone, num_classes=4, auxiliary=True).eval()
    with torch.no_grad():
        main, auxiliary = network.level_scores(torch.rand(1, 3, 32, 64))
    assert main.shape == auxiliary.shape == (1, 4, 4, 8)


def test_sizes_and_names_of_the_official_deeplab() -> None:
    with torch.device("meta"):
        with_auxiliary, without = DeepLab("resnet101", 15, auxiliary=True), DeepLab("resnet101", 15, auxiliary=False)
    assert (_num_parameters(with_auxiliary), len(with_auxiliary.state_dict())) == (44_159_160, 640)
    assert (_num_parameters(without), len(without.state_dict())) == (43_606_140, 632)
    assert {"layer1.0.downsample.1.running_var", "layer3.22.conv3.weight", "layer6.conv2d_list.3.bias"} <= set(
        without.state_dict()
    )


def test_the_slim_backbone_is_small() -> None:
    assert _num_parameters(DeepLab("resnet10_slim", 15, auxiliary=True)) < 450_000


def test_new_convolutions_are_drawn_with_a_hundredth_of_deviation() -> None:
    network = DeepLab("resnet10_slim", 15, auxiliary=True)
    assert network.layer4.get_parameter("0.conv2.weight").std().item() == pytest.approx(0.01, rel=0.05)
    assert network.layer6.get_parameter("conv2d_list.0.weight").std().item() == pytest.approx(0.01, rel=0.05)


def test_a_mixed_classifier_gives_mixed_scores() -> None:
    classifier, features = Classifier(3, 2).double(), torch.rand(1, 3, 4, 4, dtype=torch.float64)
    matrix, bias = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    expected = torch.einsum("oc,bchw->bohw", matrix, classifier(features)) + bias.view(-1, 1, 1)
    classifier.mix(matrix, bias)
    torch.testing.assert_close(classifier(features), expected)


def test_size_and_names_of_the_official_flownet_s() -> None:
    with torch.device("meta"):
        network = FlowNetS()
    assert (_num_parameters(network), len(network.state_dict())) == (5_462_674, 46)
    assert {"conv3_1.0.bias", "predict_flow6.weight", "deconv2.0.weight", "upsample_flow6to5.bias"} <= set(
        network.state_dict()
    )


@pytest.mark.parametrize("name", FLOW_NETS)
@pytest.mark.parametrize(("height", "width"), [(64, 128), (36, 100)])
def test_flow_nets_give_flow_at_a_quarter(name: str, height: int, width: int) -> None:
    flow = FLOW_NETS[name]().build()(torch.rand(2, 3, height, width), torch.rand(2, 3, height, width))
    assert flow.shape == (2, 2, height // 4, width // 4)


@pytest.mark.parametrize("name", FLOW_NETS)
def test_flow_nets_tell_the_current_frame_from_the_previous(name: str, frames: Tensor) -> None:
    network = FLOW_NETS[name]().build().double().eval()
    assert not torch.equal(network(frames[:, 0], frames[:, 1]), network(frames[:, 1], frames[:, 0]))


@torch.no_grad()
@pytest.mark.parametrize("name", FLOW_NETS)
def test_flow_nets_give_the_features_that_their_flow_is_read_off_if_they_have_any(name: str, frames: Tensor) -> None:
    network = FLOW_NETS[name]().build().double().eval()
    if not network.feature_channels:
        return
    flow, features = network.with_features(frames[:, 1], frames[:, 0])
    assert torch.equal(flow, network(frames[:, 1], frames[:, 0]))
    assert features.shape == (2, network.feature_channels, 8, 8)


@torch.no_grad()
def test_the_flow_of_flownet_s_is_five_times_what_its_last_layer_makes_of_the_features(
    flow_net: FlowNetS, frames: Tensor
) -> None:
    flow, features = flow_net.with_features(frames[:, 1], frames[:, 0])
    torch.testing.assert_close(flow, 5 * flow_net.predict_flow2(features))
