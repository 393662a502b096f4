import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from training.data.clip import Clip, LabelledClip
from training.methods.histogram_matching import match_histograms
from training.methods.method import Method, Networks
from training.methods.stage import StageTwo
from training.methods.tps import Tps, draw_scale, in_colors_of, scaled_size

Small = Callable[..., Method[Any]]  # Any: methods of either source
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]


def test_every_source_frame_gets_the_colours_of_a_target_frame(source: LabelledClip) -> None:
    reference = torch.rand(1, 3, 24, 40)
    matched = in_colors_of(source, reference)
    assert matched.labels is source.labels
    for item in range(2):
        for t in range(2):
            expected = match_histograms(source.frames[item : item + 1, t], reference)
            assert torch.equal(matched.frames[item : item + 1, t], expected)


def test_sizes_are_scaled_to_multiples_of_eight() -> None:
    assert scaled_size((512, 1024), 1.0) == (512, 1024)
    assert scaled_size((512, 1024), 0.8) == (408, 816)  # 409.6 and 819.2
    assert scaled_size((512, 1024), 1.19) == (608, 1216)  # 609.28 and 1218.56


def test_scales_are_hundredths_from_80_to_119() -> None:
    assert {round(100 * draw_scale()) for _ in range(2000)} == set(range(80, 120))


def test_labels_of_each_classifier_are_its_own(small: Small, source: LabelledClip, target: Clip) -> None:
    """A network that sees nothing, and is right about itself with 0.7 and 0.9."""
    method = small("tps", pseudo_weight=0.5)
    networks = method.networks(4)
    segnet: Any = networks["segmenter"].segnet  # Any: torch's modules do not declare their parts
    with torch.no_grad():
        for classifier, probabilities in ((segnet.layer6, (0.1, 0.7, 0.1, 0.1)), (segnet.layer5, (0.9, 0.05, 0.05, 0))):
            for parameter in classifier.parameters():
                parameter.zero_()
            classifier.conv2d_list[0].bias.copy_((torch.tensor(probabilities) + 1e-9).log())
    (update,) = method.updates(networks, source, target)
    expected = -math.log(0.7) - 0.1 * math.log(0.9)
    assert update.losses["pseudo"].item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_released_augmentation_trains_in_stage_one(small: Small, train: Train) -> None:
    method = small("tps", augment_space="official")
    (losses,) = train(method, method.networks(4), 1)
    assert set(losses) == {"source", "pseudo"}
    assert all(math.isfinite(loss) for loss in losses.values())


def test_the_released_augmentation_is_refused_in_stage_two() -> None:
    with pytest.raises(ValueError, match=r"augment_space is official in stage two, .*: choose proper, or stage one"):
        Tps(stage=StageTwo(), augment_space="official")
