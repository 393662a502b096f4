"""Streams clips through the served path of a bundle and compares every answer with the torch network.

The path is the one users get: manifest, runtime, engine, state on the device. What must agree depends on the precision:
labels and state for floating point, on a clip of the embedded world, which is there where the training data are not (a
change of scene in it makes the flow large); for 8-bit integers mean IoU on labelled clips of the domain, since labels
that change need not be worse ones.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from serving.bundle import Bundle, Precision, Variant
from serving.engine import Engine
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Runtime
from training.data.world.render import render_clip
from training.label_spaces import LabelSpace
from training.metrics import confusion_matrix, mean_iou
from training.models.video_segmenter import VideoSegmenter
from training.progress import with_progress
from training.streaming import stream

NUM_FRAMES = 4  # of each of two scenes
KEY_FRAME_INTERVALS = (1, 3)  # the paper's evaluation, and propagation over several frames
Figures = dict[str, JsonValue]


@dataclass(frozen=True)
class Tolerance:
    """How far the graphs of a precision may be from the network."""

    min_label_agreement: float  # share of pixels
    max_state_difference: float  # relative to the largest absolute value of the state
    max_miou_loss: float | None  # in points of mean IoU (%); None where labels and state decide


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(0.9999, 1e-3, None),  # a few undecided pixels are rounding
    "fp16": Tolerance(0.999, 2e-2, None),
    "int8": Tolerance(0.9, 1.0, 0.5),  # the first two catch what is broken
}


class LabelledVideo(NamedTuple):
    """Frames in a row, of which the last has labels."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    labels: NDArray[np.int64]  # (H, W), train ids or IGNORE


class VerificationError(RuntimeError):
    """Graphs that do not answer like the network they were made from. The message is one sentence."""

    def __init__(self, message: str, figures: Figures) -> None:
        """Carries what was measured."""
        super().__init__(message)
        self.figures = figures


