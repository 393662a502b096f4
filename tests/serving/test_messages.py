from collections.abc import Callable

import pytest

from serving.elasticity import Objective
from serving.errors import InvalidRequestError
from serving.frames import Encoding, Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.key_frames import Adaptive, AdaptivePolicy, FixedInterval, Manual
from serving.messages import (
    ENCODINGS,
    Limits,
    OutputConfig,
    SessionConfig,
    key_frame_policy,
    parse_config,
    parse_key_frames,
)

LIMITS = Limits(
    max_streams=8,
    max_frame_bytes=1_000_000,
    max_frame_pixels=2_000_000,
    max_in_flight=16,
    default_in_flight=6,
    default_key_frame_interval=5,
    max_consecutive_errors=3,
    idle_timeout_s=60.0,
    resume_s=30.0,
)


def jpeg_config() -> pb.StreamConfig:
    return pb.StreamConfig(format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_JPEG))


def test_what_a_client_leaves_open_is_filled_in() -> None:
    assert parse_config(jpeg_config(), LIMITS) == SessionConfig(
        encoding=Encoding.JPEG,
        size=None,
        key_frames=pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=5)),
        policy=pb.DELIVERY_POLICY_BLOCK,
        max_in_flight=6,
        max_age_s=0,
        outputs=OutputConfig(
            labels=pb.LABEL_MAP_SIZE_NATIVE,
            label_encoding=pb.PIXEL_MAP_ENCODING_PNG,
            wants_confidence=False,
            overlay=pb.OVERLAY_ENCODING_UNSPECIFIED,
        ),
        objective=None,
        resume_token="",
    )


def test_what_a_client_asks_for_is_kept() -> None:
    config = pb.StreamConfig(
        format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_RAW_BGR, width=1280, height=720),
        key_frames=pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=9)),
        delivery=pb.Delivery(policy=pb.DELIVERY_POLICY_DROP_OLDEST, max_in_flight=16, max_age_ms=250),
        outputs=pb.Outputs(
            labels=pb.LABEL_MAP_SIZE_NONE,
            confidence=True,
            label_encoding=pb.PIXEL_MAP_ENCODING_DELTA_RLE,
            overlay=pb.OVERLAY_ENCODING_JPEG,
        ),
        latency=pb.LatencyObjective(target_ms=80, max_key_frame_interval=40, may_skip_steps=True),
        resume_token="a token",
    )
    assert parse_config(config, LIMITS) == SessionConfig(
        encoding=Encoding.RAW_BGR,
        size=Size(1280, 720),
        key_frames=pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=9)),
        policy=pb.DELIVERY_POLICY_DROP_OLDEST,
        max_in_flight=16,
        max_age_s=0.25,
        outputs=OutputConfig(
            labels=pb.LABEL_MAP_SIZE_NONE,
            label_encoding=pb.PIXEL_MAP_ENCODING_DELTA_RLE,
            wants_confidence=True,
            overlay=pb.OVERLAY_ENCODING_JPEG,
        ),
        objective=Objective(target_ms=80, max_key_frame_interval=40, may_skip_steps=True, may_drop_frames=False),
        resume_token="a token",
    )


@pytest.mark.parametrize(
    ("wanted", "filled", "policy"),
    [
        (pb.KeyFrames(), pb.KeyFrames(fixed=pb.FixedKeyFrames(interval=5)), FixedInterval(5)),
        (pb.KeyFrames(manual={}), pb.KeyFrames(manual={}), Manual()),
        (
            pb.KeyFrames(adaptive={}),
            pb.KeyFrames(adaptive={"min_interval": 2, "max_interval": 30, "staleness": Adaptive.staleness}),
            Adaptive(min_interval=2, max_interval=30),
        ),
        (
            pb.KeyFrames(adaptive={"min_interval": 50}),
            pb.KeyFrames(adaptive={"min_interval": 50, "max_interval": 50, "staleness": Adaptive.staleness}),
            Adaptive(min_interval=50, max_interval=50),
        ),
        (
            pb.KeyFrames(adaptive={"min_interval": 3, "max_interval": 7, "staleness": 0.5}),
            pb.KeyFrames(adaptive={"min_interval": 3, "max_interval": 7, "staleness": 0.5}),
            Adaptive(min_interval=3, max_interval=7, staleness=0.5),
        ),
    ],
    ids=["nothing", "manual", "adaptive", "adaptive from 50", "adaptive in full"],
)
def test_key_frame_policies_are_filled_in_and_made(
    wanted: pb.KeyFrames, filled: pb.KeyFrames, policy: FixedInterval | Manual | Adaptive
) -> None:
    assert parse_key_frames(wanted, "config.key_frames", LIMITS) == filled
    made = key_frame_policy(filled, None)
    assert (made.settings if isinstance(made, AdaptivePolicy) else made) == policy


def test_every_encoding_of_the_schema_is_known() -> None:
    assert set(ENCODINGS) == set(pb.FrameEncoding.values()) - {pb.FRAME_ENCODING_UNSPECIFIED}
    assert set(ENCODINGS.values()) == set(Encoding)


