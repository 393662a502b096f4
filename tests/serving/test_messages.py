from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from serving.bundle import Bundle
from serving.errors import InvalidRequestError
from serving.frames import Encoding, Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png
from serving.messages import ENCODINGS, Limits, SessionConfig, parse_config, result_message
from serving.models import ServedModel
from serving.results import StepResult, StepTimings
from serving.runtimes.onnx_runtime import OnnxRuntime
from tests.serving.conftest import SIZE

LIMITS = Limits(
    max_streams=8,
    max_frame_bytes=1_000_000,
    max_frame_pixels=2_000_000,
    max_in_flight=16,
    default_in_flight=6,
    default_key_frame_interval=5,
    max_consecutive_errors=3,
    idle_timeout_s=60.0,
)


def jpeg_config() -> pb.StreamConfig:
    return pb.StreamConfig(format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_JPEG))


# Configurations


def test_what_a_client_leaves_open_is_filled_in() -> None:
    assert parse_config(jpeg_config(), LIMITS) == SessionConfig(
        encoding=Encoding.JPEG,
        size=None,
        key_frame_interval=5,
        policy=pb.DELIVERY_POLICY_BLOCK,
        max_in_flight=6,
        labels=pb.LABEL_MAP_SIZE_NATIVE,
        wants_confidence=False,
    )


def test_what_a_client_asks_for_is_kept() -> None:
    config = pb.StreamConfig(
        format=pb.FrameFormat(encoding=pb.FRAME_ENCODING_RAW_BGR, width=1280, height=720),
        fixed_key_frames=pb.FixedKeyFrames(interval=9),
        delivery=pb.Delivery(policy=pb.DELIVERY_POLICY_DROP_OLDEST, max_in_flight=16),
        outputs=pb.Outputs(labels=pb.LABEL_MAP_SIZE_NONE, confidence=True),
    )
    assert parse_config(config, LIMITS) == SessionConfig(
        encoding=Encoding.RAW_BGR,
        size=Size(1280, 720),
        key_frame_interval=9,
        policy=pb.DELIVERY_POLICY_DROP_OLDEST,
        max_in_flight=16,
        labels=pb.LABEL_MAP_SIZE_NONE,
        wants_confidence=True,
    )


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
        (lambda c: c.fixed_key_frames.SetInParent(), "config.fixed_key_frames.interval", "0 is not within 1..100000"),
        (
            lambda c: setattr(c.fixed_key_frames, "interval", 100_001),
            "config.fixed_key_frames.interval",
            "100001 is not within 1..100000",
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


# Results

FRAME = pb.Frame(sequence=7, capture_time_us=123_456, data=b"not looked at")
NATIVE = Size(2 * SIZE, 3 * SIZE)


@pytest.fixture
def model(toy_bundle: Bundle) -> ServedModel:
    variant = toy_bundle.manifest.variants[0]
    return ServedModel(toy_bundle, variant, OnnxRuntime("cpu", threads=1), max_streams=1, max_batch=1)


@pytest.fixture
def result() -> StepResult:
    labels = np.full((SIZE, SIZE), 3, np.uint8)
    labels[: SIZE // 4] = 200
    return StepResult(
        labels=labels,
        confidence=np.full((SIZE // 4, SIZE // 4), 99, np.uint8),
        mean_confidence=0.75,
        disagreement=0.125,
        mean_entropy=0.25,
        warp_residual=0.0625,
        key_frame_age=2,
        refreshes_key=True,
        batch_size=3,
        timings=StepTimings(queue_ms=1.5, key_ms=0.0, step_ms=2.5),
    )


def config_of(**fields: object) -> SessionConfig:
    return replace(parse_config(jpeg_config(), LIMITS), **fields)  # type: ignore[arg-type]  # of any field


def test_a_result_names_its_frame_and_how_it_came_about(model: ServedModel, result: StepResult) -> None:
    message = result_message(result, FRAME, NATIVE, model, config_of())
    assert (message.sequence, message.capture_time_us) == (7, 123_456)
    assert message.provenance == pb.Provenance(
        kind=pb.FRAME_KIND_PROPAGATED, refreshes_key=True, key_frame_age=2, model="toy@1", precision="fp32"
    )
    assert list(message.classes) == [pb.ClassShare(index=3, share=0.75), pb.ClassShare(index=200, share=0.25)]
    assert message.quality == pb.Quality(mean_confidence=0.75, disagreement=0.125)
    assert message.timings == pb.Timings(queue_ms=1.5, step_ms=2.5, batch_size=3)


def test_a_frame_that_was_encoded_first_is_a_key_frame(model: ServedModel, result: StepResult) -> None:
    message = result_message(replace(result, key_frame_age=0), FRAME, NATIVE, model, config_of())
    assert message.provenance.kind == pb.FRAME_KIND_KEY


@pytest.mark.parametrize(
    ("wanted", "size"), [(pb.LABEL_MAP_SIZE_NATIVE, NATIVE), (pb.LABEL_MAP_SIZE_MODEL, Size(SIZE, SIZE))]
)
def test_labels_come_in_the_size_that_was_asked_for(
    model: ServedModel, result: StepResult, wanted: pb.LabelMapSize, size: Size
) -> None:
    labels = result_message(result, FRAME, NATIVE, model, config_of(labels=wanted)).labels
    assert (labels.encoding, labels.width, labels.height) == (pb.PIXEL_MAP_ENCODING_PNG, *size)
    assert np.array_equal(decode_png(labels.data), cv2.resize(result.labels, size, interpolation=cv2.INTER_NEAREST))


def test_maps_nobody_asked_for_are_absent(model: ServedModel, result: StepResult) -> None:
    message = result_message(result, FRAME, NATIVE, model, config_of(labels=pb.LABEL_MAP_SIZE_NONE))
    assert not message.HasField("labels")
    assert not message.HasField("confidence")
    assert len(message.classes) == 2


def test_confidence_comes_at_a_quarter_of_the_models_size(model: ServedModel, result: StepResult) -> None:
    confidence = result_message(result, FRAME, NATIVE, model, config_of(wants_confidence=True)).confidence
    assert (confidence.width, confidence.height) == (SIZE // 4, SIZE // 4)
    assert np.array_equal(decode_png(confidence.data), result.confidence)
