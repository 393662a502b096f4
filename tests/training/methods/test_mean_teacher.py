import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from training.data.augmentation import Draw
from training.data.clip import Clip, LabelledClip
from training.methods.mean_teacher import Teacher, perturbed
from training.methods.method import Method, Networks
from training.models.video_segmenter import VideoSegmenter

Small = Callable[..., Method[Any]]  # Any: methods of either source
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]
Snapshot = Callable[[Networks], dict[str, Tensor]]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def pair(method: Method[Any]) -> tuple[VideoSegmenter, Teacher]:
    networks = method.networks(4)
    return cast("VideoSegmenter", networks["segmenter"]), cast("Teacher", networks["teacher"])


def fill(network: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


def test_the_teacher_is_the_mean_of_the_first_students_and_then_their_moving_average(
    small: Small, target: Clip
) -> None:
    method = small("mean_teacher")
    student, teacher = pair(method)
    weight = teacher.segmenter.get_parameter("segnet.conv1.weight")
    seen = []
    for value in (8.0, 4.0, 0.0, 0.0):
        fill(student, value)
        teacher.follow(student, method.stage, target.frames, decay=0.6, statistics_decay=0.9)  # type: ignore[attr-defined]  # it has one
        seen.append(weight.mean().item())
    # Shares kept: 0, 1/2, then 0.6 in place of 2/3 and of 3/4.
    assert seen == pytest.approx([8, 6, 3.6, 2.16])
    assert teacher.num_steps.item() == 4
    assert not teacher.segmenter.training


def test_the_teachers_statistics_are_an_average_over_target_batches_alone(small: Small, target: Clip) -> None:
    method = small("mean_teacher")
    student, teacher = pair(method)
    first = teacher.segmenter.get_submodule("segnet.bn1")
    with torch.no_grad():  # of another domain: nothing of it is to be left
        for name, buffer in student.named_buffers():
            if name.endswith("running_mean"):
                buffer.fill_(1e6)
    means: list[Tensor] = []
    first.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].mean((0, 2, 3))))
    for factor in (1.0, 0.5, 0.25):
        teacher.follow(student, method.stage, factor * target.frames, decay=0.9, statistics_decay=0.5)  # type: ignore[attr-defined]  # it has one
    # Shares kept: 0, 1/2 and, in place of 2/3, 1/2.
    expected = (means[0] / 2 + means[1] / 2) / 2 + means[2] / 2
    torch.testing.assert_close(first.get_buffer("running_mean"), expected)
    assert student.get_buffer("segnet.bn1.running_mean").eq(1e6).all()


def certain_of(segmenter: VideoSegmenter, *probabilities: float) -> None:
    """Makes both classifiers of a network of single frames say the same everywhere."""
    segnet: Any = segmenter.segnet  # Any: torch's modules do not declare their parts
    for classifier in (segnet.layer6, segnet.layer5):
        fill(classifier, 0.0)
        with torch.no_grad():
            classifier.conv2d_list[0].bias.copy_(torch.tensor(probabilities).log())


def test_the_student_learns_the_teachers_probabilities(small: Small, source: LabelledClip, target: Clip) -> None:
    method = small("mean_teacher", pseudo_weight=0.5, decay=1.0)
    networks = method.networks(4)
    student, teacher = cast("VideoSegmenter", networks["segmenter"]), cast("Teacher", networks["teacher"])
    certain_of(student, 0.4, 0.2, 0.2, 0.2)
    certain_of(teacher.segmenter, 0.3, 0.2, 0.4, 0.1)
    teacher.num_steps.fill_(10**9)  # it has been averaging for long: nothing moves
    (update,) = method.updates(networks, source, target)
    expected = 0.5 * (1 + 0.1) * -(0.3 * math.log(0.4) + 0.7 * math.log(0.2))
    assert update.losses["pseudo"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stage", ["one", "two"])
def test_the_pseudo_loss_reaches_what_the_stage_trains_and_not_the_teacher(
    stage: str, small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("mean_teacher", stage)
    networks = method.networks(4)
    method.optimizers(networks)
    (update,) = method.updates(networks, source, target)
    torch.autograd.backward(update.losses["pseudo"])
    parts = {name.split(".")[0] for name, each in networks["segmenter"].named_parameters() if each.grad is not None}
    assert parts == ({"segnet"} if stage == "one" else {"merge", "flownet", "net_ref", "net_update"})
    assert all(each.grad is None for each in networks["teacher"].parameters())


@pytest.mark.parametrize("stage", ["one", "two"])
def test_without_pseudo_weight_the_student_is_supervised_and_forwards_target_frames(
    stage: str, small: Small, train: Train, snapshot: Snapshot
) -> None:
    states = []
    for method in (small("mean_teacher", stage, pseudo_weight=0.0), small("supervised", stage, forward_target=True)):
        torch.manual_seed(1)
        networks = method.networks(4)
        train(method, networks, 2)
        states.append(snapshot({"segmenter": networks["segmenter"]}))
    ours, control = states
    assert [key for key, value in ours.items() if not torch.equal(value, control[key])] == []


def test_what_the_student_sees_in_other_colours_leaves_its_statistics_alone(
    small: Small, train: Train, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the test above says for no weight, with one and for any colours."""
    statistics = []
    for factor in (1.0, 0.1):

        def darkened(frames: Tensor, probabilities: Tensor, factor: float = factor) -> tuple[Tensor, Tensor]:
            return factor * frames, probabilities

        monkeypatch.setattr("training.methods.mean_teacher.perturbed", darkened)
        torch.manual_seed(1)
        method = small("mean_teacher")
        networks = method.networks(4)
        train(method, networks, 1)
        statistics.append({key: value for key, value in snapshot(networks).items() if key.endswith(STATISTICS)})
    assert all(torch.equal(value, statistics[1][key]) for key, value in statistics[0].items())


def test_clips_are_perturbed_one_by_one_and_probabilities_mirrored_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = Draw(0, 1, 1, 1, (1, 1, 1), 0, 1, 0, 0, 0, is_mirrored=False)
    draws = [neutral._replace(brightness=0.5), neutral._replace(is_mirrored=True)]
    monkeypatch.setattr("training.methods.mean_teacher.draw", lambda _: draws.pop(0))
    frames = torch.rand(2, 2, 3, 8, 8, dtype=torch.float64)
    probabilities = torch.rand(2, 4, 8, 8)
    changed, of_changed = perturbed(frames, probabilities)
    torch.testing.assert_close(changed, torch.stack([frames[0] / 2, frames[1].flip(-1)]), rtol=0, atol=1e-5)
    assert torch.equal(of_changed, torch.stack([probabilities[0], probabilities[1].flip(-1)]))


def test_perturbations_come_from_torchs_generator() -> None:
    frames, probabilities = torch.rand(1, 1, 3, 8, 8), torch.zeros(1, 4, 8, 8)

    def seen(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return perturbed(frames, probabilities)[0]

    assert torch.equal(seen(1), seen(1))
    assert not torch.allclose(seen(1), seen(2), atol=0.01)
