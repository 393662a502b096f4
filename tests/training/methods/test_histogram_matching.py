import numpy as np
import pytest
import torch
from torch import Tensor

from training.methods.histogram_matching import match_histograms


def row(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.float64).view(1, 1, 1, -1).expand(1, 3, 1, -1) / 255


def matched(source: Tensor, reference: Tensor) -> list[float]:
    return (255 * match_histograms(source, reference))[0, 2, 0].tolist()


def test_levels_move_to_the_level_of_their_rank() -> None:
    assert matched(row(10, 20, 20, 40), row(100, 200, 200, 240)) == pytest.approx([100, 200, 200, 240])


def test_quantiles_between_levels_are_interpolated() -> None:
    # 10 is at 1/4: halfway from "nothing", which has no level, to 1/2: the lowest level. 20 is at 3/4: halfway to 180.
    assert matched(row(10, 20, 20, 40), row(100, 100, 180, 180)) == pytest.approx([100, 140, 140, 180])
    # 0 is a level as others are: 3/4 is halfway from it to 180.
    assert matched(row(10, 20, 20, 40), row(0, 0, 180, 180)) == pytest.approx([0, 90, 90, 180])


def test_a_frame_matched_to_itself_is_unchanged() -> None:
    frame = torch.randint(0, 256, (2, 3, 16, 24)) / 255
    torch.testing.assert_close(match_histograms(frame, frame), frame)


@pytest.mark.parametrize("end", [256, 20, 1])
def test_it_is_the_interpolation_of_unique_values(end: int) -> None:
    """A second formulation, over the values that occur alone, for frames of different sizes."""
    source, reference = torch.randint(0, 256, (2, 3, 16, 24)), 3 * torch.randint(0, min(end, 85), (2, 3, 20, 12))
    result = 255 * match_histograms(source.double() / 255, reference.double() / 255)
    for channel, other, ours in zip(source.flatten(0, 1), reference.flatten(0, 1), result.flatten(0, 1), strict=True):
        _, places, counts = np.unique(channel.numpy().ravel(), return_inverse=True, return_counts=True)
        values, other_counts = np.unique(other.numpy().ravel(), return_counts=True)
        quantiles, other_quantiles = counts.cumsum() / channel.numel(), other_counts.cumsum() / other.numel()
        expected = np.interp(quantiles, other_quantiles, values)[places].reshape(16, 24)
        np.testing.assert_allclose(ours.numpy(), expected, atol=1e-9)
