import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from serving.frames import Size
from serving.label_maps import (
    class_shares,
    class_statistics,
    decode_png,
    decode_raw,
    encode_png,
    encode_raw,
    scale_labels,
)


def labels_of(rows: list[list[int]]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def test_labels_of_the_wanted_size_are_not_copied() -> None:
    labels = labels_of([[1, 2, 3], [4, 5, 6]])
    assert scale_labels(labels, Size(3, 2)) is labels


def test_enlarging_repeats_labels() -> None:
    scaled = scale_labels(labels_of([[1, 200], [30, 4]]), Size(4, 6))
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == [[1, 1, 200, 200]] * 3 + [[30, 30, 4, 4]] * 3


def test_shrinking_takes_the_label_nearest_to_the_centre() -> None:
    assert scale_labels(labels_of([[0, 1, 2, 3, 4, 5]] * 3), Size(2, 1)).tolist() == [[1, 4]]


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_scaling_invents_no_label(width: int, height: int) -> None:
    labels = np.random.default_rng(0).choice(labels_of([[0, 7, 255]])[0], (20, 30))
    scaled = scale_labels(labels, Size(width, height))
    assert scaled.shape == (height, width)
    assert set(np.unique(scaled)) <= {0, 7, 255}


def test_a_map_goes_through_png_and_any_program_can_read_it() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(8, 32)
    encoded = encode_png(labels)
    image = Image.open(io.BytesIO(encoded))
    assert (image.format, image.mode) == ("PNG", "L")
    assert np.array_equal(np.asarray(image), labels)
    assert np.array_equal(decode_png(encoded), labels)


def test_an_image_goes_into_png_in_rgb() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[:] = 10, 20, 30
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"no picture", encode_png(labels_of([[1, 2]]))[:40], encode_png(labels_of([[1, 2]]))[:33] + bytes(40)],
)
def test_what_is_no_png_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match=r"^the label map does not decode as PNG$"):
        decode_png(encoded)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_any_map_goes_through_png_and_raw(width: int, height: int, zoom: int) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8).repeat(zoom, 1)
    assert np.array_equal(decode_png(encode_png(labels)), labels)
    assert np.array_equal(decode_raw(encode_raw(labels), Size(width * zoom, height)), labels)


def test_a_map_of_flat_areas_is_a_small_png() -> None:
    labels = np.zeros((512, 1024), np.uint8)
    labels[200:, 300:] = 7
    assert len(encode_png(labels)) < 2000


def test_a_raw_map_is_its_rows_from_top_to_bottom() -> None:
    assert encode_raw(labels_of([[1, 2, 3], [4, 5, 6]])) == bytes([1, 2, 3, 4, 5, 6])
    assert encode_raw(labels_of([[1, 2, 3], [4, 5, 6]])[:, ::2]) == bytes([1, 3, 4, 6])
    assert decode_raw(bytes([1, 2, 3, 4, 5, 6]), Size(3, 2)).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("num_bytes", [0, 5, 7])
def test_a_raw_map_of_another_size_is_refused(num_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"^the label map has {num_bytes} bytes, a map of 3x2 has 6$"):
        decode_raw(bytes(num_bytes), Size(3, 2))


def test_shares_are_of_the_labels_that_occur_largest_first() -> None:
    assert class_shares(labels_of([[3, 3, 200, 3], [0, 0, 3, 3]])) == [(3, 5 / 8), (0, 2 / 8), (200, 1 / 8)]


def test_equal_shares_come_in_the_order_of_their_labels() -> None:
    assert class_shares(labels_of([[9, 1, 255, 0]])) == [(0, 0.25), (1, 0.25), (9, 0.25), (255, 0.25)]


def test_a_pixel_counts_with_the_confidence_of_its_cell() -> None:
    labels = np.zeros((4, 12), np.uint8)
    labels[:, 6:] = 200  # half of the second cell, all of the third
    confidence = labels_of([[255, 51, 102]])  # 1, 0.2, 0.4
    small, large = class_statistics(labels, confidence)
    assert (small.label, small.share) == (0, 0.5)
    assert small.mean_confidence == pytest.approx((16 * 1 + 8 * 0.2) / 24)
    assert (large.label, large.share) == (200, 0.5)
    assert large.mean_confidence == pytest.approx((16 * 0.4 + 8 * 0.2) / 24)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_class_statistics_agree_with_a_loop_over_the_classes(columns: int, rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(labels_of([[0, 3, 255]])[0], (rows * 4, columns * 4), p=(0.6, 0.3, 0.1))
    confidence = random.integers(0, 256, (rows, columns), np.uint8)
    statistics = class_statistics(labels, confidence)
    assert [(one.label, one.share) for one in statistics] == class_shares(labels)
    of_pixels = confidence.repeat(4, 0).repeat(4, 1) / 255
    for label, _, mean_confidence in statistics:
        assert mean_confidence == pytest.approx(of_pixels[labels == label].mean())
