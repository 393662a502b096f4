import torch
from torch import Tensor

from training.methods.byte_wrapping import through_bytes
from training.models.input_conversion import segmentation_input


def unchanged(frames: Tensor) -> Tensor:
    return frames


def seen(frames: Tensor) -> list[float]:
    """Bytes that the segmentation network gets for the first pixel, blue first."""
    return (255 * segmentation_input(frames[:, 0].double()))[0, :, 0, 0].round().tolist()


def test_the_network_sees_the_inverted_wrapped_bytes() -> None:
    # Black: blue is trunc(-255 * 104.00698793) = -26521, and 104 * 256 = 26624; green is -29750 + 117 * 256;
    # red is -31283 + 123 * 256. A pixel value is subtracted from that, modulo 256.
    black = torch.zeros(1, 1, 3, 1, 1, dtype=torch.float64)
    assert seen(through_bytes(black, unchanged)) == [103, 202, 205]
    value = torch.tensor([110, 10, 200], dtype=torch.float64).view(1, 1, 3, 1, 1) / 255  # red, green, blue
    # blue: trunc(255 * 95.993) = 24478 = 95 * 256 + 158; green: -27200 + 107 * 256; red: -3233 + 13 * 256
    assert seen(through_bytes(value, unchanged)) == [158, 192, 95]


def test_single_precision_makes_the_same_bytes() -> None:
    frames = torch.arange(256).view(1, 1, 1, 16, 16).expand(1, 1, 3, 16, 16).double() / 255
    bytes_of = [
        255 * segmentation_input(through_bytes(each, unchanged)[:, 0].double()) for each in (frames, frames.float())
    ]
    torch.testing.assert_close(bytes_of[1], bytes_of[0], rtol=0, atol=0.01)


def test_augmentation_takes_blue_for_red() -> None:
    def first_channel(frames: Tensor) -> Tensor:
        return frames * torch.tensor([1.0, 0, 0], dtype=frames.dtype).view(3, 1, 1)

    black = torch.zeros(1, 1, 3, 1, 1, dtype=torch.float64)
    assert seen(through_bytes(black, first_channel)) == [103, 0, 0]
