"""From what the engine gives for a frame to the message that answers it."""

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.frames import FrameDecoder, Size, fit
from serving.generated.flowseg.v1 import segmentation_pb2 as pb
from serving.label_maps import class_statistics, encode_png, encode_raw, scale_labels
from serving.messages import OutputConfig
from serving.models import ServedModel
from serving.overlay import make_palette, render_overlay
from serving.results import StepResult
from serving.run_lengths import encode_delta, encode_rle

OVERLAYS: dict[pb.OverlayEncoding, Literal["jpeg", "png"]] = {
    pb.OVERLAY_ENCODING_JPEG: "jpeg",
    pb.OVERLAY_ENCODING_PNG: "png",
}


@dataclass(frozen=True, kw_only=True)
class DecodedFrame:
    """A frame as the model takes it, and as it was sent."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB, of the model's size
    native: NDArray[np.uint8] | None  # (h, w, 3) RGB, of its own size; None if nobody will draw on it
    native_size: Size
    decode_ms: float


def decode_frame(decoder: FrameDecoder, encoded: bytes, size: Size, keeps_native: bool) -> DecodedFrame:
    """Decodes a frame and scales it to the model's size.

    Raises:
        FrameRefusedError: if it does not decode.
    """
    started_at = time.perf_counter()
    native = decoder.decode(encoded)
    height, width, _ = native.shape
    return DecodedFrame(
        image=fit(native, size),
        native=native if keeps_native else None,
        native_size=Size(width, height),
        decode_ms=(time.perf_counter() - started_at) * 1e3,
    )


@dataclass(frozen=True)
class Outcome:
    """What a frame is answered with."""

    result: StepResult
    held_frames: int = 0  # frames since the one that the result is of
    drift: float = 0.0  # standard deviations


class AnswerEncoder:
    """Makes the results of one stream, one after the other: a delta map is told from the map before it."""

    def __init__(self, model: ServedModel, outputs: OutputConfig) -> None:
        """Makes what `outputs` wants."""
        self._model = model
        self._outputs = outputs
        self._previous: NDArray[np.uint8] | None = None  # the last label map
        classes = model.bundle.manifest.classes
        self._palette = make_palette([(info.name, (info.color[0], info.color[1], info.color[2])) for info in classes])

    def encode(self, frame: pb.Frame, decoded: DecodedFrame, outcome: Outcome, received_at: float) -> pb.FrameResult:
        """The answer to a frame.

        Args:
            frame: as it was sent.
            decoded: the same frame.
            outcome: what the engine gave for it.
            received_at: when it was read, in seconds of time.perf_counter.
        """
        started_at = time.perf_counter()
        result = outcome.result
        message = pb.FrameResult(
            sequence=frame.sequence,
            capture_time_us=frame.capture_time_us,
            provenance=self._provenance(outcome),
            classes=[
                pb.ClassShare(index=entry.label, share=entry.share, mean_confidence=entry.mean_confidence)
                for entry in class_statistics(result.labels, result.confidence)
            ],
            quality=pb.Quality(
                mean_confidence=result.mean_confidence,
                disagreement=result.disagreement,
                mean_entropy=result.mean_entropy,
                warp_residual=result.warp_residual,
                drift=outcome.drift,
            ),
        )
        if self._outputs.labels != pb.LABEL_MAP_SIZE_NONE:
            is_native = self._outputs.labels == pb.LABEL_MAP_SIZE_NATIVE
            size = decoded.native_size if is_native else self._model.size
            message.labels.CopyFrom(self._label_map(scale_labels(result.labels, size)))
        if self._outputs.wants_confidence:
            message.confidence.CopyFrom(
                _pixel_map(pb.PIXEL_MAP_ENCODING_PNG, result.confidence, encode_png(result.confidence))
            )
        if self._outputs.overlay:
            message.overlay.CopyFrom(self._overlay(decoded, result))
        now = time.perf_counter()
        message.timings.CopyFrom(
            pb.Timings(
                decode_ms=decoded.decode_ms,
                queue_ms=0 if outcome.held_frames else result.timings.queue_ms,
                key_ms=0 if outcome.held_frames else result.timings.key_ms,
                step_ms=0 if outcome.held_frames else result.timings.step_ms,
                encode_ms=(now - started_at) * 1e3,
                total_ms=(now - received_at) * 1e3,
                batch_size=0 if outcome.held_frames else result.batch_size,
            )
        )
        return message

    def _provenance(self, outcome: Outcome) -> pb.Provenance:
        result = outcome.result
        if outcome.held_frames:
            kind = pb.FRAME_KIND_HELD
        else:
            kind = pb.FRAME_KIND_KEY if result.key_frame_age == 0 else pb.FRAME_KIND_PROPAGATED
        return pb.Provenance(
            kind=kind,
            refreshes_key=result.refreshes_key and not outcome.held_frames,
            key_frame_age=result.key_frame_age + outcome.held_frames,
            model=self._model.label,
            precision=self._model.variant.precision,
            held_frames=outcome.held_frames,
        )

    def _label_map(self, labels: NDArray[np.uint8]) -> pb.PixelMap:
        encoding, previous = self._outputs.label_encoding, self._previous
        self._previous = labels
        if encoding == pb.PIXEL_MAP_ENCODING_DELTA_RLE:
            whole = encode_rle(labels)
            if previous is not None and previous.shape == labels.shape:
                delta = encode_delta(labels, previous)
                if len(delta) < len(whole):  # else too much has moved
                    return _pixel_map(encoding, labels, delta)
            return _pixel_map(pb.PIXEL_MAP_ENCODING_RLE, labels, whole)
        match encoding:
            case pb.PIXEL_MAP_ENCODING_RLE:
                data = encode_rle(labels)
            case pb.PIXEL_MAP_ENCODING_RAW:
                data = encode_raw(labels)
            case _:
                data = encode_png(labels)
        return _pixel_map(encoding, labels, data)

    def _overlay(self, decoded: DecodedFrame, result: StepResult) -> pb.Overlay:
        assert decoded.native is not None
        size = decoded.native_size
        labels = scale_labels(result.labels, size)
        return pb.Overlay(
            encoding=self._outputs.overlay,
            width=size.width,
            height=size.height,
            data=render_overlay(decoded.native, labels, self._palette, OVERLAYS[self._outputs.overlay]),
        )


def _pixel_map(encoding: pb.PixelMapEncoding, pixels: NDArray[np.uint8], data: bytes) -> pb.PixelMap:
    height, width = pixels.shape
    return pb.PixelMap(encoding=encoding, width=width, height=height, data=data)
