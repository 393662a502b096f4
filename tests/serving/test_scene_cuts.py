import numpy as np
import pytest
from numpy.typing import NDArray

from serving.scene_cuts import BINS, SceneCuts, color_histogram

SIZE = (96, 192)


def plain(value: int) -> NDArray[np.uint8]:
    return np.full((*SIZE, 3), value, np.uint8)


def noisy(mean: int, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 20, (*SIZE, 3))
    return np.clip(mean + noise, 0, 255).astype(np.uint8)


def test_a_histogram_known_by_hand() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[:2, :, 0] = 255  # half of red is in the last bin
    frame[0, 0, 2] = 16  # a sixteenth of blue is in the second
    histogram = color_histogram(frame)
    assert histogram.shape == (3 * BINS,)
    expected = {0: 8 / 48, BINS - 1: 8 / 48, BINS: 16 / 48, 2 * BINS: 15 / 48, 2 * BINS + 1: 1 / 48}
    assert {place: histogram[place] for place in np.flatnonzero(histogram)} == pytest.approx(expected)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (96, 192), (512, 1024), (1080, 1920)])
def test_a_histogram_sums_up_to_one_at_any_size(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert color_histogram(frame).sum() == pytest.approx(1)


def test_a_scene_that_is_as_it_was_has_no_cut_and_another_one_begins_with_one() -> None:
    cuts = SceneCuts()
    means = [100] * 12 + [180] * 12
    assert [cuts.is_cut(noisy(mean, seed)) for seed, mean in enumerate(means)] == [place == 12 for place in range(24)]


def test_what_moves_within_the_picture_is_no_cut() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    cuts = SceneCuts()
    assert not any(cuts.is_cut(np.roll(picture, 7 * step, axis=1)) for step in range(12))


def test_lights_that_flash_on_every_frame_are_not_a_cut_on_every_frame() -> None:
    cuts = SceneCuts()
    assert sum(cuts.is_cut(plain(40 if step % 2 else 200)) for step in range(100)) == 1
