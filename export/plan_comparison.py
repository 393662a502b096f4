"""Compares a runtime's plans with the ONNX graphs that they stand for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.bundle import NEXT, Bundle, Variant
from serving.engine import log_run
from serving.graphs import Answer, ModelGraphs
from serving.plans import Comparison
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.runtime import Array, Runtime, Value
from training.data.world.render import render_clip

NUM_FRAMES = 4  # of each of two clips


class EngineError(RuntimeError):
    """Plans that could not be built, or do not answer like their graphs. The message is one sentence."""


class _Answers(NamedTuple):
    """What a stream was answered."""

    labels: NDArray[np.uint8]  # (T, H, W)
    states: list[dict[str, Array]]  # after the key frame, and after the last frame


def compare(bundle: Bundle, variant: Variant, runtime: Runtime, batches: Sequence[int]) -> Comparison:
    """Streams clips of the embedded world through a runtime, in batches of each size, and through the ONNX graphs.

    Raises:
        BundleError: if the graphs cannot be loaded.
        EngineError: if they cannot be run.
    """
    size = (variant.height, variant.width)
    clips = [render_clip(seed, "target", size, NUM_FRAMES).frames for seed in (1, 2)]
    reference = OnnxRuntime("cpu")
    expected = _stream(ModelGraphs(bundle, variant, reference, log_run), reference, clips)
    graphs = ModelGraphs(bundle, variant, runtime, log_run)
    agreements, differences = [], [0.0]
    for batch in batches:
        choice = [index % len(clips) for index in range(batch)]
        for answer, index in zip(_stream(graphs, runtime, [clips[index] for index in choice]), choice, strict=True):
            agreements.append(float(np.mean(answer.labels == expected[index].labels)))
            for state, wanted in zip(answer.states, expected[index].states, strict=True):
                differences += [_difference(state[name], wanted[name]) for name in wanted]
    return Comparison(
        label_agreement=float(np.min(agreements)),  # NumPy's minimum hands a NaN on, Python's does not
        max_state_difference=float(np.max(differences)),
        frames=NUM_FRAMES * sum(batches),
    )


def _stream(graphs: ModelGraphs, runtime: Runtime, clips: Sequence[NDArray[np.uint8]]) -> list[_Answers]:
    """Answers several streams at once, which have their key frame at their first frame."""
    key_frames = [runtime.to_device(clip[:1]) for clip in clips]
    states = _all(graphs.encode_keys(key_frames))
    first = _to_host(states, runtime)
    labels, previous = [], key_frames
    for t in range(len(clips[0])):
        frames = key_frames if t == 0 else [runtime.to_device(clip[t : t + 1]) for clip in clips]
        requests = [
            state | {"frame": frame, "previous_frame": before, "key_frame": key_frame}
            for state, frame, before, key_frame in zip(states, frames, previous, key_frames, strict=True)
        ]
        outputs = _all(graphs.step(requests))
        labels.append([runtime.to_host(output["labels"])[0] for output in outputs])
        if t > 0:  # as in the engine: after a key frame, the state is what the key graph gave
            states = [
                {name: output.get(NEXT + name, value) for name, value in state.items()}
                for state, output in zip(states, outputs, strict=True)
            ]
        previous = frames
    last = _to_host(states, runtime)
    return [
        _Answers(np.stack(own_labels), [own_first, own_last])
        for own_labels, own_first, own_last in zip(zip(*labels, strict=True), first, last, strict=True)
    ]


def _to_host(states: Sequence[dict[str, Value]], runtime: Runtime) -> list[dict[str, Array]]:
    return [{name: runtime.to_host(value) for name, value in state.items()} for state in states]


def _all(answers: Sequence[Answer]) -> list[dict[str, Value]]:
    """The answers, none of which may be an error."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise EngineError(f"a graph cannot be run: {' '.join(str(answer).split())}") from answer
    return [answer for answer in answers if not isinstance(answer, Exception)]


def _difference(array: Array, wanted: Array) -> float:
    return float(np.abs(array - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
