import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.clip import Clip, FlowClip
from training.methods.flow_supervision import FlowSupervision
from training.methods.optimization import Adam
from training.models.correlation import LEVELS, RADIUS, correlation_pyramid, look_up
from training.models.raft import FixedBatchNorm, Raft, RaftConfig, Refinement, upsample_convexly
from training.target_statistics import with_target_statistics

SIDE = 2 * RADIUS + 1  # of a window of similarities
SMALL = RaftConfig(iterations=3, width=0.125)


@pytest.fixture
def raft() -> Raft:
    return SMALL.build().double()


def flows(network: Raft, frames: Tensor) -> list[Tensor]:
    return [refinement.flow for refinement in network.refinements(frames[:, 1], frames[:, 0])]


def test_sizes_and_names_of_the_released_network() -> None:
    with torch.device("meta"):
        network = RaftConfig().build()
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_257_536
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert len(shapes) == 179
    expected = {
        "fnet.conv1.weight": (64, 3, 7, 7),
        "fnet.layer2.0.downsample.0.weight": (96, 64, 1, 1),
        "fnet.conv2.bias": (256,),
        "cnet.norm1.running_var": (64,),
        "cnet.layer3.0.norm3.weight": (128,),
        "cnet.layer3.0.downsample.1.num_batches_tracked": (),
        "cnet.layer3.1.conv2.weight": (128, 128, 3, 3),
        "update_block.encoder.convc1.weight": (256, 324, 1, 1),
        "update_block.encoder.convf1.weight": (128, 2, 7, 7),
        "update_block.encoder.conv.bias": (126,),
        "update_block.gru.convz1.weight": (128, 384, 1, 5),
        "update_block.gru.convq2.weight": (128, 384, 5, 1),
        "update_block.flow_head.conv2.weight": (2, 256, 3, 3),
        "update_block.mask.2.weight": (576, 256, 1, 1),
    }
    assert expected.items() <= shapes.items()
    assert not any("norm" in name for name in shapes if name.startswith("fnet."))
    assert network.iterations == 12


def test_iterations_must_be_some() -> None:
    with pytest.raises(ValueError, match="iterations of RAFT is 0: choose at least 1"):
        RaftConfig(iterations=0).build()


# x varies slowest over a window: one column further are nine channels, one row further is one.
@pytest.mark.parametrize(("dx", "dy", "channel"), [(0, 0, 40), (2, 0, 58), (0, 3, 43), (-4, 1, 5), (4, 4, 80)])
def test_a_displacement_has_its_place_in_the_window(dx: int, dy: int, channel: int) -> None:
    """Every pixel of the previous frame is unlike all others; the current one shows it moved."""
    h, w = 16, 20
    previous = torch.eye(h * w, dtype=torch.float64).reshape(1, h * w, h, w)
    current = torch.roll(previous, (-dy, -dx), dims=(2, 3))  # what is at (x, y) was at (x + dx, y + dy)
    y, x = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    found = look_up(correlation_pyramid(current, previous), torch.stack([x, y])[None])
    window = found[0, : SIDE**2, 8, 10]
    assert window.nonzero().flatten().tolist() == [channel]
    torch.testing.assert_close(window[channel], torch.tensor((h * w) ** -0.5, dtype=torch.float64))


@pytest.mark.parametrize("size", [(16, 24), (9, 19), (4, 4), (2, 11), (1, 3)])
def test_the_look_up_equals_a_slow_one(size: tuple[int, int]) -> None:
    current, previous = torch.randn(2, 1, 5, *size, dtype=torch.float64)
    centres = torch.randn(1, 2, *size, dtype=torch.float64) * 6 + 5
    found = look_up(correlation_pyramid(current, previous), centres).reshape(LEVELS, SIDE, SIDE, *size)
    y, x = size[0] - 1, size[1] // 2
    similarities = torch.einsum("c,cij->ij", current[0, :, y, x], previous[0]) / 5**0.5
    for level in range(LEVELS):
        for column in range(SIDE):
            for row in range(SIDE):
                place_x = float(centres[0, 0, y, x]) / 2**level + column - RADIUS
                place_y = float(centres[0, 1, y, x]) / 2**level + row - RADIUS
                expected = bilinear(similarities, place_x, place_y)
                assert found[level, column, row, y, x].item() == pytest.approx(expected, abs=1e-12)
        h, w = similarities.shape
        similarities = similarities[: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2).mean((1, 3))


