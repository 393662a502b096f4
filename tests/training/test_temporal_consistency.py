import numpy as np
import torch

from training.temporal_consistency import agreement, flow_to_previous


def test_labels_are_followed_to_where_the_flow_points() -> None:
    previous = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]])
    current = torch.tensor([[2, 3, 4, 4], [2, 3, 4, 0]])  # moved to the left by one; what comes in is new
    flow = np.zeros((2, 4, 2), np.float32)
    assert agreement(current, previous, flow) == 100 * 1 / 8  # the one 4 that stays
    flow[..., 0] = 1  # beyond the border lies what is at the border
    assert agreement(current, previous, flow) == 100 * 7 / 8
    flow[..., 0], flow[..., 1] = 0, 1  # x and y are told apart
    assert agreement(previous, previous.flip(0), flow) == 100.0
    assert agreement(torch.tensor([[0], [1]]), torch.tensor([[1], [0]]), np.zeros((2, 1, 2), np.float32)) == 0.0


def test_the_flow_leads_from_the_current_frame_to_the_one_before() -> None:
    noise = torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(noise[None], scale_factor=4, mode="bicubic")[0].clamp(0, 1)
    frames = torch.stack([picture[:, :, :-3], picture[:, :, 3:]])  # what was at x is now at x - 3
    flow = flow_to_previous(frames)[8:-8, 8:-8]
    assert abs(float(np.median(flow[..., 0])) - 3) < 0.2
    assert abs(float(np.median(flow[..., 1]))) < 0.2
