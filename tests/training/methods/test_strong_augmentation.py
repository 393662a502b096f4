import math

import pytest
import torch
from torch import Tensor

from training.methods.strong_augmentation import (
    Colors,
    Crop,
    StrongAugmentation,
    augment,
    augment_labels,
    draw_strong_augmentation,
)

UNCHANGED = Colors(contrast=1, brightness=0, hue=0, saturation=0, value=0)


def pixel(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64).view(1, 1, 3, 1, 1)


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (UNCHANGED, (0.8, 0.4, 0.4)),
        (UNCHANGED._replace(contrast=1.2, brightness=0.1), (1.0, 0.58, 0.58)),  # 1.06 is clipped
        (UNCHANGED._replace(hue=2 * math.pi / 3), (0.4, 0.8, 0.4)),
        (UNCHANGED._replace(saturation=0.25), (0.8, 0.2, 0.2)),  # saturation 1 - 0.4 / 0.8 = 0.5 to 0.75
        (UNCHANGED._replace(value=-0.2), (0.6, 0.3, 0.3)),
    ],
)
def test_colours_change_as_worked_out_by_hand(colors: Colors, expected: tuple[float, float, float]) -> None:
    choice = StrongAugmentation(Crop(0, 0, 1, 1), colors, is_grey=False, blur_size=0)
    torch.testing.assert_close(augment(pixel(0.8, 0.4, 0.4), choice, 1), pixel(*expected), rtol=0, atol=1e-6)


def test_labels_are_cut_and_enlarged_with_their_frame() -> None:
    # Classes that the red channel names; the part is enlarged twofold in height and fourfold in width.
    labels = torch.arange(32).view(1, 4, 8)
    frames = (labels / 32)[:, None, None].expand(1, 2, 3, 4, 8)
    choice = StrongAugmentation(Crop(1, 2, 2, 1), None, is_grey=False, blur_size=0)
    enlarged = augment_labels(labels, choice, 4)
    assert enlarged[0].tolist() == [[10] * 4, [10] * 4, [18] * 4, [18] * 4]
    corners = augment(frames, choice, 4)[0, 1, 0, ::3]
    assert (32 * corners).flatten().tolist() == [10] * 4 + [18] * 4


def test_the_frames_of_a_clip_change_alike() -> None:
    still = torch.rand(2, 1, 3, 32, 64).expand(2, 2, 3, 32, 64)
    for _ in range(20):
        augmented = augment(still, draw_strong_augmentation(32, 64), 24)
        assert augmented.shape == (2, 2, 3, 24, 24)
        assert torch.equal(augmented[:, 0], augmented[:, 1])


def test_draws_are_those_of_the_method() -> None:
    height, width = 512, 1024
    draws = [draw_strong_augmentation(height, width) for _ in range(1000)]
    areas = torch.tensor([draw.crop.height * draw.crop.width / (height * width) for draw in draws])
    aspects = torch.tensor([draw.crop.width / draw.crop.height for draw in draws])
    assert areas.min() >= 0.199
    assert areas.max() <= 0.67  # a third more in width than in height is as large as it gets
    assert (aspects.min().item(), aspects.max().item()) == pytest.approx((3 / 4, 4 / 3), abs=0.01)
    for crop in (draw.crop for draw in draws):
        assert 0 <= crop.top <= height - crop.height
        assert 0 <= crop.left <= width - crop.width
    shares = [sum(draw.colors is not None for draw in draws), sum(draw.is_grey for draw in draws)]
    assert [share / len(draws) for share in shares] == pytest.approx([0.8, 0.2], abs=0.05)
    assert {draw.blur_size for draw in draws} == {0, 3, 5}


def test_where_no_rectangle_fits_the_middle_is_taken() -> None:
    crop = draw_strong_augmentation(10, 1000).crop
    assert crop == Crop(0, 493, 10, 13)
