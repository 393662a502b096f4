import pytest
import torch
from torch import Tensor, nn

from training.models import SEGMENTERS
from training.models.accel import Accel, AccelConfig
from training.models.da_vss import DaVssConfig
from training.models.dff import DffConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.models.shared_accel import SharedAccel, SharedAccelConfig
from training.models.upsampling import upsample
from training.models.video_segmenter import SegmenterConfig, VideoSegmenter

FLOW_NET = FlowNetSConfig(width=1 / 4)
SMALL: dict[str, SegmenterConfig] = {
    "per_frame": PerFrameConfig(backbone="resnet10_slim"),
    "accel": AccelConfig(reference="resnet18", update="resnet10_slim", flow_net=FLOW_NET),
    "dff": DffConfig(reference="resnet10_slim", flow_net=FLOW_NET),
    "da_vss": DaVssConfig(reference="resnet10_slim", flow_net=FLOW_NET, correction_width=1 / 4),
    "shared_accel": SharedAccelConfig(backbone="resnet10_slim", flow_net=FLOW_NET),
}


@pytest.fixture(params=SEGMENTERS)
def segmenter(request: pytest.FixtureRequest) -> VideoSegmenter:
    segmenter = SMALL[request.param].build(num_classes=5).double().eval()
    if isinstance(segmenter, SharedAccel):
        nn.init.normal_(segmenter.sf_layer.weight)  # or nothing of the past is seen
    return segmenter


@torch.no_grad()
def test_scores_have_the_frames_size(segmenter: VideoSegmenter, frames: Tensor) -> None:
    assert segmenter.num_classes == 5
    for num_frames in (1, 2, 3):
        assert segmenter(frames[:, :num_frames]).shape == (2, 5, 32, 32)


@torch.no_grad()
def test_the_state_is_named_and_keeps_its_shape(segmenter: VideoSegmenter, frames: Tensor) -> None:
    state = segmenter.encode_key(frames[:, 0])
    propagation = segmenter.propagate(state, frames[:, 0], frames[:, 1])
    assert len(segmenter.state_names) == len(state)
    assert [tensor.shape for tensor in propagation.state] == [tensor.shape for tensor in state]
    assert propagation.propagated_logits.shape == propagation.logits.shape
    assert segmenter.upsample(propagation.logits).shape == (2, 5, 32, 32)
    assert segmenter.upsample(propagation.logits, stride=4).shape == (2, 5, 8, 8)


@torch.no_grad()
def test_every_level_has_scores_and_the_main_one_is_what_a_stream_gets(
    segmenter: VideoSegmenter, frames: Tensor
) -> None:
    for num_frames in (1, 2, 3):
        levels = segmenter.level_logits(frames[:, :num_frames])
        assert len(levels) == segmenter.num_levels
        assert len({scores.shape for scores in levels}) == 1
        *_, last = segmenter.propagations(frames[:, :num_frames])
        torch.testing.assert_close(levels[0], last.logits)


@torch.no_grad()
def test_what_flows_along_is_the_state_and_it_comes_from_the_frame_before(
    segmenter: VideoSegmenter, frames: Tensor
) -> None:
    motion = segmenter.propagate(segmenter.encode_key(frames[:, 0]), frames[:, 0], frames[:, 1]).motion
    assert (motion is None) == (not segmenter.state_names)
    if motion is not None:
        assert motion.flow.shape == (2, 2, 8, 8)
        torch.testing.assert_close(motion.earlier, frames[:, 0])


@torch.no_grad()
def test_a_segmenter_says_whether_it_looks_at_the_frame_before(segmenter: VideoSegmenter, frames: Tensor) -> None:
    if not segmenter.state_names:
        return  # its graph compares the two frames
    state = segmenter.encode_key(frames[:, 0])
    step, other = (segmenter.propagate(state, frames[:, previous], frames[:, 2]) for previous in (0, 1))
    assert torch.equal(step.logits, other.logits) is not segmenter.reads_previous


