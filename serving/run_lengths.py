"""Label maps as runs of equal labels, alone (RLE) or against the map before (delta-RLE). Lossless.

Both formats begin with the number of records n, then come the labels of the records, one byte each, then their numbers:

    RLE        n  label_1 ... label_n  length_1 ... length_n
    delta-RLE  n  label_1 ... label_n  skip_1 length_1 ... skip_n length_n

n, lengths and skips are unsigned LEB128 varints below 2^32: 7 bits a byte, the lowest first, the top bit set on all
but the last byte. A map is read row by row from its top left pixel, and runs go on from one row to the next.

RLE: record i is a run of `length_i` pixels of `label_i`; the lengths are at least 1 and sum to width times height.

Delta-RLE: start from a copy of the map before. Record i leaves the next `skip_i` pixels as they are and writes
`label_i` on the `length_i` pixels behind them; lengths are at least 1, skips may be 0. What is behind the last record
stays. A run may rewrite a pixel with the label it has: one record covers a region that changed at both of its sides.
"""

import numpy as np
from numpy.typing import NDArray

from serving.frames import Size

MAX_VARINT_BYTES = 5
VARINT_LIMIT = 1 << 32


def encode_rle(labels: NDArray[np.uint8]) -> bytes:
    """A map (H, W) as RLE."""
    flat = labels.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return _pack(flat[starts], np.diff(starts, append=flat.size))


def decode_rle(encoded: bytes, size: Size) -> NDArray[np.uint8]:
    """The map (H, W) behind its RLE. Takes memory for the map and the bytes at hand, whatever lengths they claim.

    Raises:
        ValueError: if the bytes are not RLE, or not that of a map of this size.
    """
    num_pixels = size.width * size.height
    labels, lengths = _unpack(encoded, num_pixels, 1)
    _check_lengths(lengths)
    if lengths.sum() != num_pixels:
        raise ValueError(f"the runs of the label map cover {lengths.sum()} pixels, a map of {size} has {num_pixels}")
    return np.repeat(labels, lengths).reshape(size.height, size.width)


def encode_delta(labels: NDArray[np.uint8], previous: NDArray[np.uint8]) -> bytes:
    """A map (H, W) as delta-RLE against the map before, of the same size."""
    assert labels.shape == previous.shape
    flat = labels.reshape(-1)
    is_changed = flat != previous.reshape(-1)
    # segments: one label, changed throughout or unchanged throughout
    is_border = (flat[1:] != flat[:-1]) | (is_changed[1:] != is_changed[:-1])
    starts = np.concatenate(([0], np.flatnonzero(is_border) + 1))
    ends = np.append(starts[1:], flat.size)
    segment_labels = flat[starts]
    runs = np.cumsum(np.concatenate(([False], segment_labels[1:] != segment_labels[:-1])))
    # one record for each run of the new map that holds a change, from the first to the last changed segment
    changed = np.flatnonzero(is_changed[starts])
    is_new_run = runs[changed][1:] != runs[changed][:-1]
    first = changed[np.concatenate((np.ones(min(changed.size, 1), bool), is_new_run))]
    last = changed[np.concatenate((is_new_run, np.ones(min(changed.size, 1), bool)))]
    bounds = np.stack([starts[first], ends[last]], -1).reshape(-1)
    return _pack(segment_labels[first], np.diff(bounds, prepend=0))


def decode_delta(encoded: bytes, previous: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The map (H, W) behind its delta-RLE; `previous` is the map it was encoded against and stays as it is.

    Raises:
        ValueError: if the bytes are not delta-RLE of a map of this size.
    """
    labels, numbers = _unpack(encoded, previous.size, 2)
    lengths = numbers[1::2]
    _check_lengths(lengths)
    if numbers.sum() > previous.size:
        height, width = previous.shape
        raise ValueError(
            f"the changes of the label map reach to pixel {numbers.sum()}, a map of {Size(width, height)} has"
            f" {previous.size}"
        )
    is_changed = np.zeros(numbers.size + 1, bool)
    is_changed[1::2] = True
    flat = previous.flatten()
    flat[np.repeat(is_changed, np.append(numbers, previous.size - numbers.sum()))] = np.repeat(labels, lengths)
    return flat.reshape(previous.shape)


def _pack(labels: NDArray[np.uint8], numbers: NDArray[np.int64]) -> bytes:
    return _varints(np.array([labels.size])) + labels.tobytes() + _varints(numbers)


def _unpack(encoded: bytes, num_pixels: int, numbers_each: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labels and numbers of the records."""
    (num_records,), behind = _read_varints(encoded[:MAX_VARINT_BYTES], 1)
    if num_records > num_pixels:
        raise ValueError(f"the label map claims {num_records} runs, it has {num_pixels} pixels")
    labels = np.frombuffer(encoded[behind : behind + num_records], np.uint8)
    rest = encoded[behind + num_records :]
    numbers, used = _read_varints(rest, num_records * numbers_each)
    if used < len(rest):
        raise ValueError(f"the label map has {len(rest) - used} bytes more than its runs")
    return labels, numbers


def _check_lengths(lengths: NDArray[np.int64]) -> None:
    if (lengths == 0).any():
        raise ValueError("the label map has a run of no pixels")


def _varints(numbers: NDArray[np.int64]) -> bytes:
    widths = np.ones(numbers.size, np.int64)
    for bits in range(7, 7 * MAX_VARINT_BYTES, 7):
        widths += numbers >= 1 << bits
    ends = np.cumsum(widths)
    encoded = np.zeros(ends[-1] if numbers.size else 0, np.uint8)
    for place in range(int(widths.max(initial=0))):
        has_place = widths > place
        digits = numbers[has_place] >> 7 * place & 0x7F
        digits[widths[has_place] > place + 1] |= 0x80
        encoded[(ends - widths)[has_place] + place] = digits
    return encoded.tobytes()


def _read_varints(encoded: bytes, count: int) -> tuple[NDArray[np.int64], int]:
    """The first `count` numbers, and how many bytes they take."""
    # what is behind the longest they could be is not looked at
    digits = np.frombuffer(encoded[: count * MAX_VARINT_BYTES], np.uint8)
    ends = np.flatnonzero(digits < 0x80)[:count] + 1
    starts = np.concatenate(([0], ends[:-1]))[: ends.size]
    widths = ends - starts
    unfinished = digits.size - (ends[-1] if ends.size else 0)
    if widths.max(initial=0) > MAX_VARINT_BYTES or (ends.size < count and unfinished >= MAX_VARINT_BYTES):
        raise ValueError(f"the label map has a number of more than {MAX_VARINT_BYTES} bytes")
    if ends.size < count:
        raise ValueError("the label map is cut short")
    numbers = np.zeros(count, np.int64)
    for place in range(int(widths.max(initial=0))):
        has_place = widths > place
        numbers[has_place] |= (digits[starts[has_place] + place] & 0x7F).astype(np.int64) << 7 * place
    if numbers.max(initial=0) >= VARINT_LIMIT:
        raise ValueError("the label map has a number of more than 32 bits")
    return numbers, int(ends[-1]) if count else 0
