import io
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from serving.errors import FrameRefusedError
from serving.frames import Encoding, ImageDecoder, Size, check_raw_size, fit, jpeg_size, png_size

MAX_PIXELS = 34_000_000
FILES = [Encoding.JPEG, Encoding.PNG]


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, smooth, its channels unlike each other."""
    down, right = np.mgrid[:height, :width]
    return np.stack([down * 4, right * 3, 255 - down * 2 - right], -1).astype(np.uint8)


def file_of(image: Image.Image, encoding: Encoding, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, encoding.value, **options)
    return file.getvalue()


def encode(pixels: NDArray[np.uint8], encoding: Encoding, **options: object) -> bytes:
    return file_of(Image.fromarray(pixels), encoding, **options)


def decode(encoded: bytes, encoding: Encoding, *, size: Size | None = None) -> NDArray[np.uint8]:
    frame = ImageDecoder(encoding, size, max_pixels=MAX_PIXELS).decode(encoded)
    assert frame.dtype == np.uint8
    return frame


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, content: bytes = b"") -> bytes:
    """A PNG of one bit per pixel."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header has this size."""
    encoded = encode(picture(), Encoding.JPEG)
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", height, width) + encoded[at + 4 :]


# What is taken


def test_a_png_arrives_as_it_was() -> None:
    assert np.array_equal(decode(encode(picture(), Encoding.PNG), Encoding.PNG), picture())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_jpeg_arrives_in_rgb(options: dict[str, object]) -> None:
    frame = decode(encode(picture(), Encoding.JPEG, quality=95, **options), Encoding.JPEG)
    assert np.abs(frame.astype(int) - picture()).mean() < 2


@pytest.mark.parametrize("encoding", FILES)
def test_gray_files_become_rgb(encoding: Encoding) -> None:
    gray = np.full((5, 7), 77, np.uint8)
    assert np.array_equal(decode(encode(gray, encoding), encoding), np.full((5, 7, 3), 77))


def test_a_png_of_16_bits_is_taken_with_its_upper_8() -> None:
    deep = np.arange(6 * 4 * 3, dtype=np.uint16).reshape(6, 4, 3) * 900
    is_encoded, encoded = cv2.imencode(".png", cv2.cvtColor(deep, cv2.COLOR_RGB2BGR))
    assert is_encoded
    frame = decode(encoded.tobytes(), Encoding.PNG)
    assert np.abs(frame - deep / 257).max() <= 1  # of 255


def test_transparency_is_ignored() -> None:
    transparent = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    assert np.array_equal(decode(encode(transparent, Encoding.PNG), Encoding.PNG), picture())


def test_a_palette_becomes_rgb() -> None:
    flag = np.zeros((4, 6, 3), np.uint8)
    flag[:, :2], flag[:, 2:4], flag[:, 4:] = (0, 0, 255), (255, 255, 255), (255, 0, 0)
    image = Image.fromarray(flag).quantize(4)
    assert image.mode == "P"
    assert np.array_equal(decode(file_of(image, Encoding.PNG), Encoding.PNG), flag)


@pytest.mark.parametrize("encoding", FILES)
def test_exif_orientation_is_ignored(encoding: Encoding) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned = decode(encode(picture(), encoding, exif=exif), encoding)
    assert np.array_equal(turned, decode(encode(picture(), encoding), encoding))


def test_raw_frames_are_rows_from_top_to_bottom() -> None:
    size = Size(64, 48)
    assert np.array_equal(decode(picture().tobytes(), Encoding.RAW_RGB, size=size), picture())
    assert np.array_equal(decode(picture()[..., ::-1].tobytes(), Encoding.RAW_BGR, size=size), picture())
    gray = picture()[..., 0]
    assert np.array_equal(decode(gray.tobytes(), Encoding.RAW_GRAY, size=size), np.dstack([gray] * 3))


def test_raw_nv12_is_luma_then_pairs_of_chroma_in_limited_range() -> None:
    luma = [[16, 235, 81, 81], [126, 126, 81, 81]]
    chroma = [[128, 128, 90, 240]]  # U, V of the left half: gray; of the right half: red
    frame = decode(bytes(np.concatenate([luma, chroma]).astype(np.uint8)), Encoding.RAW_NV12, size=Size(4, 2))
    assert frame[:, :2].tolist() == [[[0] * 3, [255] * 3], [[128] * 3, [128] * 3]]
    assert (
        np.abs(frame[:, 2:].astype(int) - (255, 0, 0)).max() <= 2
    )  # BT.601; read as BT.709, red would be (255, 25, 0)


