"""Fuzzing of what decodes pixels: frames as clients send them, and label maps as clients get them."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.reliability_inputs import mutate_bytes
from benchmarks.reliability_target import Subject, Target
from serving.decoders import open_decoder
from serving.errors import FrameRefusedError
from serving.frames import PNG_SIGNATURE, Encoding, Size, fit
from serving.run_lengths import decode_delta, decode_rle, encode_delta, encode_rle
from serving.video_chunks import CODEC_NAMES, ChunkDecoder, Codec

SIZE = Size(48, 32)  # of the valid frames and maps
MAX_PIXELS = 4_000_000  # of a frame: far above the valid ones, and nothing that a machine would notice
ENCODERS: dict[Codec, str] = {"h264": "libx264", "hevc": "libx265"}
CHUNKS_PER_VIDEO = 4
# x265 itself writes beyond its memory where a frame is narrower than its blocks of 64 pixels: seen at 48x32 and 46x34
VIDEO_SETTINGS: tuple[tuple[Size, dict[str, str]], ...] = (
    (Size(64, 48), {}), (Size(96, 64), {"bf": "2"}), (Size(66, 50), {"g": "1"}),
)  # fmt: skip


def picture(number: int) -> NDArray[np.uint8]:
    """(H, W, 3), with edges and noise."""
    chance = np.random.default_rng(number)
    pixels = chance.integers(0, 60, (SIZE.height, SIZE.width, 3), np.uint8)
    pixels[number % 16 :, 8 : 20 + number % 16] += 150
    return pixels


def label_map(number: int) -> NDArray[np.uint8]:
    """(H, W), of a few areas."""
    labels = np.zeros((SIZE.height, SIZE.width), np.uint8)
    labels[number % 20 :, 5:30] = 3
    labels[10:15, number % 40 :] = 9
    return labels


def jpegs() -> list[bytes]:
    """Baseline, progressive, with restarts, gray."""
    options = [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2), (cv2.IMWRITE_JPEG_QUALITY, 5)]
    made = [_encoded(".jpg", picture(i), option) for i, option in enumerate(options)]
    return [*made, _encoded(".jpg", picture(4)[..., 0], ())]


def pngs() -> list[bytes]:
    """RGB, with transparency, gray, of 16 and of 1 bit."""
    alpha = np.dstack([picture(1), picture(2)[..., :1]])
    deep = picture(3).astype(np.uint16) * 257
    flat = (cv2.IMWRITE_PNG_BILEVEL, 1)
    images: list[tuple[NDArray[Any], tuple[int, ...]]] = [
        (picture(0), ()), (alpha, ()), (picture(4)[..., 0], ()), (deep, ()), (label_map(1), flat),
    ]  # fmt: skip
    return [_encoded(".png", image, option) for image, option in images]


def _encoded(suffix: str, image: NDArray[Any], options: Sequence[int]) -> bytes:
    is_encoded, encoded = cv2.imencode(suffix, image, list(options))
    assert is_encoded
    return encoded.tobytes()


def mutate_png(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages what is in the chunks and makes the checksums right again; one in four is damaged as bytes instead."""
    if chance.randrange(4) == 0:
        return mutate_bytes(chance, seeds)
    encoded = chance.choice(seeds)
    place, chunks = len(PNG_SIGNATURE), []
    while place + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        chunks.append((kind, encoded[place + 8 : place + 8 + length]))
        place += 12 + length
    index = chance.randrange(len(chunks))
    kind, content = chunks[index]
    if kind == b"IDAT" and chance.randrange(2):  # the pixels behind the compression
        content = zlib.compress(mutate_bytes(chance, [zlib.decompress(content)]))
    else:
        content = mutate_bytes(chance, [content, *(other for _, other in chunks)])
    chunks[index] = (kind, content)
    if chance.randrange(8) == 0:
        chance.shuffle(chunks)
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def raw(num_bytes_per_two_pixels: int) -> list[bytes]:
    """Of the right length."""
    return [bytes(SIZE.width * SIZE.height * num_bytes_per_two_pixels // 2)]


def framed(chunks: Sequence[bytes]) -> bytes:
    """Several messages as one input: each behind its length."""
    return b"".join(struct.pack(">H", len(chunk)) + chunk for chunk in chunks)


def unframed(content: bytes, most: int) -> list[bytes]:
    """The messages in an input, however wrong the lengths are."""
    messages: list[bytes] = []
    place = 0
    while place + 2 <= len(content) and len(messages) < most:
        (length,) = struct.unpack_from(">H", content, place)
        messages.append(content[place + 2 : place + 2 + length])
        place += 2 + length
    return messages


def mutate_framed(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Damages one or all of the messages in an input, seldom their lengths."""
    if chance.randrange(8) == 0:
        return mutate_bytes(chance, seeds)
    messages = unframed(chance.choice(seeds), 64)
    others = [message for seed in seeds for message in unframed(seed, 64)]
    damaged = range(len(messages)) if chance.randrange(4) == 0 else [chance.randrange(len(messages))]
    for index in damaged:
        messages[index] = mutate_bytes(chance, [messages[index], *others])[:65535]
    if chance.randrange(4) == 0:
        chance.shuffle(messages)
    return framed(messages)


def videos(codec: Codec) -> list[bytes]:
    """A few frames, each a chunk; of several sizes and settings."""
    made = []
    for size, options in VIDEO_SETTINGS:
        encoder = av.CodecContext.create(ENCODERS[codec], "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
        encoder.time_base = Fraction(1, 25)
        quiet = {"x265-params": "log-level=none:pools=none:frame-threads=1"} if codec == "hevc" else {}
        encoder.options = {"preset": "ultrafast", "bf": "0", **quiet, **options}
        chunks = []
        for number in range(CHUNKS_PER_VIDEO):
            pixels = cv2.resize(picture(number), size).astype(np.uint8, copy=False)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            chunks += [bytes(packet) for packet in encoder.encode(frame)]
        chunks += [bytes(packet) for packet in encoder.encode(None)]
        made.append(framed(chunks))
    return made


def _open_image(encoding: Encoding, size: Size | None, folder: Path) -> Subject:
    del folder

    def feed(content: bytes) -> None:
        frame = open_decoder(encoding, size, max_pixels=MAX_PIXELS).decode(content)
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
        assert frame.shape[0] * frame.shape[1] <= MAX_PIXELS
        fit(frame, SIZE)

    return Subject(feed)


def _open_video(codec: Codec, folder: Path) -> Subject:
    del folder

    def feed(content: bytes) -> None:
        """All chunks of a stream; a refused one must not end it."""
        decoder = ChunkDecoder(codec, None, max_pixels=MAX_PIXELS, max_frames_per_chunk=4)
        refusal = None
        for chunk in unframed(content, 8):
            try:
                frames = decoder.decode(chunk)
            except FrameRefusedError as error:
                refusal = error
                continue
            assert all(frame.shape[0] * frame.shape[1] <= MAX_PIXELS for frame in frames)
        decoder.flush()
        if refusal is not None:
            raise refusal

    return Subject(feed)


def _open_rle(folder: Path) -> Subject:
    del folder
    return Subject(lambda content: decode_rle(content, SIZE))


def _open_delta(folder: Path) -> Subject:
    del folder
    before = label_map(0)
    return Subject(lambda content: decode_delta(content, before))


def _runs() -> list[bytes]:
    return [encode_rle(label_map(number)) for number in range(5)]


def _deltas() -> list[bytes]:
    return [encode_delta(label_map(number), label_map(0)) for number in range(5)]


def _image(name: str, encoding: Encoding, seeds: Callable[[], Sequence[bytes]], share: int) -> Target:
    size = None if encoding in (Encoding.JPEG, Encoding.PNG) else SIZE
    mutate = mutate_png if encoding is Encoding.PNG else mutate_bytes
    opens = partial(_open_image, encoding, size)
    return Target(name, f"frames as {encoding.value}", share, seeds, opens, (FrameRefusedError,), mutate)


def _video(codec: Codec, share: int) -> Target:
    what = f"chunks of {CODEC_NAMES[codec]} video"
    opens = partial(_open_video, codec)
    return Target(codec, what, share, partial(videos, codec), opens, (FrameRefusedError,), mutate_framed)


CODECS = (
    _image("jpeg", Encoding.JPEG, jpegs, 120),
    _image("png", Encoding.PNG, pngs, 120),
    _image("raw", Encoding.RAW_RGB, partial(raw, 6), 20),
    _image("nv12", Encoding.RAW_NV12, partial(raw, 3), 20),
    _video("h264", 40),
    _video("hevc", 30),
    Target("rle", "label maps as runs", 100, _runs, _open_rle,
           (ValueError,)),
    Target("delta", "label maps as changes", 100, _deltas, _open_delta, (ValueError,)),
)  # fmt: skip
