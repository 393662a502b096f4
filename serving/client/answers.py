"""What a client gets for a frame, with its maps decoded."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.client.frames import Frame
from serving.errors import FrameRefusedError
from serving.frames import Encoding, ImageDecoder, Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import MAX_MAP_PIXELS, decode_png, decode_raw
from serving.run_lengths import decode_delta, decode_rle


@dataclass(frozen=True, kw_only=True)
class FrameAnswer:
    """What became of a frame: exactly one of `result`, `error` and `dropped` is there."""

    sequence: int  # place of the frame in the video, from 0
    frame: Frame  # as it was given
    result: pb.FrameResult | None = None  # provenance, classes, quality and timings, as the server gave them
    error: pb.FrameError | None = None
    dropped: pb.FramesDropped | None = None  # the range it was dropped in, with the reason
    labels: NDArray[np.uint8] | None = None  # (H, W), classes; None without a result or if not asked for
    latency_ms: float  # from handing it to the connection to having the answer, outages included

    @property
    def confidence(self) -> NDArray[np.uint8] | None:
        """(h, w), 255 is certain; None without a result or if it was not asked for."""
        if self.result is None or not self.result.HasField("confidence"):
            return None
        return decode_png(self.result.confidence.data)

    @property
    def overlay(self) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB, the server's drawing; None without a result or if it was not asked for."""
        if self.result is None or not self.result.HasField("overlay"):
            return None
        return decode_overlay(self.result.overlay)


class ImageAnswer(NamedTuple):
    """What a client gets for a single image."""

    result: pb.FrameResult
    labels: NDArray[np.uint8] | None  # (H, W); None if not asked for


class LabelDecoder:
    """Decodes the label maps of one call, one after the other: a delta is told from the map before it."""

    def __init__(self) -> None:
        """No map yet."""
        self._previous: NDArray[np.uint8] | None = None

    def decode(self, result: pb.FrameResult) -> NDArray[np.uint8] | None:
        """The labels (H, W) of a result, None if it has none.

        Raises:
            ValueError: if the map is damaged.
        """
        if not result.HasField("labels"):
            return None
        size = Size(result.labels.width, result.labels.height)
        if size.width * size.height > MAX_MAP_PIXELS:
            raise ValueError(f"the label map is to be {size}, at most {MAX_MAP_PIXELS} pixels are decoded")
        labels = self._decode(result.labels)
        if labels.shape != (size.height, size.width):
            raise ValueError(f"the label map is {labels.shape[1]}x{labels.shape[0]}, it was to be {size}")
        self._previous = labels
        return labels

    def _decode(self, pixel_map: pb.PixelMap) -> NDArray[np.uint8]:
        size = Size(pixel_map.width, pixel_map.height)
        match pixel_map.encoding:
            case pb.PIXEL_MAP_ENCODING_PNG:
                return decode_png(pixel_map.data)
            case pb.PIXEL_MAP_ENCODING_RAW:
                return decode_raw(pixel_map.data, size)
            case pb.PIXEL_MAP_ENCODING_RLE:
                return decode_rle(pixel_map.data, size)
            case pb.PIXEL_MAP_ENCODING_DELTA_RLE if self._previous is not None:
                return decode_delta(pixel_map.data, self._previous)
            case _:
                raise ValueError(f"the label map has encoding {pixel_map.encoding}, which cannot be decoded here")


def decode_overlay(overlay: pb.Overlay) -> NDArray[np.uint8]:
    """The picture (H, W, 3) RGB in an overlay.

    Raises:
        ValueError: if it is damaged, or not of the size that is said.
    """
    encoding = Encoding.JPEG if overlay.encoding == pb.OVERLAY_ENCODING_JPEG else Encoding.PNG
    size = Size(overlay.width, overlay.height)
    try:
        return ImageDecoder(encoding, size, max_pixels=MAX_MAP_PIXELS).decode(overlay.data)
    except FrameRefusedError as error:
        raise ValueError(f"the overlay does not decode: {error}") from error
