import torch
from torch import Tensor

from training.models.flownet_s import FlowNetS
from training.models.segmentation_to_flow import flow_from_labels, flow_from_probabilities

NUM_CLASSES = 5


def _labels() -> Tensor:
    """Two frames of two samples, with classes 0 to 3 or ignored: (2, 2, 32, 32)."""
    return torch.randint(-1, 4, (2, 2, 8, 8)).repeat_interleave(4, 2).repeat_interleave(4, 3)


def _one_hot(labels: Tensor) -> Tensor:
    return (labels.unsqueeze(1) == torch.arange(NUM_CLASSES).view(-1, 1, 1)).double()


def _by_the_formula(sfm: FlowNetS, p: Tensor, q: Tensor, current: Tensor, previous: Tensor) -> Tensor:
    passes = [sfm(p[:, c : c + 1] * current, q[:, c : c + 1] * previous) for c in range(p.shape[1])]
    return torch.stack(passes).sum(0)


def test_sum_over_all_classes_with_its_gradient(flow_net: FlowNetS, frames: Tensor) -> None:
    current, previous = frames[:, 1], frames[:, 0]
    scores = torch.randn(2, 2, NUM_CLASSES, 32, 32, dtype=torch.float64)
    gradients = []
    for function in (flow_from_probabilities, _by_the_formula):
        leaf = scores.clone().requires_grad_()
        p, q = leaf.softmax(2).unbind(1)
        flow = function(flow_net, p, q, current, previous)
        torch.autograd.backward(flow.square().sum())
        assert leaf.grad is not None
        gradients.append((flow, leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


@torch.no_grad()
def test_dead_classes_add_the_flow_of_nothing(flow_net: FlowNetS, frames: Tensor) -> None:
    current, previous = frames[:, 1], frames[:, 0]
    p, q = _one_hot(_labels()[:, 1]), _one_hot(_labels()[:, 0])
    p[0, 2], q[0, 2] = 0, 0  # dead in one sample only; class 4 is dead in both
    expected = _by_the_formula(flow_net, p, q, current, previous)
    torch.testing.assert_close(flow_from_probabilities(flow_net, p, q, current, previous), expected)


@torch.no_grad()
def test_the_two_rules_differ_by_the_flow_of_nothing_per_absent_class(flow_net: FlowNetS, frames: Tensor) -> None:
    labels, current, previous = _labels(), frames[:, 1], frames[:, 0]
    labels[1][labels[1] == 3] = -1  # sample 0 lacks class 4, sample 1 lacks 3 and 4
    of_present = flow_from_labels(flow_net, labels[:, 1], labels[:, 0], current, previous)
    of_all = flow_from_probabilities(flow_net, _one_hot(labels[:, 1]), _one_hot(labels[:, 0]), current, previous)
    nothing = flow_net(torch.zeros_like(current), torch.zeros_like(previous))
    assert float(nothing.abs().max()) > 0
    torch.testing.assert_close(of_all, of_present + torch.tensor([1.0, 2.0]).view(2, 1, 1, 1) * nothing)


@torch.no_grad()
def test_a_class_of_the_previous_frame_alone_is_present(flow_net: FlowNetS, frames: Tensor) -> None:
    current, previous = frames[:, 1], frames[:, 0]
    only_before = torch.zeros(2, 32, 32, dtype=torch.int64)
    ignored = torch.full_like(only_before, -1)
    flow = flow_from_labels(flow_net, ignored, only_before, current, previous)
    torch.testing.assert_close(flow, flow_net(torch.zeros_like(current), previous))


@torch.no_grad()
def test_permuted_classes_leave_the_sum_as_it_is(flow_net: FlowNetS, frames: Tensor) -> None:
    p, q = torch.rand(2, 2, NUM_CLASSES, 32, 32, dtype=torch.float64).softmax(2).unbind(1)
    permutation = torch.tensor([3, 0, 4, 1, 2])
    flow = flow_from_probabilities(flow_net, p, q, frames[:, 1], frames[:, 0])
    permuted = flow_from_probabilities(flow_net, p[:, permutation], q[:, permutation], frames[:, 1], frames[:, 0])
    torch.testing.assert_close(permuted, flow)


@torch.no_grad()
def test_samples_of_a_batch_do_not_meet(flow_net: FlowNetS, frames: Tensor) -> None:
    labels, current, previous = _labels(), frames[:, 1], frames[:, 0]
    alone = [
        flow_from_labels(flow_net, labels[i : i + 1, 1], labels[i : i + 1, 0], current[i : i + 1], previous[i : i + 1])
        for i in range(2)
    ]
    together = flow_from_labels(flow_net, labels[:, 1], labels[:, 0], current, previous)
    torch.testing.assert_close(together, torch.cat(alone))


@torch.no_grad()
def test_chunks_do_not_change_the_sum(flow_net: FlowNetS, frames: Tensor) -> None:
    # 24 classes of 2 samples are 48 pairs: three passes.
    p, q = torch.rand(2, 2, 24, 32, 32, dtype=torch.float64).softmax(2).unbind(1)
    flow = flow_from_probabilities(flow_net, p, q, frames[:, 1], frames[:, 0])
    torch.testing.assert_close(flow, _by_the_formula(flow_net, p, q, frames[:, 1], frames[:, 0]))
