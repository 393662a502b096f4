"""Protobuf messages to what the server works with, and back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import InvalidRequestError
from serving.frames import Encoding, Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import class_shares, encode_png, scale_labels
from serving.models import ServedModel
from serving.results import StepResult

ENCODINGS = {
    pb.FRAME_ENCODING_JPEG: Encoding.JPEG,
    pb.FRAME_ENCODING_PNG: Encoding.PNG,
    pb.FRAME_ENCODING_RAW_RGB: Encoding.RAW_RGB,
    pb.FRAME_ENCODING_RAW_BGR: Encoding.RAW_BGR,
    pb.FRAME_ENCODING_RAW_GRAY: Encoding.RAW_GRAY,
}
LATEST_ONLY_IN_FLIGHT = 4  # one waits, one runs, one is encoded, one is on the wire
MAX_INTERVAL = 100_000  # frames


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What clients must keep to, and what holds if they say nothing."""

    max_streams: int  # of each model
    max_frame_bytes: int  # of one frame as it is sent
    max_frame_pixels: int  # of one frame, by its header
    max_in_flight: int  # frames of one stream
    default_in_flight: int  # frames of one stream
    default_key_frame_interval: int  # frames
    max_consecutive_errors: int  # frame errors in a row that end a stream
    idle_timeout_s: float  # without a message from the client


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """A checked StreamConfig."""

    encoding: Encoding
    size: Size | None  # of the frames; None is that of the first one
    key_frame_interval: int  # frames
    policy: pb.DeliveryPolicy
    max_in_flight: int  # frames
    labels: pb.LabelMapSize
    wants_confidence: bool


def parse_config(config: pb.StreamConfig, limits: Limits) -> SessionConfig:
    """Checks a configuration and fills in what it leaves open.

    Raises:
        InvalidRequestError: with the field that is wrong.
    """
    encoding = ENCODINGS.get(config.format.encoding)
    if encoding is None:
        raise InvalidRequestError("config.format.encoding", "name one of the encodings of the schema")
    interval = limits.default_key_frame_interval
    if config.HasField("fixed_key_frames"):
        interval = config.fixed_key_frames.interval
    if not 1 <= interval <= MAX_INTERVAL:
        raise InvalidRequestError("config.fixed_key_frames.interval", f"{interval} is not within 1..{MAX_INTERVAL}")
    policy = config.delivery.policy or pb.DELIVERY_POLICY_BLOCK
    if policy not in pb.DeliveryPolicy.values():
        raise InvalidRequestError("config.delivery.policy", f"there is no policy {policy}")
    labels = config.outputs.labels or pb.LABEL_MAP_SIZE_NATIVE
    if labels not in pb.LabelMapSize.values():
        raise InvalidRequestError("config.outputs.labels", f"there is no label map size {labels}")
    return SessionConfig(
        encoding=encoding,
        size=_size(config.format, encoding, limits.max_frame_pixels),
        key_frame_interval=interval,
        policy=policy,
        max_in_flight=_max_in_flight(config.delivery.max_in_flight, policy, limits),
        labels=labels,
        wants_confidence=config.outputs.confidence,
    )


def _size(frame_format: pb.FrameFormat, encoding: Encoding, max_pixels: int) -> Size | None:
    size = Size(frame_format.width, frame_format.height)
    if size == (0, 0) and encoding in (Encoding.JPEG, Encoding.PNG):
        return None
    if min(size) < 1:
        raise InvalidRequestError("config.format", f"{size} is no size: give both width and height")
    if size.width * size.height > max_pixels:
        raise InvalidRequestError("config.format", f"{size} is more than {max_pixels / 1e6:.1f} megapixels")
    return size


def _max_in_flight(wanted: int, policy: pb.DeliveryPolicy, limits: Limits) -> int:
    field = "config.delivery.max_in_flight"
    if policy == pb.DELIVERY_POLICY_LATEST_ONLY:
        if wanted:
            raise InvalidRequestError(field, "LATEST_ONLY has a bound of its own: leave it 0")
        return LATEST_ONLY_IN_FLIGHT
    least = 2 if policy == pb.DELIVERY_POLICY_DROP_OLDEST else 1  # one runs, so one can wait and be dropped
    max_in_flight = wanted or limits.default_in_flight
    if not least <= max_in_flight <= limits.max_in_flight:
        raise InvalidRequestError(field, f"{max_in_flight} is not within {least}..{limits.max_in_flight}")
    return max_in_flight


def result_message(
    result: StepResult, frame: pb.Frame, native: Size, model: ServedModel, config: SessionConfig
) -> pb.FrameResult:
    """The answer to a frame of size `native`, its maps encoded; the decoding, encoding and total times are left out."""
    labels = confidence = None
    if config.labels != pb.LABEL_MAP_SIZE_NONE:
        size = native if config.labels == pb.LABEL_MAP_SIZE_NATIVE else model.size
        labels = _pixel_map(scale_labels(result.labels, size))
    if config.wants_confidence:
        confidence = _pixel_map(result.confidence)
    return pb.FrameResult(
        sequence=frame.sequence,
        capture_time_us=frame.capture_time_us,
        labels=labels,
        confidence=confidence,
        provenance=pb.Provenance(
            kind=pb.FRAME_KIND_KEY if result.key_frame_age == 0 else pb.FRAME_KIND_PROPAGATED,
            refreshes_key=result.refreshes_key,
            key_frame_age=result.key_frame_age,
            model=model.label,
            precision=model.variant.precision,
        ),
        classes=[pb.ClassShare(index=index, share=share) for index, share in class_shares(result.labels)],
        quality=pb.Quality(mean_confidence=result.mean_confidence, disagreement=result.disagreement),
        timings=pb.Timings(
            queue_ms=result.timings.queue_ms,
            key_ms=result.timings.key_ms,
            step_ms=result.timings.step_ms,
            batch_size=result.batch_size,
        ),
    )


def _pixel_map(pixels: NDArray[np.uint8]) -> pb.PixelMap:
    height, width = pixels.shape
    return pb.PixelMap(encoding=pb.PIXEL_MAP_ENCODING_PNG, width=width, height=height, data=encode_png(pixels))
