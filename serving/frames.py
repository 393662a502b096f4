"""From the bytes of a frame to what the model takes. Nothing is decoded before its header was found acceptable."""

import struct
from enum import Enum
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.errors import FrameRefusedError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
# SOF0..SOF15 hold the size; DHT (C4), JPG (C8) and DAC (CC) lie among them and do not.
JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE_MARKERS = frozenset(range(0xD0, 0xD8)) | {0x01}  # RST0..RST7 and TEM have no length
JPEG_NO_MARKER = 0x00  # decoders look for a size right behind it, not behind what would be its length
MAX_JPEG_MARKERS = 65536  # that are looked at for the size, padding included; cameras write a few dozen


class Size(NamedTuple):
    """Of an image, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        """As people write it: 1280x720."""
        return f"{self.width}x{self.height}"


class Encoding(Enum):
    """How a frame is sent; the value is its name for people."""

    JPEG = "JPEG"
    PNG = "PNG"
    RAW_RGB = "raw RGB"
    RAW_BGR = "raw BGR"
    RAW_GRAY = "raw gray"
    RAW_NV12 = "raw NV12"
    H264 = "H.264"
    H265 = "H.265"

    @property
    def is_video(self) -> bool:
        """Whether frames depend on the frames before them."""
        return self in (Encoding.H264, Encoding.H265)


def check_raw_size(encoding: Encoding, size: Size) -> None:
    """Whether frames of an encoding can have a size.

    Raises:
        ValueError: if they cannot: NV12 has one chroma sample for each two pixels, both ways.
    """
    if encoding is Encoding.RAW_NV12 and (size.width % 2 or size.height % 2):
        raise ValueError(
            f"{encoding.value} takes even widths and heights, not {size}:"
            f" crop the frames or send {Encoding.RAW_RGB.value}"
        )


class FrameDecoder(Protocol):
    """Decodes the frames of one stream, which all have one size. On one thread at a time, in their order."""

    def decode(self, encoded: bytes) -> NDArray[np.uint8]:
        """The frame as (H, W, 3) RGB.

        Raises:
            FrameRefusedError: with what was found and what was expected.
        """
        ...


class ImageDecoder:
    """Decodes frames that are images on their own.

    Raw frames are rows from top to bottom without padding: 3 bytes per pixel of RGB and BGR, 1 of gray. NV12 is a plane
    of luma, width times height bytes, then height / 2 rows of width / 2 pairs of chroma, blue (U) first: in all 3 bytes
    for 2 pixels. It is read as BT.601 in limited range (luma 16..235), whatever the camera meant.
    """

    def __init__(self, encoding: Encoding, size: Size | None, *, max_pixels: int) -> None:
        """Fixes what the frames must be.

        Args:
            encoding: of all frames.
            size: of all frames; None takes that of the first one that decodes. Raw frames need one that
                `check_raw_size` lets pass.
            max_pixels: above which a frame is refused.
        """
        assert not encoding.is_video
        assert size is not None or encoding in (Encoding.JPEG, Encoding.PNG)
        self._encoding = encoding
        self._size = size
        self._max_pixels = max_pixels

    def decode(self, encoded: bytes) -> NDArray[np.uint8]:
        """The frame as (H, W, 3) RGB.

        Raises:
            FrameRefusedError: with what was found and what was expected.
        """
        if not encoded:
            raise FrameRefusedError("frame is empty")
        match self._encoding:
            case Encoding.JPEG:
                frame = self._decode_file(encoded, jpeg_size(encoded))
            case Encoding.PNG:
                size = png_size(encoded)
                check_png_chunks(encoded)
                frame = self._decode_file(encoded, size)
            case Encoding.RAW_RGB:
                frame = self._raw(encoded, 3)
            case Encoding.RAW_BGR:
                frame = cv2.cvtColor(self._raw(encoded, 3), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            case Encoding.RAW_GRAY:
                frame = cv2.cvtColor(self._raw(encoded, 1), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
            case Encoding.RAW_NV12:
                frame = cv2.cvtColor(self._nv12(encoded), cv2.COLOR_YUV2RGB_NV12).astype(np.uint8, copy=False)
        return frame

    def _decode_file(self, encoded: bytes, size: Size) -> NDArray[np.uint8]:
        check_size(size, self._size, self._max_pixels)
        try:
            image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # the decoder's own checks
            image = None
        if image is None or image.shape[:2] != (size.height, size.width):
            raise FrameRefusedError(f"frame does not decode as {self._encoding.value}: it is damaged or cut short")
        self._size = size
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image).astype(np.uint8, copy=False)

    def _raw(self, encoded: bytes, num_channels: int) -> NDArray[np.uint8]:
        assert self._size is not None
        width, height = self._size
        self._check_length(encoded, width * height * num_channels)
        return np.frombuffer(encoded, np.uint8).reshape(height, width, num_channels)

    def _nv12(self, encoded: bytes) -> NDArray[np.uint8]:
        """Both planes below each other, as OpenCV takes them."""
        assert self._size is not None
        width, height = self._size
        self._check_length(encoded, width * height * 3 // 2)
        return np.frombuffer(encoded, np.uint8).reshape(height * 3 // 2, width)

    def _check_length(self, encoded: bytes, expected: int) -> None:
        if len(encoded) != expected:
            raise FrameRefusedError(
                f"frame has {len(encoded)} bytes, {self._encoding.value} of {self._size} has {expected}"
            )


def check_size(size: Size, agreed: Size | None, max_pixels: int) -> None:
    """Whether a stream takes a frame, by the size in its header.

    Args:
        size: of the frame.
        agreed: of all frames of the stream; None is not yet known.
        max_pixels: above which a frame is refused.

    Raises:
        FrameRefusedError: if it does not.
    """
    if agreed is not None and size != agreed:
        raise FrameRefusedError(f"frame is {size}, this stream's frames are {agreed}: open another stream")
    if size.width * size.height > max_pixels:
        raise FrameRefusedError(
            f"frame is {size}, {size.width * size.height / 1e6:.1f} megapixels: at most"
            f" {max_pixels / 1e6:.1f} are taken, send it smaller"
        )


def fit(frame: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The frame at the model's size; the aspect ratio gives way."""
    height, width, _ = frame.shape
    if (width, height) == size:
        return frame
    shrinks = width >= size.width and height >= size.height
    resized = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def png_size(encoded: bytes) -> Size:
    """The size in a PNG's header.

    Raises:
        FrameRefusedError: if there is none.
    """
    if not encoded.startswith(PNG_SIGNATURE) or encoded[12:16] != b"IHDR" or len(encoded) < 24:
        raise FrameRefusedError("frame is not a PNG")
    return _positive(Size(*struct.unpack_from(">II", encoded, 16)), "PNG")