def bilinear(picture: Tensor, x: float, y: float) -> float:
    """Of the four pixels around a place; what lies outside, or in a picture without pixels, is zero."""
    h, w = picture.shape
    return sum(
        float(picture[row, column]) * (1 - abs(x - column)) * (1 - abs(y - row))
        for row in range(h)
        for column in range(w)
        if abs(x - column) < 1 and abs(y - row) < 1
    )


def test_constant_flow_stays_constant_but_at_the_border() -> None:
    """An eighth-resolution pixel is two quarter-resolution pixels."""
    flow = torch.tensor([3.0, -1.5], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 4, 6)
    enlarged = upsample_convexly(flow, torch.randn(1, 576, 4, 6, dtype=torch.float64))
    assert enlarged.shape == (1, 2, 8, 12)
    torch.testing.assert_close(enlarged[:, :, 2:-2, 2:-2], 2 * flow[:, :, :1, :1].expand(1, 2, 4, 8))


def test_convex_upsampling_equals_the_mean_of_the_full_resolution() -> None:
    """As in the released network: eight times as large, (neighbour, row, column) in the channels of the weights."""
    flow, weights = torch.randn(2, 2, 3, 5, dtype=torch.float64), torch.randn(2, 576, 3, 5, dtype=torch.float64)
    shares = weights.reshape(2, 1, 9, 8, 8, 3, 5).softmax(2)
    neighbours = F.unfold(8 * flow, 3, padding=1).reshape(2, 2, 9, 1, 1, 3, 5)
    full = (shares * neighbours).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(2, 2, 24, 40)
    torch.testing.assert_close(upsample_convexly(flow, weights), F.avg_pool2d(full, 4) / 4)


def test_more_iterations_leave_the_first_ones_as_they_are(raft: Raft, frames: Tensor) -> None:
    expected = flows(raft, frames)
    raft.iterations = 5
    found = flows(raft, frames)
    assert (len(expected), len(found)) == (3, 5)
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=False))
    assert not torch.equal(found[3], found[4])


def test_a_refinement_does_not_differentiate_the_flow_it_starts_from(raft: Raft, frames: Tensor) -> None:
    """A bias of the last layer moves every step by as much as itself; only the last step knows."""
    *_, last = flows(raft, frames)
    bias = raft.update_block.get_parameter("flow_head.conv2.bias")
    (gradient,) = torch.autograd.grad(last.mean((0, 2, 3)).sum(), bias)
    torch.testing.assert_close(gradient, torch.ones(2, dtype=torch.float64))


def test_earlier_iterations_are_trained_through_the_memory(raft: Raft, frames: Tensor) -> None:
    refinements: list[Refinement] = list(raft.refinements(frames[:, 1], frames[:, 0]))
    for refinement in refinements[:-1]:
        refinement.hidden.retain_grad()
    torch.autograd.backward(refinements[-1].flow.square().sum())
    assert all(refinement.hidden.grad is not None for refinement in refinements[:-1])


