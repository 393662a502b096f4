import cv2
import numpy as np
import pytest

from training.data.world.textures import ROW, look_up


@pytest.mark.parametrize("count", [0, 1, ROW - 1, ROW, ROW + 1])
def test_any_number_of_points_is_looked_up_none_included(count: int) -> None:
    ramp = np.tile(np.arange(600, dtype=np.float32), (4, 1))
    columns = np.linspace(0, 590, count, dtype=np.float32)
    found = look_up(ramp, columns, np.ones(count, np.float32), cv2.BORDER_CONSTANT)
    assert found.shape == (count,)
    np.testing.assert_allclose(found, columns, atol=0.05)  # OpenCV interpolates in steps of 1/32


def test_between_pixels_lies_their_mean() -> None:
    image = np.array([[0, 2], [4, 10]], np.float32)
    found = look_up(image, np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.0, 0.5]), cv2.BORDER_REPLICATE)
    assert found == pytest.approx([4, 1, 4])
