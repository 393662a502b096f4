"""A stream's configuration from the schema's messages to what the server works with, checked and filled in."""

from dataclasses import dataclass

from serving.bundle import Baseline
from serving.elasticity import Objective
from serving.errors import InvalidRequestError
from serving.frames import Encoding, Size, check_raw_size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.key_frames import Adaptive, FixedInterval, KeyFramePolicy, Manual

ENCODINGS = {
    pb.FRAME_ENCODING_JPEG: Encoding.JPEG,
    pb.FRAME_ENCODING_PNG: Encoding.PNG,
    pb.FRAME_ENCODING_RAW_RGB: Encoding.RAW_RGB,
    pb.FRAME_ENCODING_RAW_BGR: Encoding.RAW_BGR,
    pb.FRAME_ENCODING_RAW_GRAY: Encoding.RAW_GRAY,
    pb.FRAME_ENCODING_RAW_NV12: Encoding.RAW_NV12,
    pb.FRAME_ENCODING_H264: Encoding.H264,
    pb.FRAME_ENCODING_H265: Encoding.H265,
}
SIZED_ENCODINGS = frozenset({Encoding.JPEG, Encoding.PNG, Encoding.H264, Encoding.H265})  # the data tell their size
LATEST_ONLY_IN_FLIGHT = 4  # one waits, one runs, one is encoded, one is on the wire
MAX_INTERVAL = 100_000  # frames
MAX_MILLISECONDS = 3_600_000  # of deadlines and objectives: an hour


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
    idle_timeout_s: float  # without a message from the client, or until it takes one
    resume_s: float  # that the state of a broken stream is kept


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """A checked Outputs."""

    labels: pb.LabelMapSize
    label_encoding: pb.PixelMapEncoding
    wants_confidence: bool
    overlay: pb.OverlayEncoding  # UNSPECIFIED is none


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """A checked StreamConfig."""

    encoding: Encoding
    size: Size | None  # of the frames; None is that of the first one
    key_frames: pb.KeyFrames  # its zeros filled in
    policy: pb.DeliveryPolicy
    max_in_flight: int  # frames
    max_age_s: float  # of frames without a deadline of their own; 0 is none
    outputs: OutputConfig
    objective: Objective | None
    resume_token: str


def parse_config(config: pb.StreamConfig, limits: Limits) -> SessionConfig:
    """Checks a configuration and fills in what it leaves open.

    Raises:
        InvalidRequestError: with the field that is wrong.
    """
    encoding, size = parse_format(config.format, "config.format", limits)
    policy = config.delivery.policy or pb.DELIVERY_POLICY_BLOCK
    if policy not in pb.DeliveryPolicy.values():
        raise InvalidRequestError("config.delivery.policy", f"there is no policy {policy}")
    return SessionConfig(
        encoding=encoding,
        size=size,
        key_frames=parse_key_frames(config.key_frames, "config.key_frames", limits),
        policy=policy,
        max_in_flight=_max_in_flight(config.delivery.max_in_flight, policy, limits),
        max_age_s=parse_milliseconds(config.delivery.max_age_ms, "config.delivery.max_age_ms") / 1e3,
        outputs=parse_outputs(config.outputs, "config.outputs"),
        objective=_objective(config.latency) if config.HasField("latency") else None,
        resume_token=config.resume_token,
    )


def parse_format(frame_format: pb.FrameFormat, field: str, limits: Limits) -> tuple[Encoding, Size | None]:
    """Encoding and size of frames; None where each frame tells its own.

    Raises:
        InvalidRequestError: with the field that is wrong, below `field`.
    """
    encoding = ENCODINGS.get(frame_format.encoding)
    if encoding is None:
        raise InvalidRequestError(f"{field}.encoding", "name one of the encodings of the schema")
    size = Size(frame_format.width, frame_format.height)
    if size == (0, 0) and encoding in SIZED_ENCODINGS:
        return encoding, None
    if min(size) < 1:
        raise InvalidRequestError(field, f"{size} is no size: give both width and height")
    if size.width * size.height > limits.max_frame_pixels:
        raise InvalidRequestError(field, f"{size} is more than {limits.max_frame_pixels / 1e6:.1f} megapixels")
    try:
        check_raw_size(encoding, size)
    except ValueError as error:
        raise InvalidRequestError(field, str(error)) from error
    return encoding, size


