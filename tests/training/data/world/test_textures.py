import cv2
import numpy as np
import pytest

from training.data.world.textures import look_up


def test_between_pixels_lies_their_mean() -> None:
    image = np.array([[0, 2], [4, 10]], np.float32)
    found = look_up(image, np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.0, 0.5]), cv2.BORDER_REPLICATE)
    assert found == pytest.approx([4, 1, 4])


def test_a_frame_without_a_pixel_of_a_surface_needs_none() -> None:
    """As of a camera behind a truck, which sees no ground."""
    found = look_up(np.ones((2, 2), np.float32), np.zeros(0), np.zeros(0), cv2.BORDER_CONSTANT)
    assert found.shape == (0,)
