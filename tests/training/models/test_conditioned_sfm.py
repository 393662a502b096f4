import pytest
import torch
from torch import Tensor, nn

from training.models.conditioned_sfm import ConditionedSfm
from training.models.flownet_s import FlowNetS
from training.models.segmentation_to_flow import flow_from_labels, flow_from_probabilities

NUM_CLASSES = 5
PERMUTATION = torch.tensor([3, 0, 4, 1, 2])


@pytest.fixture
def sfm(flow_net: FlowNetS) -> ConditionedSfm:
    """As after training: classes change the maps."""
    module = ConditionedSfm(flow_net, NUM_CLASSES).double()
    for film in module.films.children():
        nn.init.normal_(film.get_parameter("weight"), std=0.5)
    return module


@pytest.fixture
def probabilities() -> Tensor:
    """Of the current frame and the previous one: (2, 2, C, 32, 32)."""
    return torch.rand(2, 2, NUM_CLASSES, 32, 32, dtype=torch.float64).softmax(2)


@torch.no_grad()
def test_a_new_module_is_the_papers(flow_net: FlowNetS, frames: Tensor, probabilities: Tensor) -> None:
    new, (p, q) = ConditionedSfm(flow_net, NUM_CLASSES).double(), probabilities.unbind(1)
    ours, papers = (flow_from_probabilities(sfm, p, q, frames[:, 1], frames[:, 0]) for sfm in (new, flow_net))
    assert torch.equal(ours, papers)


@torch.no_grad()
def test_permuted_classes_change_the_sum(sfm: ConditionedSfm, frames: Tensor, probabilities: Tensor) -> None:
    p, q = probabilities.unbind(1)
    flow = flow_from_probabilities(sfm, p, q, frames[:, 1], frames[:, 0])
    permuted = flow_from_probabilities(sfm, p[:, PERMUTATION], q[:, PERMUTATION], frames[:, 1], frames[:, 0])
    assert float((permuted - flow).abs().max()) > 1e-3 * float(flow.abs().max())


@torch.no_grad()
def test_labels_are_seen_as_the_classes_that_they_are(sfm: ConditionedSfm, frames: Tensor) -> None:
    """Whatever other classes occur; absent ones add the same flow of nothing, whichever they are."""
    labels = torch.randint(0, 3, (2, 2, 8, 8)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels[labels == 1] = 4
    pair = frames[:, 1], frames[:, 0]
    one_hot = [(labels[:, t].unsqueeze(1) == torch.arange(NUM_CLASSES).view(-1, 1, 1)).double() for t in (1, 0)]
    of_all = flow_from_probabilities(sfm, one_hot[0], one_hot[1], *pair)
    of_present = flow_from_labels(sfm, labels[:, 1], labels[:, 0], *pair)
    nothing = sfm(torch.zeros_like(pair[0]), torch.zeros_like(pair[1]))
    torch.testing.assert_close(of_all, of_present + 2 * nothing)


@torch.no_grad()
def test_a_class_changes_maps_by_its_scale_and_shift_where_it_is(sfm: ConditionedSfm) -> None:
    """At a quarter of the resolution: half there in one frame, wholly in the other, and absent on the right."""
    seen: list[Tensor] = []
    sfm.flow_net.conv2.register_forward_hook(lambda *arguments: seen.append(arguments[-1].clone()))
    sfm.flow_net.conv3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    frame, there = torch.rand(1, 3, 32, 32, dtype=torch.float64), torch.zeros(1, 32, 32, dtype=torch.float64)
    there[..., :16] = 1
    sfm.of_class(frame, frame, (there / 2, there), torch.tensor([3]))
    before, after = seen
    scale, shift = sfm.films["2"](sfm.embedding(torch.tensor(3))).view(2, -1, 1, 1)
    torch.testing.assert_close(after[0, :, :, :4], before[0, :, :, :4] * (1 + 0.75 * scale) + 0.75 * shift)
    assert torch.equal(after[..., 4:], before[..., 4:])


def test_the_error_reaches_the_classes_by_way_of_their_maps_too(sfm: ConditionedSfm) -> None:
    """Of black frames the paper's module sees nothing: multiplied with any mask they stay black."""
    scores = torch.randn(2, 1, NUM_CLASSES, 32, 32, dtype=torch.float64, requires_grad=True)
    black = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    current, previous = scores.softmax(2)
    torch.autograd.backward(flow_from_probabilities(sfm, current, previous, black, black).square().sum())
    assert scores.grad is not None
    assert bool(scores.grad.any())
    assert all(film.get_parameter("weight").grad is not None for film in sfm.films.children())