def check_png_chunks(encoded: bytes) -> None:
    """Refuses a chunk that claims to be longer than the file: the decoder would allocate what it claims.

    Raises:
        FrameRefusedError: if there is one.
    """
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and position + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        position += 12 + length  # with length, kind and checksum
        if position > len(encoded):
            raise FrameRefusedError("frame does not decode as PNG: it is damaged or cut short")


def jpeg_size(encoded: bytes) -> Size:
    """The size in a JPEG's header.

    Raises:
        FrameRefusedError: if there is none.
    """
    if not encoded.startswith(JPEG_SIGNATURE):
        raise FrameRefusedError("frame is not a JPEG")
    position = len(JPEG_SIGNATURE)
    for _ in range(MAX_JPEG_MARKERS):
        if position + 9 > len(encoded) or encoded[position] != 0xFF or encoded[position + 1] == JPEG_NO_MARKER:
            break
        marker = encoded[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in JPEG_BARE_MARKERS:
            position += 2
        elif marker in JPEG_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", encoded, position + 5)
            return _positive(Size(width, height), "JPEG")
        else:
            (length,) = struct.unpack_from(">H", encoded, position + 2)
            position += 2 + length
    raise FrameRefusedError("frame is a JPEG without a size: it is damaged or cut short")


def _positive(size: Size, kind: str) -> Size:
    if min(size) < 1:
        raise FrameRefusedError(f"frame is a {kind} of {size} pixels")
    return size