def parse_key_frames(key_frames: pb.KeyFrames, field: str, limits: Limits) -> pb.KeyFrames:
    """The policy with its zeros filled in.

    Raises:
        InvalidRequestError: with the field that is wrong, below `field`.
    """
    match key_frames.WhichOneof("policy"):
        case "fixed":
            filled = pb.KeyFrames(fixed=key_frames.fixed)
            _check_interval(filled.fixed.interval, f"{field}.fixed.interval")
        case "adaptive":
            wanted = key_frames.adaptive
            least = wanted.min_interval or Adaptive.min_interval
            most = wanted.max_interval or max(least, Adaptive.max_interval)
            staleness = wanted.staleness or Adaptive.staleness
            _check_interval(least, f"{field}.adaptive.min_interval")
            _check_interval(most, f"{field}.adaptive.max_interval")
            if most < least:
                raise InvalidRequestError(
                    f"{field}.adaptive.max_interval", f"{most} is less than min_interval, {least}"
                )
            if not 0 < staleness < float("inf"):
                raise InvalidRequestError(f"{field}.adaptive.staleness", f"{staleness:g} is not above 0 and finite")
            filled = pb.KeyFrames(
                adaptive=pb.AdaptiveKeyFrames(min_interval=least, max_interval=most, staleness=staleness)
            )
        case "manual":
            filled = pb.KeyFrames(manual=key_frames.manual)
        case _:
            filled = pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=limits.default_key_frame_interval))
    return filled


def key_frame_policy(key_frames: pb.KeyFrames, baseline: Baseline | None) -> KeyFramePolicy:
    """What the engine asks for one stream, from a policy that `parse_key_frames` gave and the model's baseline."""
    match key_frames.WhichOneof("policy"):
        case "fixed":
            return FixedInterval(key_frames.fixed.interval)
        case "adaptive":
            adaptive = key_frames.adaptive
            settings = Adaptive(
                min_interval=adaptive.min_interval, max_interval=adaptive.max_interval, staleness=adaptive.staleness
            )
            return settings.policy(baseline)
        case _:
            return Manual()


def largest_interval(key_frames: pb.KeyFrames) -> int:
    """Frames from one key frame to the next at most, of a policy that was parsed; 0 if there is no bound."""
    return key_frames.fixed.interval or key_frames.adaptive.max_interval


def parse_outputs(outputs: pb.Outputs, field: str) -> OutputConfig:
    """What results are to hold.

    Raises:
        InvalidRequestError: with the field that is wrong, below `field`.
    """
    labels = outputs.labels or pb.LABEL_MAP_SIZE_NATIVE
    if labels not in pb.LabelMapSize.values():
        raise InvalidRequestError(f"{field}.labels", f"there is no label map size {labels}")
    label_encoding = outputs.label_encoding or pb.PIXEL_MAP_ENCODING_PNG
    if label_encoding not in pb.PixelMapEncoding.values():
        raise InvalidRequestError(f"{field}.label_encoding", f"there is no encoding {label_encoding}")
    if outputs.overlay not in pb.OverlayEncoding.values():
        raise InvalidRequestError(f"{field}.overlay", f"there is no encoding {outputs.overlay}")
    return OutputConfig(
        labels=labels,
        label_encoding=label_encoding,
        wants_confidence=outputs.confidence,
        overlay=outputs.overlay,
    )


def parse_milliseconds(milliseconds: int, field: str) -> int:
    """A time that a client gave.

    Raises:
        InvalidRequestError: if it is more than an hour.
    """
    if milliseconds > MAX_MILLISECONDS:
        raise InvalidRequestError(field, f"{milliseconds} is more than an hour ({MAX_MILLISECONDS})")
    return milliseconds


def _objective(latency: pb.LatencyObjective) -> Objective:
    if not latency.target_ms:
        raise InvalidRequestError("config.latency.target_ms", "an objective needs a target: give 1 or more")
    parse_milliseconds(latency.target_ms, "config.latency.target_ms")
    if latency.max_key_frame_interval:
        _check_interval(latency.max_key_frame_interval, "config.latency.max_key_frame_interval")
    return Objective(
        target_ms=latency.target_ms,
        max_key_frame_interval=latency.max_key_frame_interval,
        may_skip_steps=latency.may_skip_steps,
        may_drop_frames=latency.may_drop_frames,
    )


def _check_interval(interval: int, field: str) -> None:
    if not 1 <= interval <= MAX_INTERVAL:
        raise InvalidRequestError(field, f"{interval} is not within 1..{MAX_INTERVAL}")


def _max_in_flight(wanted: int, policy: pb.DeliveryPolicy, limits: Limits) -> int:
    field = "config.delivery.max_in_flight"
    if policy == pb.DELIVERY_POLICY_LATEST_ONLY:
        if wanted:
            raise InvalidRequestError(field, "LATEST_ONLY has a bound of its own: leave it 0")
        return min(LATEST_ONLY_IN_FLIGHT, max(2, limits.max_in_flight))  # one runs, so one can wait and be dropped
    least = 2 if policy == pb.DELIVERY_POLICY_DROP_OLDEST else 1  # the same
    max_in_flight = wanted or limits.default_in_flight
    if not least <= max_in_flight <= limits.max_in_flight:
        raise InvalidRequestError(field, f"{max_in_flight} is not within {least}..{limits.max_in_flight}")
    return max_in_flight
