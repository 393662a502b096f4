import torch

from training.models.warping import resize_flow, warp


def test_warping_by_zero_flow_is_the_identity() -> None:
    features = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(warp(features, torch.zeros(2, 2, 5, 7, dtype=torch.float64)), features)


def test_whole_pixels_shift_and_the_border_is_repeated() -> None:
    features = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0], flow[:, 1] = 2, -1  # look two pixels to the right and one up
    expected = torch.tensor([[2.0, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7]]).view(1, 1, 3, 4)
    torch.testing.assert_close(warp(features, flow), expected, atol=1e-5, rtol=0)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    features = torch.tensor([0.0, 10, 30]).view(1, 1, 1, 3)
    flow = torch.zeros(1, 2, 1, 3)
    flow[:, 0] = 0.5
    torch.testing.assert_close(warp(features, flow), torch.tensor([5.0, 20, 30]).view(1, 1, 1, 3))


def test_warping_commutes_with_a_pointwise_convolution() -> None:
    features, flow = torch.rand(1, 3, 6, 8, dtype=torch.float64), 9 * torch.randn(1, 2, 6, 8, dtype=torch.float64)
    mix = torch.nn.Conv2d(3, 2, 1).double()
    torch.testing.assert_close(mix(warp(features, flow)), warp(mix(features), flow))


def test_a_resized_flow_counts_in_pixels_of_its_new_size() -> None:
    flow = torch.tensor([[[0.0, 4.0], [4.0, 8.0]], [[2.0, 2.0], [2.0, 2.0]]]).unsqueeze(0)
    torch.testing.assert_close(resize_flow(flow, (1, 1)), torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))
    assert resize_flow(flow, (2, 2)) is flow
    torch.testing.assert_close(resize_flow(flow, (2, 4))[:, 1], torch.full((1, 2, 4), 2.0))