def test_latest_only_has_a_bound_of_its_own() -> None:
    config = jpeg_config()
    config.delivery.policy = pb.DELIVERY_POLICY_LATEST_ONLY
    assert parse_config(config, LIMITS).max_in_flight == 4


def set_encoding(config: pb.StreamConfig, encoding: int) -> None:
    config.format.ParseFromString(bytes([8, encoding]))  # as a client of a later schema may send it


def set_policy(config: pb.StreamConfig, policy: int) -> None:
    config.delivery.ParseFromString(bytes([8, policy]))


@pytest.mark.parametrize(
    ("edit", "field", "message"),
    [
        (lambda c: c.format.Clear(), "config.format.encoding", "name one of the encodings of the schema"),
        (lambda c: set_encoding(c, 99), "config.format.encoding", "name one of the encodings of the schema"),
        (
            lambda c: c.key_frames.fixed.SetInParent(),
            "config.key_frames.fixed.interval",
            "0 is not within 1..100000",
        ),
        (
            lambda c: setattr(c.key_frames.fixed, "interval", 100_001),
            "config.key_frames.fixed.interval",
            "100001 is not within 1..100000",
        ),
        (
            lambda c: setattr(c.key_frames.adaptive, "max_interval", 100_001),
            "config.key_frames.adaptive.max_interval",
            "100001 is not within 1..100000",
        ),
        (
            lambda c: c.key_frames.adaptive.MergeFrom(pb.AdaptiveKeyFrames(min_interval=9, max_interval=8)),
            "config.key_frames.adaptive.max_interval",
            "8 is less than min_interval, 9",
        ),
        (
            lambda c: setattr(c.key_frames.adaptive, "staleness", -1),
            "config.key_frames.adaptive.staleness",
            "-1 is not above 0 and finite",
        ),
        (
            lambda c: setattr(c.key_frames.adaptive, "staleness", float("nan")),
            "config.key_frames.adaptive.staleness",
            "nan is not above 0 and finite",
        ),
        (
            lambda c: setattr(c.delivery, "max_age_ms", 3_600_001),
            "config.delivery.max_age_ms",
            "3600001 is more than an hour (3600000)",
        ),
        (
            lambda c: c.latency.SetInParent(),
            "config.latency.target_ms",
            "an objective needs a target: give 1 or more",
        ),
        (
            lambda c: c.latency.MergeFrom(pb.LatencyObjective(target_ms=9, max_key_frame_interval=100_001)),
            "config.latency.max_key_frame_interval",
            "100001 is not within 1..100000",
        ),
        (
            lambda c: c.outputs.ParseFromString(bytes([24, 99])),
            "config.outputs.label_encoding",
            "there is no encoding 99",
        ),
        (
            lambda c: c.outputs.ParseFromString(bytes([32, 99])),
            "config.outputs.overlay",
            "there is no encoding 99",
        ),
        (
            lambda c: c.format.MergeFrom(pb.FrameFormat(encoding=pb.FRAME_ENCODING_RAW_NV12, width=64, height=63)),
            "config.format",
            "raw NV12 takes even widths and heights, not 64x63: crop the frames or send raw RGB",
        ),
        (lambda c: set_policy(c, 99), "config.delivery.policy", "there is no policy 99"),
        (
            lambda c: c.outputs.ParseFromString(bytes([8, 99])),
            "config.outputs.labels",
            "there is no label map size 99",
        ),
        (lambda c: setattr(c.delivery, "max_in_flight", 17), "config.delivery.max_in_flight", "17 is not within 1..16"),
        (
            lambda c: c.delivery.MergeFrom(pb.Delivery(policy=pb.DELIVERY_POLICY_DROP_OLDEST, max_in_flight=1)),
            "config.delivery.max_in_flight",
            "1 is not within 2..16",
        ),
        (
            lambda c: c.delivery.MergeFrom(pb.Delivery(policy=pb.DELIVERY_POLICY_LATEST_ONLY, max_in_flight=2)),
            "config.delivery.max_in_flight",
            "LATEST_ONLY has a bound of its own: leave it 0",
        ),
        (lambda c: setattr(c.format, "width", 64), "config.format", "64x0 is no size: give both width and height"),
        (
            lambda c: c.format.MergeFrom(pb.FrameFormat(encoding=pb.FRAME_ENCODING_RAW_RGB)),
            "config.format",
            "0x0 is no size: give both width and height",
        ),
        (
            lambda c: c.format.MergeFrom(pb.FrameFormat(width=2000, height=1001)),
            "config.format",
            "2000x1001 is more than 2.0 megapixels",
        ),
        (
            lambda c: c.format.MergeFrom(pb.FrameFormat(width=2**32 - 1, height=2**32 - 1)),
            "config.format",
            "4294967295x4294967295 is more than 2.0 megapixels",
        ),
    ],
)
def test_a_field_that_cannot_be_is_named(edit: Callable[[pb.StreamConfig], object], field: str, message: str) -> None:
    config = jpeg_config()
    edit(config)
    with pytest.raises(InvalidRequestError) as caught:
        parse_config(config, LIMITS)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {message}"
