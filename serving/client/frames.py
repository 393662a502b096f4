"""What a client sends: a frame, and its bytes."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from serving.client.options import EncodingName
from serving.label_maps import encode_png

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Frame:
    """An image of a video, and how it is to be treated."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB; the answer gives it back, so do not write to it
    force_key_frame: bool = False  # encode it before it is answered, and forget the past: after a cut, say
    capture_time_us: int = 0  # microseconds of any clock, given back with the answer
    deadline_ms: int = 0  # after which it is dropped unless the device has begun it; 0 is the stream's max_age_ms


FrameLike: TypeAlias = Frame | NDArray[np.uint8]


def as_frame(frame: FrameLike) -> Frame:
    """A frame, of an image if need be.

    Raises:
        ValueError: if it is no image.
    """
    if not isinstance(frame, Frame):
        frame = Frame(frame)
    check_image(frame.image)
    return frame


def check_image(image: NDArray[np.uint8]) -> None:
    """Refuses what is no image with ValueError."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"frame is {image.dtype} of shape {image.shape}, send uint8 of shape (height, width, 3), RGB")


def encode_image(image: NDArray[np.uint8], encoding: EncodingName) -> bytes:
    """The bytes of an image (H, W, 3) RGB.

    Raises:
        ValueError: for NV12, if height or width is odd.
    """
    match encoding:
        case "png":
            return encode_png(image)
        case "rgb":
            return image.tobytes()
        case "nv12":
            return _nv12(image)
        case "jpeg":
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            is_encoded, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            assert is_encoded
            return encoded.tobytes()


def _nv12(image: NDArray[np.uint8]) -> bytes:
    """All lumas, then pairs of chroma: OpenCV knows both chroma planes behind each other, which are interleaved."""
    height, width, _ = image.shape
    if height % 2 or width % 2:
        raise ValueError(f"NV12 takes even widths and heights, not {width}x{height}: crop the frames or send rgb")
    planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, chroma = planes[: height * width], planes[height * width :].reshape(2, -1)
    return luma.tobytes() + chroma.T.tobytes()
