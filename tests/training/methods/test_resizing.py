import torch

from training.methods.resizing import resize_frames, resize_labels


def test_labels_are_those_at_the_centres_of_new_pixels() -> None:
    labels = torch.tensor([[[0, 1, 2, -1]]])
    assert resize_labels(labels, (1, 2)).tolist() == [[[1, -1]]]  # centres 1 and 3
    assert resize_labels(labels, (2, 8)).tolist() == [[[0, 0, 1, 1, 2, 2, -1, -1]] * 2]
    assert resize_labels(labels, (1, 3)).tolist() == [[[0, 2, -1]]]  # centres 0.67, 2 and 3.33


def test_frames_stay_in_place() -> None:
    ramp = (torch.arange(32) / 31).expand(1, 2, 3, 16, 32)
    assert torch.equal(resize_frames(ramp, (16, 32), "bilinear"), ramp)
    torch.testing.assert_close(resize_frames(ramp, (16, 32), "bicubic"), ramp)
    enlarged = resize_frames(ramp, (24, 64), "bilinear")
    assert enlarged.shape == (1, 2, 3, 24, 64)
    torch.testing.assert_close(enlarged[0, 1, 0, 0, 1:3], torch.tensor([1 / 4, 3 / 4]) / 31)
    for size in ((24, 64), (8, 8)):
        middles = resize_frames(ramp, size, "bicubic").mean(-1)
        torch.testing.assert_close(middles, torch.full_like(middles, 0.5), rtol=0, atol=1e-3)


def test_frames_stay_within_their_range() -> None:
    step = torch.zeros(1, 1, 3, 8, 16)
    step[..., 8:] = 1
    enlarged = resize_frames(step, (16, 40), "bicubic")
    assert (enlarged.amin().item(), enlarged.amax().item()) == (0, 1)
