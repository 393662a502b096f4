import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.answers import AnswerEncoder, DecodedFrame, Outcome
from serving.bundle import Bundle
from serving.frames import Size
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import decode_png, decode_raw
from serving.messages import OutputConfig, parse_outputs
from serving.models import ServedModel
from serving.results import StepResult
from serving.run_lengths import decode_delta, decode_rle
from tests.serving.conftest import SIZE, served_model, step_result

FRAME = pb.Frame(sequence=7, capture_time_us=123_456, data=b"not looked at")
NATIVE = Size(2 * SIZE, 3 * SIZE)
NATIVE_IMAGE = np.full((NATIVE.height, NATIVE.width, 3), 100, np.uint8)
DECODED = DecodedFrame(
    image=np.zeros((SIZE, SIZE, 3), np.uint8), native=NATIVE_IMAGE, native_size=NATIVE, decode_ms=0.25
)


@pytest.fixture
def model(toy_bundle: Bundle) -> ServedModel:
    return served_model(toy_bundle)


def labels_of(top: int) -> NDArray[np.uint8]:
    """Label 3, with another in the upper quarter."""
    labels = np.full((SIZE, SIZE), 3, np.uint8)
    labels[: SIZE // 4] = top
    return labels


@pytest.fixture
def result() -> StepResult:
    return step_result(
        labels=labels_of(200), confidence=np.full((SIZE // 4, SIZE // 4), 51, np.uint8), mean_confidence=0.75,
        disagreement=0.125, mean_entropy=0.25, warp_residual=0.0625, key_frame_age=2, refreshes_key=True, batch_size=3,
    )  # fmt: skip


def outputs(**fields: object) -> OutputConfig:
    return parse_outputs(pb.Outputs(**fields), "outputs")  # type: ignore[arg-type]  # of any field


def encode(model: ServedModel, outcome: Outcome, wanted: OutputConfig | None = None) -> pb.FrameResult:
    return AnswerEncoder(model, wanted or outputs()).encode(FRAME, DECODED, outcome, time.perf_counter())


def test_a_result_names_its_frame_and_how_it_came_about(model: ServedModel, result: StepResult) -> None:
    message = encode(model, Outcome(result, drift=1.5))
    assert (message.sequence, message.capture_time_us) == (7, 123_456)
    assert message.provenance == pb.Provenance(
        kind=pb.FRAME_KIND_PROPAGATED, refreshes_key=True, key_frame_age=2, model="toy@1", precision="fp32"
    )
    assert [(entry.index, entry.share) for entry in message.classes] == [(3, 0.75), (200, 0.25)]
    assert [entry.mean_confidence for entry in message.classes] == pytest.approx([0.2, 0.2])
    assert message.quality == pb.Quality(
        mean_confidence=0.75, disagreement=0.125, mean_entropy=0.25, warp_residual=0.0625, drift=1.5
    )
    timings = message.timings
    assert (timings.decode_ms, timings.queue_ms, timings.step_ms, timings.batch_size) == (0.25, 1.5, 2.5, 3)
    assert 0 < timings.encode_ms <= timings.total_ms


def test_a_frame_that_was_encoded_first_is_a_key_frame(model: ServedModel, result: StepResult) -> None:
    message = encode(model, Outcome(replace(result, key_frame_age=0)))
    assert message.provenance.kind == pb.FRAME_KIND_KEY


def test_a_held_frame_has_the_labels_of_an_earlier_one_and_took_no_time_of_the_device(
    model: ServedModel, result: StepResult
) -> None:
    message = encode(model, Outcome(result, held_frames=3))
    assert message.provenance == pb.Provenance(
        kind=pb.FRAME_KIND_HELD, key_frame_age=5, held_frames=3, model="toy@1", precision="fp32"
    )
    assert message.labels == encode(model, Outcome(result)).labels
    timings = message.timings
    assert (timings.queue_ms, timings.key_ms, timings.step_ms, timings.batch_size) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "size"), [(pb.LABEL_MAP_SIZE_NATIVE, NATIVE), (pb.LABEL_MAP_SIZE_MODEL, Size(SIZE, SIZE))]
)
def test_labels_come_in_the_size_that_was_asked_for(
    model: ServedModel, result: StepResult, wanted: pb.LabelMapSize, size: Size
) -> None:
    labels = encode(model, Outcome(result), outputs(labels=wanted)).labels
    assert (labels.encoding, labels.width, labels.height) == (pb.PIXEL_MAP_ENCODING_PNG, *size)
    assert np.array_equal(decode_png(labels.data), cv2.resize(result.labels, size, interpolation=cv2.INTER_NEAREST))


def test_maps_nobody_asked_for_are_absent(model: ServedModel, result: StepResult) -> None:
    message = encode(model, Outcome(result), outputs(labels=pb.LABEL_MAP_SIZE_NONE))
    assert not message.HasField("labels")
    assert not message.HasField("confidence")
    assert not message.HasField("overlay")
    assert len(message.classes) == 2


def test_confidence_comes_at_a_quarter_of_the_models_size(model: ServedModel, result: StepResult) -> None:
    confidence = encode(model, Outcome(result), outputs(confidence=True)).confidence
    assert (confidence.width, confidence.height) == (SIZE // 4, SIZE // 4)
    assert np.array_equal(decode_png(confidence.data), result.confidence)


def test_raw_labels_are_the_labels(model: ServedModel, result: StepResult) -> None:
    wanted = outputs(labels=pb.LABEL_MAP_SIZE_MODEL, label_encoding=pb.PIXEL_MAP_ENCODING_RAW)
    labels = encode(model, Outcome(result), wanted).labels
    assert labels.encoding == pb.PIXEL_MAP_ENCODING_RAW
    assert np.array_equal(decode_raw(labels.data, Size(labels.width, labels.height)), result.labels)


def test_a_delta_is_told_from_the_map_sent_before_it_and_the_first_is_whole(
    model: ServedModel, result: StepResult
) -> None:
    """Frames of another size start over."""
    wanted = outputs(label_encoding=pb.PIXEL_MAP_ENCODING_DELTA_RLE)
    encoder = AnswerEncoder(model, wanted)
    small = replace(DECODED, native_size=Size(SIZE, SIZE))
    previous: NDArray[np.uint8] | None = None
    kinds = []
    for top, decoded in ((200, DECODED), (201, DECODED), (201, DECODED), (202, small), (203, small)):
        outcome = Outcome(replace(result, labels=labels_of(top)))
        labels = encoder.encode(FRAME, decoded, outcome, time.perf_counter()).labels
        kinds.append(labels.encoding)
        if labels.encoding == pb.PIXEL_MAP_ENCODING_RLE:
            shown = decode_rle(labels.data, Size(labels.width, labels.height))
        else:
            assert previous is not None
            shown = decode_delta(labels.data, previous)
        assert np.array_equal(shown, cv2.resize(labels_of(top), decoded.native_size, interpolation=cv2.INTER_NEAREST))
        previous = shown
    whole, delta = pb.PIXEL_MAP_ENCODING_RLE, pb.PIXEL_MAP_ENCODING_DELTA_RLE
    assert kinds == [whole, delta, delta, whole, delta]


@pytest.mark.parametrize("encoding", [pb.OVERLAY_ENCODING_JPEG, pb.OVERLAY_ENCODING_PNG])
def test_the_overlay_is_the_frame_in_its_own_size_tinted_by_its_labels(
    model: ServedModel, result: StepResult, encoding: pb.OverlayEncoding
) -> None:
    overlay = encode(model, Outcome(result), outputs(overlay=encoding)).overlay
    assert (overlay.encoding, overlay.width, overlay.height) == (encoding, *NATIVE)
    drawn = cv2.imdecode(np.frombuffer(overlay.data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert drawn is not None
    assert drawn.shape == NATIVE_IMAGE.shape
    # class 3 is (3, 252, 1), half of it over a gray of 100
    assert np.abs(drawn[-1, -1].astype(int) - [52, 176, 51]).max() <= 4