def test_raw_nv12_survives_the_way_there_and_back() -> None:
    # OpenCV writes planar chroma: U, then V
    planar = cv2.cvtColor(picture(), cv2.COLOR_RGB2YUV_I420)
    chroma = planar[48:].reshape(2, -1).T
    frame = decode(planar[:48].tobytes() + chroma.tobytes(), Encoding.RAW_NV12, size=Size(64, 48))
    assert np.abs(frame.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize("size", [Size(5, 4), Size(4, 5)])
def test_raw_nv12_has_even_sides(size: Size) -> None:
    check_raw_size(Encoding.RAW_NV12, Size(4, 6))
    check_raw_size(Encoding.RAW_BGR, size)
    with pytest.raises(ValueError, match=f"^raw NV12 takes even widths and heights, not {size}: crop the frames"):
        check_raw_size(Encoding.RAW_NV12, size)


@pytest.mark.parametrize("encoding", FILES)
def test_without_a_size_all_frames_have_that_of_the_first_one_that_decodes(encoding: Encoding) -> None:
    decoder = ImageDecoder(encoding, None, max_pixels=MAX_PIXELS)
    other, small = encode(picture(8, 16), encoding), encode(picture(), encoding)
    with pytest.raises(FrameRefusedError, match="damaged or cut short"):
        decoder.decode(other[:-40])
    assert decoder.decode(small).shape == (48, 64, 3)
    with pytest.raises(
        FrameRefusedError, match=r"^frame is 16x8, this stream's frames are 64x48: open another stream$"
    ):
        decoder.decode(other)
    assert decoder.decode(small).shape == (48, 64, 3)


# What is refused


@pytest.mark.parametrize("encoding", [encoding for encoding in Encoding if not encoding.is_video])
def test_an_empty_frame_is_refused(encoding: Encoding) -> None:
    with pytest.raises(FrameRefusedError, match=r"^frame is empty$"):
        decode(b"", encoding, size=Size(64, 48))


@pytest.mark.parametrize(
    ("encoding", "garbage"),
    [
        (Encoding.JPEG, b"no picture at all, only words"),
        (Encoding.PNG, b"no picture at all, only words"),
        (Encoding.JPEG, encode(picture(), Encoding.PNG)),
        (Encoding.PNG, encode(picture(), Encoding.JPEG)),
        (Encoding.JPEG, b"\xff"),
        (Encoding.PNG, encode(picture(), Encoding.PNG)[:20]),
    ],
)
def test_another_format_is_refused_by_name(encoding: Encoding, garbage: bytes) -> None:
    with pytest.raises(FrameRefusedError, match=f"^frame is not a {encoding.value}$"):
        decode(garbage, encoding)


@pytest.mark.parametrize("encoding", FILES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_refused(encoding: Encoding, share: float) -> None:
    encoded = encode(np.tile(picture(), (4, 4, 1)), encoding)
    with pytest.raises(FrameRefusedError, match=f"{encoding.value}.*: it is damaged or cut short$"):
        decode(encoded[: int(len(encoded) * share)], encoding)


def test_a_png_with_a_flipped_bit_is_refused() -> None:
    encoded = bytearray(encode(picture(), Encoding.PNG))
    encoded[len(encoded) // 2] ^= 1
    with pytest.raises(FrameRefusedError, match=r"^frame does not decode as PNG: it is damaged or cut short$"):
        decode(bytes(encoded), Encoding.PNG)


@pytest.mark.parametrize("encoding", FILES)
def test_a_file_of_another_size_than_agreed_is_refused(encoding: Encoding) -> None:
    with pytest.raises(FrameRefusedError, match=r"^frame is 64x48, this stream's frames are 48x64"):
        decode(encode(picture(), encoding), encoding, size=Size(48, 64))


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [(Encoding.RAW_RGB, 144), (Encoding.RAW_BGR, 144), (Encoding.RAW_GRAY, 48), (Encoding.RAW_NV12, 72)],
)
@pytest.mark.parametrize("excess", [-1, 1])
def test_raw_frames_with_a_byte_too_many_or_too_few_are_refused(encoding: Encoding, expected: int, excess: int) -> None:
    message = f"^frame has {expected + excess} bytes, {encoding.value} of 8x6 has {expected}$"
    with pytest.raises(FrameRefusedError, match=message):
        decode(bytes(expected + excess), encoding, size=Size(8, 6))


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        (Encoding.PNG, png_of(10_000, 10_000, zlib.compress(bytes(1251 * 10_000)))),  # every pixel is there
        (Encoding.JPEG, jpeg_of(10_000, 10_000)),
    ],
)
def test_a_huge_frame_is_refused_by_its_header_and_never_decoded(
    encoding: Encoding, bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(bomb) < 20_000
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    tracemalloc.start()
    try:
        with pytest.raises(FrameRefusedError, match=r"^frame is 10000x10000, 100.0 megapixels: at most 34.0 are taken"):
            decode(bomb, encoding)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_huge_size_hidden_where_only_the_decoder_looks_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """FF 00 is no marker: decoders read on right behind it, whatever length seems to follow."""
    huge = jpeg_of(10_000, 10_000)[2:]
    harmless = jpeg_of(64, 48)[2:]
    bomb = b"\xff\xd8\xff\x00" + struct.pack(">H", 2 + len(huge)) + huge + harmless
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(FrameRefusedError, match=r"^frame is a JPEG without a size"):
        decode(bomb, Encoding.JPEG)


@pytest.mark.parametrize("encoding", FILES)
def test_the_limit_itself_is_taken_and_one_pixel_more_is_not(encoding: Encoding) -> None:
    encoded = encode(picture(), encoding)
    assert ImageDecoder(encoding, None, max_pixels=64 * 48).decode(encoded).shape == (48, 64, 3)
    with pytest.raises(FrameRefusedError, match=r"^frame is 64x48"):
        ImageDecoder(encoding, None, max_pixels=64 * 48 - 1).decode(encoded)


def test_a_file_without_pixels_is_refused() -> None:
    with pytest.raises(FrameRefusedError, match=r"^frame is a PNG of 0x48 pixels$"):
        decode(png_of(0, 48), Encoding.PNG)
    with pytest.raises(FrameRefusedError, match=r"^frame is a JPEG of 64x0 pixels$"):
        decode(jpeg_of(64, 0), Encoding.JPEG)


def test_a_png_chunk_that_claims_to_be_huge_is_refused_before_the_decoder_allocates_what_it_claims(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = png_of(64, 48)[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT" + bytes(100)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(FrameRefusedError, match=r"^frame does not decode as PNG: it is damaged or cut short$"):
        decode(claim, Encoding.PNG)


def test_what_follows_the_end_of_a_png_does_not_matter() -> None:
    assert np.array_equal(decode(encode(picture(), Encoding.PNG) + b"\xff" * 100, Encoding.PNG), picture())


def test_megabytes_of_padding_hide_no_size() -> None:
    jpeg = encode(picture(), Encoding.JPEG)
    assert jpeg_size(jpeg[:2] + bytes([0xFF] * 1000) + jpeg[2:]) == Size(64, 48)
    with pytest.raises(FrameRefusedError, match="a JPEG without a size"):
        jpeg_size(jpeg[:2] + bytes([0xFF] * 100_000) + jpeg[2:])


def test_headers_are_read_past_padding_and_other_segments() -> None:
    comment = b"\xff\xfe" + struct.pack(">H", 2 + 300) + bytes(300)
    encoded = encode(picture(), Encoding.JPEG)
    assert jpeg_size(encoded[:2] + b"\xff\xff\xff" + comment[1:] + comment + encoded[2:]) == Size(64, 48)
    assert png_size(encode(picture(), Encoding.PNG)) == Size(64, 48)


# Whatever comes in

quietly = settings(max_examples=300, deadline=None, derandomize=True, database=None)
JPEG_FILE, PNG_FILE = (encode(picture(16, 24), encoding) for encoding in FILES)


def assert_image_or_refusal(encoding: Encoding, encoded: bytes) -> None:
    try:
        frame = ImageDecoder(encoding, None, max_pixels=100_000).decode(encoded)
    except FrameRefusedError:
        return
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3


@quietly
@given(st.sampled_from(FILES), st.sampled_from([b"", b"\xff\xd8\xff", PNG_FILE[:8], PNG_FILE[:33]]), st.binary())
def test_any_bytes_give_an_image_or_a_refusal(encoding: Encoding, beginning: bytes, rest: bytes) -> None:
    assert_image_or_refusal(encoding, beginning + rest)


@quietly
@given(st.sampled_from(FILES), st.data())
def test_a_damaged_file_gives_an_image_or_a_refusal(encoding: Encoding, data: st.DataObject) -> None:
    encoded = bytearray(JPEG_FILE if encoding is Encoding.JPEG else PNG_FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        encoded[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    assert_image_or_refusal(encoding, bytes(encoded))


@quietly
@given(st.sampled_from([Encoding.RAW_RGB, Encoding.RAW_BGR, Encoding.RAW_GRAY]), st.binary(max_size=20))
def test_any_raw_bytes_give_an_image_or_a_refusal(encoding: Encoding, encoded: bytes) -> None:
    try:
        frame = decode(encoded, encoding, size=Size(3, 2))
    except FrameRefusedError:
        assert len(encoded) != (6 if encoding is Encoding.RAW_GRAY else 18)
    else:
        assert frame.shape == (2, 3, 3)


# To the model's size


def test_a_frame_of_the_models_size_is_not_copied() -> None:
    frame = picture()
    assert fit(frame, Size(64, 48)) is frame


def test_shrinking_averages() -> None:
    frame = np.array([[[0], [100]], [[40], [60]]], np.uint8).repeat(3, 2)
    assert np.array_equal(fit(frame, Size(1, 1)), np.full((1, 1, 3), 50))


@pytest.mark.parametrize("size", [Size(128, 96), Size(32, 24), Size(128, 24), Size(20, 200)])
def test_a_frame_of_one_colour_keeps_it_at_any_size(size: Size) -> None:
    frame = np.full((48, 64, 3), (10, 120, 250), np.uint8)
    fitted = fit(frame, size)
    assert fitted.dtype == np.uint8
    assert np.array_equal(fitted, np.full((size.height, size.width, 3), (10, 120, 250)))
