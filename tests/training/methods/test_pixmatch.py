import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from training.data.clip import Clip, LabelledClip
from training.methods.fourier_adaptation import square_side
from training.methods.method import Method
from training.methods.pixmatch import PixMatch, augmented, labels_of_levels, mixed, restyled
from training.models.accel import Accel
from training.models.per_frame import PerFrame

Small = Callable[..., Method[Any]]  # Any: methods of either source


def scores(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log().view(1, -1, 1, 1)


def test_the_auxiliary_label_is_that_of_both_classifiers() -> None:
    levels = scores(0.6, 0.4, 0.0), scores(0.1, 0.5, 0.4)
    assert [labels.item() for labels in labels_of_levels(levels, 0.0)] == [0, 1]
    assert [labels.item() for labels in labels_of_levels(levels[:1], 0.0)] == [0]


@pytest.mark.parametrize(("threshold", "expected"), [(0.45, [0, 1]), (0.55, [0, 1]), (0.65, [-1, -1])])
def test_an_auxiliary_label_counts_where_either_classifier_is_sure(threshold: float, expected: list[int]) -> None:
    levels = scores(0.6, 0.4, 0.0), scores(0.1, 0.5, 0.4)
    assert [labels.item() for labels in labels_of_levels(levels, threshold)] == expected
    sure_auxiliary = scores(0.4, 0.35, 0.25), scores(0.1, 0.7, 0.2)
    assert [labels.item() for labels in labels_of_levels(sure_auxiliary, 0.5)] == [-1, 1]


@pytest.mark.parametrize("stage", ["one", "two"])
def test_the_losses_of_a_network_that_sees_nothing_are_those_worked_out_by_hand(
    stage: str, small: Small, source: LabelledClip, target: Clip
) -> None:
    """It predicts class 1 with 0.7, its auxiliary classifier class 2 with 0.9: so says the label of both."""
    method = small("pixmatch", stage, augmentation_weight=0.5, fourier_weight=0.25, cut_mix_weight=0.0)
    networks = method.networks(4)
    main, auxiliary = (torch.tensor(each).log() for each in ((0.1, 0.7, 0.1, 0.1), (0.03, 0.04, 0.9, 0.03)))
    with torch.no_grad():
        match networks["segmenter"]:
            case PerFrame(segnet=segnet):
                for classifier, biases in ((segnet.layer6, main), (segnet.layer5, auxiliary)):
                    for parameter in classifier.parameters():
                        parameter.zero_()
                    classifier.conv2d_list[0].get_parameter("bias").copy_(biases)
            case Accel(merge=merge):
                merge.weight.zero_()
                merge.get_parameter("bias").copy_(main)
    method.optimizers(networks)
    (update,) = method.updates(networks, source, target)
    expected = -math.log(0.7) - (0.1 * math.log(0.9) if stage == "one" else 0)
    assert set(update.losses) == {"source", "augmentation", "fourier"}
    assert update.losses["augmentation"].item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert update.losses["fourier"].item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_without_weights_the_target_is_forwarded_once_and_without_a_loss(
    small: Small, source: LabelledClip, target: Clip
) -> None:
    method = small("pixmatch", augmentation_weight=0.0, fourier_weight=0.0, cut_mix_weight=0.0, exact_bn=False)
    networks = method.networks(4)
    (update,) = method.updates(networks, source, target)
    assert set(update.losses) == {"source"}
    assert cast("PerFrame", networks["segmenter"]).segnet.get_buffer("bn1.num_batches_tracked") == 2


def test_one_draw_serves_the_frames_and_the_labels_of_all_classifiers() -> None:
    """In the released code the labels of the auxiliary classifier are of another part of the frame."""
    labels = torch.randint(0, 4, (2, 32, 64))
    still = torch.rand(2, 1, 3, 32, 64).expand(2, 2, 3, 32, 64)
    for _ in range(5):
        frames, (of_main, of_auxiliary) = augmented(still, (labels, labels), 24)
        assert torch.equal(of_main, of_auxiliary)
        assert torch.equal(frames[:, 0], frames[:, 1])


def test_frames_get_the_style_of_source_frames_of_another_size() -> None:
    frames, source_frames = torch.rand(3, 2, 3, 100, 120), torch.rand(2, 2, 3, 60, 80) / 2
    assert square_side(100, 120) == 1
    labels = torch.zeros(2, 2, 60, 80, dtype=torch.int64)
    mean = restyled(frames, LabelledClip(source_frames, labels, labels[:, -1, ::4, ::4])).mean((-2, -1))
    expected = source_frames[[0, 1, 0], -1].mean((-2, -1)).unsqueeze(1).expand(3, 2, 3)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-3)


def test_rectangles_are_pasted_into_frames_and_all_labels_at_the_size_of_the_source() -> None:
    source_labels = torch.full((2, 2, 48, 96), 3)
    source = LabelledClip(torch.ones(2, 2, 3, 48, 96), source_labels, source_labels[:, -1, ::4, ::4])
    frames, labels = torch.zeros(1, 2, 3, 32, 64), torch.ones(1, 32, 64, dtype=torch.int64)
    mixed_frames, (of_main, of_auxiliary) = mixed(frames, (labels, labels + 1), source)
    is_source = of_main == 3
    assert 0 < is_source.sum() < is_source.numel()
    assert torch.equal(mixed_frames, is_source[:, None, None].expand(1, 2, 3, 48, 96).float())
    assert torch.equal(of_main, torch.where(is_source, 3, 1))
    assert torch.equal(of_auxiliary, torch.where(is_source, 3, 2))


@pytest.mark.parametrize("crop_size", [0, 500])
def test_a_crop_that_no_segmenter_takes_is_refused(crop_size: int) -> None:
    with pytest.raises(ValueError, match=f"crop_size is {crop_size}, segmenters take multiples of 8: choose one"):
        PixMatch(crop_size=crop_size)
