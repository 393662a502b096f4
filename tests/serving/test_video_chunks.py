import contextlib
import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.errors import FrameRefusedError
from serving.frames import Size
from serving.video_chunks import ChunkDecoder, Codec

SIZE = Size(128, 96)
GROUP = 4  # frames from one key frame to the next
CODECS: list[Codec] = ["h264", "hevc"]
CHECKSUMS = {"h264": "", "hevc": ":hash=1"}
NO_KEY_FRAME = r"^chunk holds no H.26. key frame with its parameter sets, and the stream needs one, .*: send one$"
DAMAGED = r"^chunk does not decode as H.26.: it is damaged or holds a part of a frame, send a key frame next$"


def pictures(num_frames: int, size: Size = SIZE) -> list[NDArray[np.uint8]]:
    """Blocks of many colours that move to the left: (H, W, 3) RGB."""
    shape = (size.height // 8, size.width // 8 + num_frames, 3)
    wide = np.random.default_rng(0).integers(0, 256, shape, np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.ascontiguousarray(wide[:, 4 * index : 4 * index + size.width]) for index in range(num_frames)]


def encode(
    codec: Codec, frames: list[NDArray[np.uint8]], *, b_frames: int = 0, settings: str = "", pix_fmt: str = "yuv444p"
) -> list[bytes]:
    """An access unit for each frame, the first of each four of them a key frame with its parameter sets."""
    library = {"h264": "x264", "hevc": "x265"}[codec]
    context = av.CodecContext.create(f"lib{library}", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width, _ = frames[0].shape
    context.pix_fmt = pix_fmt
    context.time_base = Fraction(1, 25)
    common = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes={b_frames}:b-adapt=0:open-gop=0"
    quiet = ":log-level=none" if codec == "hevc" else ""
    context.options = {"preset": "ultrafast", "crf": "10", f"{library}-params": f"{common}{quiet}{settings}"}
    units = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts = index
        units += [bytes(packet) for packet in context.encode(frame)]
    units += [bytes(packet) for packet in context.encode(None)]
    assert len(units) == len(frames)
    return units


def decoder(
    codec: Codec, size: Size | None = SIZE, *, max_pixels: int = 1_000_000, max_frames_per_chunk: int = 16
) -> ChunkDecoder:
    return ChunkDecoder(codec, size, max_pixels=max_pixels, max_frames_per_chunk=max_frames_per_chunk)


def assert_alike(decoded: list[NDArray[np.uint8]], frames: list[NDArray[np.uint8]]) -> None:
    assert len(decoded) == len(frames)
    for one, other in zip(decoded, frames, strict=True):
        assert one.dtype == np.uint8
        assert one.flags.c_contiguous
        assert np.abs(one.astype(int) - other).mean() < 4


def with_flipped_bits(chunk: bytes) -> bytes:
    damaged = bytearray(chunk)
    damaged[len(damaged) // 2] ^= 0x55
    return bytes(damaged)


def without_parameter_sets(codec: Codec, unit: bytes) -> bytes:
    kinds = {"h264": {7, 8}, "hevc": {32, 33, 34}}[codec]
    parts = re.split(b"\x00?\x00\x00\x01", unit)[1:]
    kept = [part for part in parts if (part[0] & 31 if codec == "h264" else part[0] >> 1 & 63) not in kinds]
    assert len(kept) < len(parts)
    return b"".join(b"\x00\x00\x00\x01" + part for part in kept)


# What comes out


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [SIZE, None])
def test_a_frame_comes_out_of_the_chunk_it_came_in(codec: Codec, size: Size | None) -> None:
    frames, decode = pictures(6), decoder(codec, size)
    for frame, chunk in zip(frames, encode(codec, frames), strict=True):
        assert_alike(decode.decode(chunk), [frame])
    assert decode.flush() == []


@pytest.mark.parametrize("codec", CODECS)
def test_a_chunk_may_hold_several_frames(codec: Codec) -> None:
    frames, decode = pictures(9), decoder(codec)
    units = encode(codec, frames)
    assert_alike(decode.decode(b"".join(units[:3])), frames[:3])
    assert_alike(decode.decode(b"".join(units[3:])), frames[3:])


@pytest.mark.parametrize("codec", CODECS)
def test_b_frames_come_late_in_the_order_of_showing_and_the_last_with_a_flush(codec: Codec) -> None:
    frames, decode = pictures(8), decoder(codec)
    units = encode(codec, frames, b_frames=2)
    assert decode.decode(units[0]) == []
    decoded = [frame for unit in units[1:] for frame in decode.decode(unit)]
    assert len(decoded) < 8
    assert_alike(decoded + decode.flush(), frames)


@pytest.mark.parametrize("codec", CODECS)
def test_after_a_flush_another_video_may_follow(codec: Codec) -> None:
    frames, decode = pictures(2), decoder(codec)
    units = encode(codec, frames)
    for _ in range(2):
        assert decode.flush() == []
        assert_alike(decode.decode(b"".join(units)) + decode.flush(), frames)
    with pytest.raises(FrameRefusedError, match=NO_KEY_FRAME):
        decode.decode(units[1])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv420p10le"])
def test_common_pixel_formats_keep_their_colours(codec: Codec, pix_fmt: str) -> None:
    red = np.full((96, 128, 3), (200, 30, 40), np.uint8)
    (decoded,) = decoder(codec).decode(encode(codec, [red], pix_fmt=pix_fmt)[0])
    assert np.abs(decoded.astype(int) - red).mean() < 3


# What is refused


@pytest.mark.parametrize("codec", CODECS)
def test_without_a_first_key_frame_nothing_is_decoded(codec: Codec) -> None:
    frames, decode = pictures(6), decoder(codec)
    units = encode(codec, frames)
    for unit in units[1:GROUP]:
        with pytest.raises(FrameRefusedError, match=NO_KEY_FRAME):
            decode.decode(unit)
    assert_alike(decode.decode(units[4]), frames[4:5])
    assert_alike(decode.decode(units[5]), frames[5:])


@pytest.mark.parametrize("codec", CODECS)
def test_frames_before_the_key_frame_of_a_first_chunk_are_left_out(codec: Codec) -> None:
    frames = pictures(6)
    assert_alike(decoder(codec).decode(b"".join(encode(codec, frames)[2:])), frames[4:])


@pytest.mark.parametrize("codec", CODECS)
def test_after_damage_the_stream_goes_on_at_the_next_key_frame(codec: Codec) -> None:
    frames, decode = pictures(9), decoder(codec)
    units = encode(codec, frames, settings=CHECKSUMS[codec])
    assert_alike(decode.decode(units[0]), frames[:1])
    with pytest.raises(FrameRefusedError, match=DAMAGED):
        decode.decode(with_flipped_bits(units[0]))
    for unit in units[1:GROUP]:
        with pytest.raises(FrameRefusedError, match=NO_KEY_FRAME):
            decode.decode(unit)
    for frame, unit in zip(frames[4:], units[4:], strict=True):
        assert_alike(decode.decode(unit), [frame])


@pytest.mark.parametrize("codec", CODECS)
def test_parameter_sets_may_be_sent_once_until_a_chunk_is_refused(codec: Codec) -> None:
    frames, decode = pictures(9), decoder(codec)
    units = encode(codec, frames)
    bare = without_parameter_sets(codec, units[4])
    assert_alike(decode.decode(b"".join([*units[:4], bare])), frames[:5])
    with pytest.raises(FrameRefusedError, match="chunk is empty"):
        decode.decode(b"")
    with pytest.raises(FrameRefusedError, match=NO_KEY_FRAME):
        decode.decode(bare)
    assert_alike(decode.decode(units[8]), frames[8:])


def test_what_a_chunk_ends_with_does_not_spoil_the_next() -> None:
    """FFmpeg's parser remembers half a start code, even when it is flushed."""
    frames, decode = pictures(2), decoder("h264")
    units = encode("h264", frames)
    for end in (b"\x00", b"\x00\x00", b"\x00\x00\x01", b"\x00\x00\x00\x01\x09"):
        with contextlib.suppress(FrameRefusedError):
            decode.decode(units[0] + end)
        assert_alike(decode.decode(b"".join(units)), frames)


def test_h264_that_was_cut_short_is_refused() -> None:
    frames, decode = pictures(5), decoder("h264")
    units = encode("h264", frames)
    for share in (0.5, 0.7, 0.9):  # before that there are only headers
        with pytest.raises(FrameRefusedError, match=DAMAGED):
            decode.decode(units[0][: int(len(units[0]) * share)])
        assert_alike(decode.decode(units[4]), frames[4:])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("garbage", [b"no video at all", b"\x00\x00\x01", b"\x00\x00\x00\x01\x65" + bytes(range(99))])
def test_what_is_no_video_is_refused(codec: Codec, garbage: bytes) -> None:
    frames, decode = pictures(1), decoder(codec)
    with pytest.raises(FrameRefusedError, match=f"{NO_KEY_FRAME}|{DAMAGED}"):
        decode.decode(garbage)
    assert_alike(decode.decode(encode(codec, frames)[0]), frames)


@pytest.mark.parametrize("codec", CODECS)
def test_an_empty_chunk_is_refused(codec: Codec) -> None:
    with pytest.raises(FrameRefusedError, match=r"^chunk is empty$"):
        decoder(codec).decode(b"")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [SIZE, None])
def test_another_size_is_refused_and_the_old_one_goes_on(codec: Codec, size: Size | None) -> None:
    frames, decode = pictures(5), decoder(codec, size)
    units = encode(codec, frames)
    assert_alike(decode.decode(units[0]), frames[:1])
    with pytest.raises(
        FrameRefusedError, match=r"^frame is 64x48, this stream's frames are 128x96: open another stream$"
    ):
        decode.decode(encode(codec, pictures(1, Size(64, 48)))[0])
    assert_alike(decode.decode(units[4]), frames[4:])


@pytest.mark.parametrize("codec", CODECS)
def test_a_size_that_changes_inside_a_chunk_is_refused(codec: Codec) -> None:
    chunk = encode(codec, pictures(1))[0] + encode(codec, pictures(1, Size(64, 48)))[0]
    with pytest.raises(FrameRefusedError, match=r"^frame is 64x48, this stream's frames are 128x96"):
        decoder(codec, None).decode(chunk)


@pytest.mark.parametrize("codec", CODECS)
def test_a_huge_frame_is_refused_by_its_header_and_never_decoded(codec: Codec) -> None:
    bomb = encode(codec, [np.zeros((2160, 4096, 3), np.uint8)], pix_fmt="yuv420p")[0]
    assert len(bomb) < 30_000
    decode = decoder(codec, None)
    with pytest.raises(FrameRefusedError, match=r"^frame is 4096x2160, 8.8 megapixels: at most 1.0 are taken"):
        decode.decode(bomb)
    assert not decode._decoder.is_open


def test_a_small_frame_cropped_from_a_huge_one_is_refused() -> None:
    frames = [np.zeros((2160, 4096, 3), np.uint8)]
    cropped = encode("h264", frames, settings=":crop-rect=0,0,4032,2112", pix_fmt="yuv420p")[0]
    decode = decoder("h264", None)
    with pytest.raises(FrameRefusedError, match=r"^frame is 64x48, cropped from 4096x2160: send it uncropped$"):
        decode.decode(cropped)
    assert not decode._decoder.is_open


@pytest.mark.parametrize("crop", ["", ":crop-rect=0,0,4032,2112"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_size_in_parameter_sets_that_only_the_decoder_takes_is_refused(crop: str, is_first: bool) -> None:
    """FFmpeg's decoder takes H.264 parameter sets without their end, its parser does not."""
    small, decode = pictures(1, Size(64, 48)), decoder("h264", None, max_pixels=64 * 48)
    if not is_first:
        assert_alike(decode.decode(encode("h264", small)[0]), small)
    bomb = encode("h264", [np.zeros((2160, 4096, 3), np.uint8)], settings=crop, pix_fmt="yuv420p")[0]
    units = re.split(b"\x00?\x00\x00\x01", bomb)[1:]
    units[0] = units[0][:-2]
    assert units[0][0] & 31 == 7
    with pytest.raises(FrameRefusedError):
        decode.decode(b"".join(b"\x00\x00\x00\x01" + unit for unit in units))
    assert_alike(decode.decode(encode("h264", small)[0]), small)


@pytest.mark.parametrize("codec", CODECS)
def test_a_frame_that_is_padded_to_whole_blocks_is_taken(codec: Codec) -> None:
    frames = pictures(1, Size(66, 34))
    assert_alike(decoder(codec, None, max_pixels=66 * 34).decode(encode(codec, frames)[0]), frames)


@pytest.mark.parametrize("codec", CODECS)
def test_the_limit_of_pixels_itself_is_taken_and_one_less_is_not(codec: Codec) -> None:
    (chunk,) = encode(codec, pictures(1))
    assert len(decoder(codec, None, max_pixels=128 * 96).decode(chunk)) == 1
    with pytest.raises(FrameRefusedError, match=r"^frame is 128x96"):
        decoder(codec, None, max_pixels=128 * 96 - 1).decode(chunk)


@pytest.mark.parametrize("codec", CODECS)
def test_too_many_frames_in_a_chunk_are_refused_before_one_is_decoded(codec: Codec) -> None:
    frames = pictures(9)
    units = encode(codec, frames)
    decode = decoder(codec, max_frames_per_chunk=3)
    with pytest.raises(
        FrameRefusedError, match=r"^chunk holds more than 3 frames: send fewer, best one in each chunk$"
    ):
        decode.decode(b"".join(units[:4]))
    assert not decode._decoder.is_open
    with pytest.raises(FrameRefusedError, match="more than 3 frames"):
        decode.decode(b"".join(units) * 100)
    assert_alike(decode.decode(b"".join(units[:3])), frames[:3])


# Beside the rest


@pytest.mark.parametrize("codec", CODECS)
def test_ffmpeg_does_not_write_to_stderr(codec: Codec, capfd: pytest.CaptureFixture[str]) -> None:
    (chunk,) = encode(codec, pictures(1), settings=CHECKSUMS[codec])
    with pytest.raises(FrameRefusedError, match=DAMAGED):
        decoder(codec).decode(with_flipped_bits(chunk))
    assert capfd.readouterr() == ("", "")


def test_opencv_reads_videos_in_the_same_process(tmp_path: Path) -> None:
    frames = pictures(4)
    units = encode("h264", frames, pix_fmt="yuv420p")
    decode = decoder("h264")
    first = decode.decode(units[0])
    (tmp_path / "clip.h264").write_bytes(b"".join(units))
    video = cv2.VideoCapture(str(tmp_path / "clip.h264"))
    taken = [cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB) for _ in range(4)]
    video.release()
    for one, other in zip(first + decode.decode(b"".join(units[1:])), taken, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 2


quietly = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SMALL_CLIP = pictures(3, Size(32, 32))
SMALL_UNITS = {codec: encode(codec, SMALL_CLIP, b_frames=1, settings=CHECKSUMS[codec]) for codec in CODECS}


@quietly
@given(st.sampled_from(CODECS), st.data())
def test_damaged_chunks_give_frames_or_a_refusal_and_a_whole_one_its_frame_again(
    codec: Codec, data: st.DataObject
) -> None:
    decode = decoder(codec, Size(32, 32))
    for unit in SMALL_UNITS[codec]:
        chunk = bytearray(unit)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(chunk) - 1))
            chunk[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        with contextlib.suppress(FrameRefusedError):
            assert all(frame.shape == (32, 32, 3) for frame in decode.decode(bytes(chunk)))
    if data.draw(st.booleans()):
        with contextlib.suppress(FrameRefusedError):
            decode.flush()
    else:
        with pytest.raises(FrameRefusedError, match="chunk is empty"):
            decode.decode(b"")
    assert_alike(decode.decode(SMALL_UNITS[codec][0]) + decode.flush(), SMALL_CLIP[:1])
