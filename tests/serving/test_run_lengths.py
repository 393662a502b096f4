import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.frames import Size
from serving.run_lengths import decode_delta, decode_rle, encode_delta, encode_rle

thoroughly = settings(max_examples=300, deadline=None, derandomize=True, database=None)
HUGE = b"\xff\xff\xff\xff\x0f"  # 2^32 - 1


def labels_of(rows: list[list[int]]) -> NDArray[np.uint8]:
    return np.array(rows, np.uint8)


def num_records(encoded: bytes) -> int:
    return encoded[0] if encoded[0] < 0x80 else encoded[0] - 0x80 + encoded[1] * 0x80


PREVIOUS = labels_of([[7, 7, 7, 7], [7, 7, 9, 9]])


@st.composite
def maps(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Long runs and short ones, of few labels and of many."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 300))
    pieces = draw(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 400)), min_size=1, max_size=20))
    labels, lengths = np.array(pieces).T
    return np.resize(np.repeat(labels.astype(np.uint8), lengths), (height, width))


@st.composite
def successive_maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A map and the one before, which differ in some rectangles."""
    previous = draw(maps())
    labels = previous.copy()
    height, width = labels.shape
    for _ in range(draw(st.integers(0, 6))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        bottom, right = draw(st.integers(top, height)), draw(st.integers(left, width))
        labels[top:bottom, left:right] = draw(st.integers(0, 255))
    return labels, previous


# The formats, byte by byte


def test_rle_is_the_number_of_runs_then_their_labels_then_their_lengths() -> None:
    labels = labels_of([[3, 3, 3, 5], [5, 5, 0, 0]])
    assert encode_rle(labels) == bytes([3, 3, 5, 0, 3, 3, 2])
    assert decode_rle(bytes([3, 3, 5, 0, 3, 3, 2]), Size(4, 2)).tolist() == labels.tolist()


def test_lengths_are_varints_the_lowest_bits_first() -> None:
    labels = np.full((300, 1000), 200, np.uint8)
    labels[0, :127] = 1
    labels[0, 127:255] = 2
    # 127; 128 = 1 * 128; 299745 = 18 * 128^2 + 37 * 128 + 97
    encoded = bytes([3, 1, 2, 200, 127, 0x80, 1, 0x80 | 97, 0x80 | 37, 18])
    assert encode_rle(labels) == encoded
    assert np.array_equal(decode_rle(encoded, Size(1000, 300)), labels)


def test_delta_rle_skips_what_stays_and_ends_with_the_last_change() -> None:
    labels = labels_of([[7, 7, 4, 4], [7, 9, 9, 9]])
    encoded = bytes([2, 4, 9, 2, 2, 1, 1])  # after 2 pixels 2 of label 4, after 1 more 1 of label 9
    assert encode_delta(labels, PREVIOUS) == encoded
    assert decode_delta(encoded, PREVIOUS).tolist() == labels.tolist()


def test_one_record_covers_a_region_that_grew_at_both_sides() -> None:
    labels = labels_of([[7, 7, 7, 7], [9, 9, 9, 9]])
    grown = labels_of([[7, 7, 7, 9], [9, 9, 9, 9]])
    middle = labels_of([[7, 7, 7, 7], [7, 9, 9, 7]])
    assert encode_delta(grown, middle) == bytes([1, 9, 3, 5])
    assert encode_delta(labels, labels) == bytes([0])
    assert decode_delta(bytes([1, 9, 3, 5]), middle).tolist() == grown.tolist()


def test_a_map_that_changed_everywhere_needs_no_skips() -> None:
    labels = labels_of([[1, 1, 1, 1], [2, 2, 2, 2]])
    assert encode_delta(labels, PREVIOUS) == bytes([2, 1, 2, 0, 4, 0, 4])


# Any map


@thoroughly
@given(maps())
def test_every_map_goes_through_rle(labels: NDArray[np.uint8]) -> None:
    height, width = labels.shape
    decoded = decode_rle(encode_rle(labels), Size(width, height))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, labels)


@thoroughly
@given(successive_maps())
def test_every_map_goes_through_delta_rle(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    labels, previous = pair
    before = previous.copy()
    decoded = decode_delta(encode_delta(labels, previous), previous)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, labels)
    assert np.array_equal(previous, before)


@thoroughly
@given(successive_maps())
def test_delta_rle_never_has_more_records_than_rle(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    assert num_records(encode_delta(*pair)) <= num_records(encode_rle(pair[0]))


@thoroughly
@given(maps())
def test_a_plain_loop_reads_rle_the_same(labels: NDArray[np.uint8]) -> None:
    """What a client in another language would write."""
    encoded = iter(encode_rle(labels))

    def varint() -> int:
        number, shift = 0, 0
        for byte in encoded:
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return number

    num_runs = varint()
    run_labels = [next(encoded) for _ in range(num_runs)]
    pixels = [label for label in run_labels for _ in range(varint())]
    assert pixels == labels.reshape(-1).tolist()
    assert list(encoded) == []


def test_maps_that_are_views_are_encoded_as_what_they_show() -> None:
    labels = np.arange(64, dtype=np.uint8).reshape(8, 8)[::2, ::3]
    previous = np.zeros((8, 8), np.uint8)[::2, ::3]
    assert np.array_equal(decode_rle(encode_rle(labels), Size(3, 4)), labels)
    assert np.array_equal(decode_delta(encode_delta(labels, previous), previous), labels)


# What is refused


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "is cut short"),
        (bytes([0x80]), "is cut short"),
        (bytes([2, 1]), "is cut short"),
        (bytes([2, 1, 2, 4]), "is cut short"),
        (bytes([2, 1, 2, 4, 0x84]), "is cut short"),
        (bytes([2, 1, 2, 4, 4, 0]), "has 1 bytes more than its runs"),
        (bytes([2, 1, 2, 4, 4]) + bytes(1000), "has 1000 bytes more than its runs"),
        (bytes([3, 1, 2, 3, 4, 0, 4]), "has a run of no pixels"),
        (bytes([3, 1, 2, 3, 4, 0x80, 0, 4]), "has a run of no pixels"),
        (bytes([1, 1]) + b"\xff\xff\xff\xff\x10", "has a number of more than 32 bits"),
        (bytes([1, 1]) + b"\x80\x80\x80\x80\x80\x00", "has a number of more than 5 bytes"),
        (b"\xff\xff\xff\xff\xff\xff", "has a number of more than 5 bytes"),
        (bytes([9]) + bytes(9) + bytes([1] * 9), "claims 9 runs, it has 8 pixels"),
        (HUGE, "claims 4294967295 runs, it has 8 pixels"),
    ],
)
def test_bytes_that_are_no_runs_are_refused(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^the label map {message}$"):
        decode_rle(encoded, Size(4, 2))


@pytest.mark.parametrize(
    ("lengths", "total"), [(bytes([3, 4]), "7"), (bytes([4, 5]), "9"), (bytes([4]) + HUGE, "4294967299")]
)
def test_runs_of_another_size_are_refused(lengths: bytes, total: str) -> None:
    message = f"^the runs of the label map cover {total} pixels, a map of 4x2 has 8$"
    with pytest.raises(ValueError, match=message):
        decode_rle(bytes([2, 1, 2]) + lengths, Size(4, 2))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", r"the label map is cut short"),
        (bytes([1, 5, 3]), r"the label map is cut short"),
        (bytes([1, 5, 3, 1, 1]), r"the label map has 1 bytes more than its runs"),
        (bytes([1, 5, 3, 0]), r"the label map has a run of no pixels"),
        (bytes([1, 5, 3, 6]), r"the changes of the label map reach to pixel 9, a map of 4x2 has 8"),
        (bytes([1, 5]) + HUGE + HUGE, r"the changes of the label map reach to pixel 8589934590, a map of 4x2 has 8"),
    ],
)
def test_bytes_that_are_no_changes_are_refused(encoded: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        decode_delta(encoded, PREVIOUS)


def test_lengths_that_claim_billions_of_pixels_take_no_memory() -> None:
    bomb = bytes([0xC8, 1]) + bytes(200) + HUGE * 200
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"cover 858993459000 pixels"):
            decode_rle(bomb, Size(20, 20))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@thoroughly
@given(st.sampled_from([1, 2]), st.binary(max_size=30))
def test_any_bytes_give_a_map_or_a_sentence(numbers_each: int, encoded: bytes) -> None:
    try:
        labels = decode_rle(encoded, Size(4, 2)) if numbers_each == 1 else decode_delta(encoded, PREVIOUS)
    except ValueError as error:
        assert "label map" in str(error)  # noqa: PT017  # most bytes are refused, some are not
    else:
        assert labels.shape == (2, 4)
