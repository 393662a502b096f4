import math

import pytest
import torch
from torch import Tensor

from training.methods.photometric import ADJUSTMENTS, Jitter, Photometric, blur, draw_photometric, grey, recolor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(len(ADJUSTMENTS))
NEUTRAL = (1.0, 1.0, 1.0, 0.0)


def pixel(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float64).view(1, 1, 3, 1, 1)


def jittered(frames: Tensor, changes: dict[int, float], order: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    factors = tuple(changes.get(index, neutral) for index, neutral in enumerate(NEUTRAL))
    return recolor(frames, Photometric(0.0, Jitter(factors, order), is_grey=False))


@pytest.mark.parametrize(
    ("changes", "colour", "expected"),
    [
        ({BRIGHTNESS: 1.5}, (0.2, 0.4, 0.8), (0.3, 0.6, 1.0)),
        ({CONTRAST: 0.5}, (1.0, 0.0, 0.0), (0.6495, 0.1495, 0.1495)),  # halfway to the mean luma 0.299
        ({SATURATION: 0.0}, (0.0, 1.0, 0.0), (0.587, 0.587, 0.587)),
        ({HUE: 2 * math.pi / 3}, (0.9, 0.1, 0.1), (0.1, 0.9, 0.1)),  # a third of a turn: red to green
        ({}, (0.2, 0.4, 0.8), (0.2, 0.4, 0.8)),
    ],
)
def test_colours_change_as_worked_out_by_hand(
    changes: dict[int, float], colour: tuple[float, float, float], expected: tuple[float, float, float]
) -> None:
    torch.testing.assert_close(jittered(pixel(*colour), changes), pixel(*expected), rtol=0, atol=1e-6)


def test_changes_follow_the_order_of_the_draw() -> None:
    # Clipped to 1 and then halved, or halved and then doubled.
    frames, changes = pixel(0.8, 0.8, 0.0), {BRIGHTNESS: 2.0, SATURATION: 0.5}
    luma = 0.299 + 0.587
    first = jittered(frames, changes, (BRIGHTNESS, SATURATION, CONTRAST, HUE))
    last = jittered(frames, changes, (SATURATION, BRIGHTNESS, CONTRAST, HUE))
    assert first.flatten()[2] == pytest.approx(0.5 * luma)
    assert last.flatten()[2] == pytest.approx(0.8 * luma)


def test_the_frames_of_a_clip_change_alike_and_about_one_mean() -> None:
    frames = torch.cat([pixel(0.2, 0.2, 0.2), pixel(0.6, 0.6, 0.6)], dim=1)
    changed = jittered(frames, {CONTRAST: 0.5})
    assert changed[0, 0].flatten().tolist() == pytest.approx([0.3] * 3)
    assert changed[0, 1].flatten().tolist() == pytest.approx([0.5] * 3)
    still = torch.rand(2, 1, 3, 32, 64).expand(2, 2, 3, 32, 64)
    for _ in range(20):
        current, previous = recolor(still, draw_photometric()).unbind(1)
        assert torch.equal(current, previous)


def test_grey_is_the_luma_in_all_channels() -> None:
    torch.testing.assert_close(grey(pixel(1, 0.5, 0)), pixel(*[0.299 + 0.587 / 2] * 3))
    assert recolor(torch.rand(1, 2, 3, 8, 8), Photometric(0.0, None, is_grey=True)).shape == (1, 2, 3, 8, 8)


def test_blur_is_a_gaussian_of_its_deviation() -> None:
    frames = torch.zeros(1, 1, 3, 1, 101, dtype=torch.float64)
    frames[..., 50] = 1
    row = recolor(frames, Photometric(5.0, None, is_grey=False))[0, 0, 0, 0]
    distance = torch.arange(101, dtype=torch.float64) - 50
    assert row.sum().item() == pytest.approx(1)
    assert (row * distance**2).sum().sqrt().item() == pytest.approx(5, rel=0.02)  # the tails beyond 15 are cut
    assert (row[55] / row[50]).item() == pytest.approx(math.exp(-0.5))


def test_blur_repeats_the_border() -> None:
    flat = torch.full((1, 2, 3, 8, 8), 0.3)
    torch.testing.assert_close(blur(flat, 9.0, 55), flat)


def test_draws_are_those_of_the_method() -> None:
    draws = [draw_photometric() for _ in range(2000)]
    jitters = [draw.jitter for draw in draws if draw.jitter]
    shares = [sum(draw.blur > 0 for draw in draws), len(jitters), sum(draw.is_grey for draw in draws)]
    assert [share / len(draws) for share in shares] == pytest.approx([0.6, 0.8, 0.2], abs=0.04)
    assert {draw.blur for draw in draws} == {0, 5, 7, 9}
    assert len({jitter.order for jitter in jitters}) == 24
    factors = torch.tensor([jitter.factors for jitter in jitters])
    low, high = torch.tensor([0.2, 0.2, 0.2, -0.4 * math.pi]), torch.tensor([1.8, 1.8, 1.8, 0.4 * math.pi])
    torch.testing.assert_close(factors.amin(0), low, rtol=0, atol=0.02)
    torch.testing.assert_close(factors.amax(0), high, rtol=0, atol=0.02)


def test_the_global_generator_repeats_draws() -> None:
    state = torch.get_rng_state()
    first = [draw_photometric() for _ in range(5)]
    torch.set_rng_state(state)
    assert [draw_photometric() for _ in range(5)] == first