class Verifier:
    """Compares variants of one frame size with the network; what the network answers is computed once."""

    def __init__(
        self,
        segmenter: VideoSegmenter,
        size: tuple[int, int],
        space: LabelSpace,
        labelled: Sequence[LabelledVideo],
    ) -> None:
        """Takes the network that the graphs were made from.

        Args:
            segmenter: in evaluation mode.
            size: height and width of the frames.
            space: the classes.
            labelled: clips on which int8 is judged; without any, its labels must agree like those of fp16's.
        """
        self._segmenter, self._size, self._space, self._labelled = segmenter, size, space, labelled

    def verify(self, bundle: Bundle, variant: Variant) -> Figures:
        """Compares a variant with the network.

        Returns:
            `label_agreement`: share of equal pixels, `max_state_difference`: largest difference of a state tensor,
            relative to the largest absolute value in it, the worst over runtimes and key-frame intervals; with labelled
            clips also `miou` (the worst) and `miou_of_network`; `verified_on`: the runtimes.

        Raises:
            VerificationError: if they differ by more than `TOLERANCES`, or the network's scores are not finite.
        """
        runtimes = runtimes_on_cpu(variant)
        compared = [
            self._compare(bundle, variant, runtime, interval)
            for runtime in runtimes
            for interval in KEY_FRAME_INTERVALS
        ]
        agreement = float(np.min([agreement for agreement, _ in compared]))  # NumPy's hand a NaN on, Python's do not
        difference = float(np.max([difference for _, difference in compared]))
        figures: Figures = {
            "label_agreement": agreement, "max_state_difference": difference, "frames": 2 * NUM_FRAMES,
            "verified_on": ", ".join(runtime.description for runtime in runtimes),
        }  # fmt: skip
        tolerance = TOLERANCES[variant.precision]
        min_agreement = tolerance.min_label_agreement
        if tolerance.max_miou_loss is not None:
            if self._labelled:
                figures |= self._mean_ious(bundle, variant, runtimes)
                if not _number(figures["miou"]) >= _number(figures["miou_of_network"]) - tolerance.max_miou_loss:
                    raise VerificationError(
                        f"{_name(variant)} loses accuracy: mIoU {figures['miou']:.2f} %, the network has"
                        f" {figures['miou_of_network']:.2f} % (at most {tolerance.max_miou_loss} points may be lost)",
                        figures,
                    )
            else:
                min_agreement = TOLERANCES["fp16"].min_label_agreement
        if not agreement >= min_agreement or not difference <= tolerance.max_state_difference:  # a NaN fails too
            raise VerificationError(
                f"{_name(variant)} does not answer like the network: {100 * agreement:.3f} % of labels agree (at least"
                f" {100 * min_agreement} % should), the state differs by {difference:.1e} (at most"
                f" {tolerance.max_state_difference:.0e} may)",
                figures,
            )
        return figures

    def _compare(
        self, bundle: Bundle, variant: Variant, runtime: Runtime, key_frame_interval: int
    ) -> tuple[float, float]:
        """Share of equal labels, and the relative difference of the state after the last frame."""
        expected, expected_state = self._expected[key_frame_interval]
        with (
            _engine(bundle, variant, runtime) as engine,
            engine.open_stream(key_frame_interval=key_frame_interval) as served,
        ):
            answers = [served.submit(frame).result().labels for frame in self._clip]
            state = served.state()
        equal_pixels = float(np.mean([answer == labels for answer, labels in zip(answers, expected, strict=True)]))
        differences = [
            float(np.abs(state[name] - tensor).max() / max(float(np.abs(tensor).max()), 1e-12))
            for name, tensor in expected_state.items()
        ]
        return equal_pixels, float(np.max([0.0, *differences]))

    @cached_property
    def _clip(self) -> NDArray[np.uint8]:
        return np.concatenate([render_clip(seed, "target", self._size, NUM_FRAMES).frames for seed in (1, 2)])

    @cached_property
    def _expected(self) -> dict[int, tuple[list[NDArray[np.int64]], dict[str, NDArray[Any]]]]:
        """Labels of every frame, and the state after the last, by key-frame interval."""
        folded = self._segmenter.folded()
        inputs = _network_frames(self._clip)
        expected = {}
        for interval in KEY_FRAME_INTERVALS:
            labels = [_labels(answer.logits) for answer in stream(self._segmenter, inputs, interval)]
            *_, last = stream(folded, inputs, interval)  # the state that graphs carry is the folded one
            state = {name: tensor.numpy() for name, tensor in zip(folded.state_names, last.state, strict=True)}
            expected[interval] = (labels, state)
        return expected

    def _mean_ious(self, bundle: Bundle, variant: Variant, runtimes: Sequence[Runtime]) -> Figures:
        """Mean IoU in percent of the variant and of the network on the labelled clips, a key frame on every frame."""
        mious = []
        for runtime in runtimes:
            predictions = []
            with _engine(bundle, variant, runtime) as engine:
                for video in with_progress(self._labelled, f"mIoU of {_name(variant)}"):
                    with engine.open_stream(key_frame_interval=1) as served:
                        predictions.append([served.submit(frame).result().labels for frame in video.frames][-1])
            mious.append(self._mean_iou(predictions))
        miou_of_network = self._mean_iou(self._network_predictions)
        return {"miou": min(mious), "miou_of_network": miou_of_network, "labelled_clips": len(self._labelled)}

    @cached_property
    def _network_predictions(self) -> list[NDArray[np.int64]]:
        predictions = []
        for video in with_progress(self._labelled, "mIoU of the network"):
            *_, last = stream(self._segmenter, _network_frames(video.frames), 1)
            predictions.append(_labels(last.logits))
        return predictions

    def _mean_iou(self, predictions: Sequence[NDArray[Any]]) -> float:
        confusion = torch.zeros(self._space.num_classes, self._space.num_classes, dtype=torch.int64)
        for video, labels in zip(self._labelled, predictions, strict=True):
            known = torch.from_numpy(video.labels)
            confusion += confusion_matrix(known, torch.from_numpy(labels.astype(np.int64)), self._space.num_classes)
        return mean_iou(confusion, self._space.evaluated)


def runtimes_on_cpu(variant: Variant) -> list[Runtime]:
    """Those of a variant that run on a CPU and are installed; ONNX Runtime for one that has none."""
    runtimes: list[Runtime] = []
    if "openvino" in variant.runtimes:
        with suppress(ValueError):  # it is not installed
            runtimes.append(OpenVinoRuntime("cpu"))
    if "onnxruntime-cpu" in variant.runtimes or not runtimes:
        runtimes.append(OnnxRuntime("cpu"))
    return runtimes


def _engine(bundle: Bundle, variant: Variant, runtime: Runtime) -> Engine:
    return Engine(bundle, variant, runtime, max_streams=1, max_batch=1)


def _name(variant: Variant) -> str:
    return f"{variant.precision} {variant.height}x{variant.width} for {', '.join(variant.runtimes)}"


def _number(value: JsonValue) -> float:
    return cast("float", value)


def _network_frames(frames: NDArray[np.uint8]) -> list[Tensor]:
    return [torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255 for frame in frames]


def _labels(logits: Tensor) -> NDArray[np.int64]:
    """Labels (H, W) of one frame."""
    if not bool(logits.isfinite().all()):  # whatever a runtime makes of NaN, it is not the graphs' fault
        raise VerificationError(
            "the network gives scores that are not finite: train it again with a lower learning rate; no bundle was"
            " written",
            {},
        )
    return cast("NDArray[np.int64]", logits.argmax(1)[0].numpy())