@pytest.mark.parametrize("size", [(32, 32), (36, 20), (8, 8), (1, 5)])
def test_gradient_reaches_both_frames_of_any_size(size: tuple[int, int], raft: Raft) -> None:
    """The segmentation-to-flow module needs both."""
    current, previous = torch.rand(2, 1, 3, *size, dtype=torch.float64).requires_grad_().unbind()
    flow = raft(current, previous)
    assert flow.shape == (1, 2, -(-size[0] // 4), -(-size[1] // 4))
    for gradient in torch.autograd.grad(flow.square().sum(), (current, previous)):
        assert bool(gradient.isfinite().all())
        assert bool(gradient.any())


def test_a_frame_is_continued_by_its_border(raft: Raft) -> None:
    current, previous = torch.rand(2, 1, 3, 20, 36, dtype=torch.float64)
    continued = (F.pad(frame, (0, 4, 0, 4), mode="replicate") for frame in (current, previous))
    assert torch.equal(raft(current, previous), raft(*continued)[:, :, :5, :9])


def test_black_frames_have_a_flow(raft: Raft) -> None:
    """What the segmentation-to-flow module sees of a class that does not occur."""
    black = torch.zeros(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    flow = raft(black, black)
    torch.autograd.backward(flow.sum())
    assert black.grad is not None
    assert bool(flow.isfinite().all())
    assert bool(black.grad.isfinite().all())


@pytest.mark.parametrize("is_training", [False, True])
def test_samples_of_a_batch_do_not_meet(is_training: bool, raft: Raft, frames: Tensor) -> None:
    raft.train(is_training)
    alone = torch.cat([raft(frames[i : i + 1, 1], frames[i : i + 1, 0]) for i in range(2)])
    torch.testing.assert_close(raft(frames[:, 1], frames[:, 0]), alone)


def test_nothing_moves_the_statistics(raft: Raft, frames: Tensor) -> None:
    norm = raft.cnet.norm1
    assert isinstance(norm, FixedBatchNorm)
    norm.running_mean.fill_(0.5)
    before = {name: value.clone() for name, value in raft.named_buffers()}
    expected = raft.train()(frames[:, 1], frames[:, 0])
    assert all(torch.equal(value, before[name]) for name, value in raft.named_buffers())
    assert torch.equal(raft.eval()(frames[:, 1], frames[:, 0]), expected)

    class OfClips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.raft = raft

        def forward(self, clips: Tensor) -> Tensor:
            flow: Tensor = self.raft(clips[:, 1], clips[:, 0])
            return flow

    adapted = with_target_statistics(OfClips(), [Clip(frames)], torch.device("cpu"))
    assert torch.equal(adapted(frames), expected)


def test_fixed_batch_norm_is_batch_norm_in_evaluation() -> None:
    theirs, ours = nn.BatchNorm2d(3).double().eval(), FixedBatchNorm(3).double()
    state = {name: torch.rand_like(value.double()) + 0.1 for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(state)
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(ours(features), theirs(features))


def test_half_precision_places_centres_in_single(frames: Tensor) -> None:
    network = SMALL.build().eval()
    pair = frames[:, 1].float(), frames[:, 0].float()
    with torch.no_grad():
        expected = network(*pair)
        found = network.half()(*(frame.half() for frame in pair))
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 0.01 * float(expected.abs().max())


def test_training_on_a_constant_shift_learns_it() -> None:
    """Two pixels of a quarter of the resolution to the left."""
    method = FlowSupervision(flow_net=RaftConfig(iterations=2, width=0.125), optimizer=Adam(learning_rate=2e-3))
    networks = method.networks(num_classes=15)
    optimizer = method.optimizers(networks)["flow_net"]
    texture = F.interpolate(torch.rand(2, 3, 8, 10), scale_factor=8.0, mode="bilinear")
    clip_frames = torch.stack([texture[..., 8:], texture[..., :-8]], dim=1)[..., :64, :64]
    flow = torch.tensor([-8.0, 0.0]).reshape(1, 2, 1, 1).expand(2, 2, 64, 64)
    clip = FlowClip(clip_frames, flow=flow, valid=torch.ones(2, 64, 64, dtype=torch.bool))
    losses = []
    for _ in range(30):
        (update,) = method.updates(networks, clip, Clip(clip_frames))
        (loss,) = update.losses.values()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
