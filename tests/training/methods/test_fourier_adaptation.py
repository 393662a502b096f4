import pytest
import torch

from training.methods.fourier_adaptation import square_side, swap_amplitudes


def test_the_side_is_a_hundredth_of_the_shorter_side() -> None:
    assert [square_side(512, 1024), square_side(720, 1280), square_side(32, 64)] == [5, 7, 0]


def test_nothing_swapped_is_nothing_changed() -> None:
    frames = torch.rand(1, 2, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(swap_amplitudes(frames, torch.rand(1, 3, 8, 12, dtype=torch.float64), 0), frames)
    torch.testing.assert_close(swap_amplitudes(frames[:, :1], frames[:, 0], 2), frames[:, :1])


def test_means_become_those_of_the_reference() -> None:
    frames, reference = torch.rand(2, 2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    mean = swap_amplitudes(frames, reference, 1).mean((-2, -1))
    torch.testing.assert_close(mean, reference.mean((-2, -1)).unsqueeze(1).expand(2, 2, 3))


def test_amplitude_comes_from_the_reference_and_phase_stays() -> None:
    # A wave of one period across 8 columns is the frequencies 1 and -1. Squares of 2 hold 0, 1, -1 and -2.
    x = torch.arange(8, dtype=torch.float64) * 2 * torch.pi / 8
    frame = (0.5 + 0.1 * x.cos()).expand(1, 1, 3, 8, 8)
    reference = (0.4 + 0.3 * x.sin()).expand(1, 3, 8, 8)
    expected = (0.4 + 0.3 * x.cos()).expand(1, 1, 3, 8, 8)
    torch.testing.assert_close(swap_amplitudes(frame, reference, 2), expected)


def test_frequency_minus_one_goes_without_its_twin_where_squares_are_of_side_one() -> None:
    # The upper squares end at 0, the lower ones begin at -1: half of a wave's amplitude changes.
    x = torch.arange(8, dtype=torch.float64) * 2 * torch.pi / 8
    frame = (0.5 + 0.1 * x.cos()).expand(1, 1, 3, 8, 8)
    changed = swap_amplitudes(frame, (0.5 + 0.3 * x.cos()).expand(1, 3, 8, 8), 1)
    assert changed[0, 0, 0, 0].max().item() == pytest.approx(0.5 + (0.1 + 0.3) / 2)
