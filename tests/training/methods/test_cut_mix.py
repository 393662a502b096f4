import pytest
import torch

from training.methods.cut_mix import CutMix, draw_cut_mix, mix


def test_a_rectangle_of_the_drawn_area_is_pasted_around_the_centre() -> None:
    zeros, ones = torch.zeros(1, 8, 16), torch.ones(1, 8, 16)
    mixed = mix(zeros, ones, CutMix(share=0.25, center=(0.5, 0.5), is_swapped=False))
    assert mixed.sum() == 0.25 * 8 * 16
    assert mixed[0, 2:6, 4:12].all()
    swapped = mix(zeros, ones, CutMix(share=0.25, center=(0.5, 0.5), is_swapped=True))
    assert torch.equal(swapped, 1 - mixed)


def test_what_lies_outside_is_cut_off() -> None:
    zeros, ones = torch.zeros(1, 8, 16), torch.ones(1, 8, 16)
    mixed = mix(zeros, ones, CutMix(share=0.25, center=(0.0, 1.0), is_swapped=False))
    assert mixed.nonzero().tolist() == [[0, y, x] for y in (0, 1) for x in (11, 12, 13, 14, 15)]


def test_frames_and_labels_get_the_same_rectangle() -> None:
    choice = draw_cut_mix()
    frames = mix(torch.zeros(2, 2, 3, 32, 64), torch.ones(2, 2, 3, 32, 64), choice)
    labels = mix(torch.zeros(2, 32, 64, dtype=torch.int64), torch.ones(2, 32, 64, dtype=torch.int64), choice)
    assert torch.equal(frames, labels[:, None, None].expand_as(frames))


def test_what_is_mixed_stays_as_it_is() -> None:
    zeros = torch.zeros(1, 8, 16)
    mix(zeros, torch.ones(1, 8, 16), CutMix(share=1.0, center=(0.5, 0.5), is_swapped=False))
    assert not zeros.any()


def test_shares_are_uniform_and_backgrounds_even() -> None:
    draws = [draw_cut_mix() for _ in range(2000)]
    shares = torch.tensor([draw.share for draw in draws])
    assert [shares.mean().item(), shares.std().item()] == pytest.approx([1 / 2, 12**-0.5], abs=0.02)
    assert sum(draw.is_swapped for draw in draws) / len(draws) == pytest.approx(0.5, abs=0.04)