def test_around_the_backbones_gradients_reach_every_part_and_nothing_else(
    segmenter: VideoSegmenter, frames: Tensor
) -> None:
    if not segmenter.around_backbones():
        return
    segmenter.train().requires_grad_(False)
    for part in segmenter.around_backbones():
        part.requires_grad_(True)
    for name, parameter in segmenter.named_parameters():
        if "flownet" in name:  # draw flows of about a pixel, or the coarse levels hardly matter
            nn.init.normal_(parameter, std=0.05)
    torch.autograd.backward(torch.stack([scores.square().mean() for scores in segmenter.level_logits(frames)]).sum())
    trained = {id(parameter) for part in segmenter.around_backbones() for parameter in part.parameters()}
    for name, parameter in segmenter.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name
        assert parameter.grad is None or bool(parameter.grad.any()), name
        assert id(parameter) not in trained or ".layer6." in name or not name.startswith("net_"), name


@torch.no_grad()
def test_samples_of_a_batch_do_not_meet(segmenter: VideoSegmenter, frames: Tensor) -> None:
    torch.testing.assert_close(segmenter(frames), torch.cat([segmenter(frames[:1]), segmenter(frames[1:])]))


@torch.no_grad()
def test_folded_segmenters_are_equal(segmenter: VideoSegmenter, frames: Tensor) -> None:
    torch.testing.assert_close(segmenter.folded()(frames), segmenter(frames), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_folding_accel_leaves_it_as_it_is_and_keeps_every_output(accel: Accel, frames: Tensor) -> None:
    before = {name: value.clone() for name, value in accel.state_dict().items()}
    folded = accel.folded()
    assert all(torch.equal(value, before[name]) for name, value in accel.state_dict().items())
    assert not any(isinstance(module, nn.Conv2d) for module in folded.children())
    key, current = frames[:, 0], frames[:, 1]
    plain = accel.propagate(accel.encode_key(key), key, current)
    quick = folded.propagate(folded.encode_key(key), key, current)
    torch.testing.assert_close(quick.logits, plain.logits, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(quick.propagated_logits, plain.propagated_logits, rtol=1e-11, atol=1e-11)
    assert quick.motion is not None
    assert plain.motion is not None
    torch.testing.assert_close(quick.motion, plain.motion)


@torch.no_grad()
def test_accel_by_hand(accel: Accel, frames: Tensor) -> None:
    # With no flow and merge = reference + 2 update, the scores are those of the two networks, enlarged.
    for parameter in accel.flownet.parameters():
        nn.init.zeros_(parameter)
    nn.init.zeros_(accel.merge.get_parameter("bias"))
    identity = torch.eye(5, dtype=torch.float64)
    accel.merge.weight.copy_(torch.cat([identity, 2 * identity], dim=1).view(5, 10, 1, 1))

    def enlarge(scores: Tensor, factor: int) -> Tensor:
        return nn.functional.interpolate(scores, scale_factor=float(factor), mode="bilinear")

    merged = enlarge(accel.net_ref(frames[:, 0]), 2) + 2 * enlarge(accel.net_update(frames[:, 2]), 2)
    torch.testing.assert_close(accel(frames), enlarge(merged, 4))


@torch.no_grad()
def test_one_frame_is_propagated_onto_itself(accel: Accel, frames: Tensor) -> None:
    torch.testing.assert_close(accel(frames[:, :1]), accel(frames[:, [0, 0]]))


@torch.no_grad()
def test_a_merge_layer_that_starts_as_the_average_is_the_mean_of_both_branches(frames: Tensor) -> None:
    flow_net = FlowNetSConfig(width=1 / 4)
    config = AccelConfig(reference="resnet18", update="resnet10_slim", flow_net=flow_net, merge_start="average")
    accel = config.build(num_classes=5).double().eval()
    state = accel.encode_key(frames[:, 0])
    propagation = accel.propagate(state, frames[:, 0], frames[:, 1])
    updated = upsample(accel.net_update(frames[:, 1]), 2)
    torch.testing.assert_close(propagation.logits, (propagation.state[0] + updated) / 2)
