"""Exported graphs on OpenVINO, beside ONNX Runtime."""

import importlib.util
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.quantization import Pair
from export.variants import VariantWriter
from serving.bundle import Precision, Variant, read_bundle
from serving.engine import open_engine
from serving.runtimes.onnx_runtime import OnnxRuntime
from serving.runtimes.openvino_runtime import OpenVinoRuntime
from serving.runtimes.runtime import Array, Runtime
from tests.export.conftest import SIZE, Exported, Graphs
from training.data.world.render import render_clip

pytestmark = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
Outputs = dict[str, Array]


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.uint8]]:
    """Of the world; and noise, for which the fast tail takes its other branch."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    return [*(render_clip(seed, "target", SIZE, 2).frames for seed in (1, 2, 3)), noise]


def run(runtime: Runtime, graph: Path, requests: Sequence[Mapping[str, Array]]) -> list[Outputs]:
    loaded = runtime.load(graph)
    answers = loaded.run([{name: request[name] for name in loaded.inputs} for request in requests])
    return [{name: runtime.to_host(value) for name, value in answer.items()} for answer in answers]


def answers(runtime: Runtime, folder: Path, variant: Variant, clips: Sequence[NDArray[np.uint8]]) -> list[Outputs]:
    """Of the second frames of clips, in one batch, with the state after the first ones."""
    first, second = ([clip[t : t + 1] for clip in clips] for t in (0, 1))
    states: list[Outputs] = [{} for _ in clips]
    if variant.state:
        states = run(runtime, folder / variant.key.file, [{"frame": frame} for frame in first])
    requests = [
        state | {"frame": frame, "previous_frame": before, "key_frame": before}
        for state, frame, before in zip(states, second, first, strict=True)
    ]
    return run(runtime, folder / variant.step.file, requests)


@pytest.mark.parametrize(
    ("precision", "min_agreement"),
    [("fp32", 0.9999), ("int8", 0.9)],  # random networks have many pixels that are nearly undecided
)
def test_openvino_answers_like_onnx_runtime(
    form_graphs: Graphs, clips: list[NDArray[np.uint8]], precision: Precision, min_agreement: float, tmp_path: Path
) -> None:
    pairs: list[Pair] = [(clip[0], clip[1]) for clip in clips[:3]]
    variant = next(VariantWriter(form_graphs.segmenter.folded(), *SIZE, tmp_path, calibration=pairs).write(precision))
    assert {"onnxruntime-cpu", "openvino"} <= set(variant.runtimes)
    runtimes = (OpenVinoRuntime("cpu", threads=1), OnnxRuntime("cpu", threads=1))
    for answer, expected in zip(*(answers(runtime, tmp_path, variant, clips) for runtime in runtimes), strict=True):
        assert answer.keys() == expected.keys()
        assert np.mean(answer["labels"] == expected["labels"]) >= min_agreement
        for name, array in answer.items():
            assert (array.shape, array.dtype) == (expected[name].shape, expected[name].dtype)
            if precision == "fp32":
                scale = np.abs(expected[name]).max() if name.startswith("next_") else 1
                atol = 1 if name == "confidence" else 1e-3 * scale + 1e-3  # rounded to bytes, either way
                assert name == "labels" or np.allclose(array.astype(float), expected[name], rtol=0, atol=atol)


def test_a_batch_gives_what_each_frame_gives_alone(
    form_graphs: Graphs, clips: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    variant = next(VariantWriter(form_graphs.segmenter.folded(), *SIZE, tmp_path).write("fp32"))
    runtime = OpenVinoRuntime("cpu", threads=1)
    together = answers(runtime, tmp_path, variant, clips)
    memory = [array for answer in together for array in answer.values()]
    assert not any(np.shares_memory(*pair) for pair in combinations(memory, 2))
    for clip, answer in zip(clips, together, strict=True):
        (alone,) = answers(runtime, tmp_path, variant, [clip])
        assert np.mean(alone["labels"] == answer["labels"]) >= 0.9999
        for name, array in alone.items():
            assert name == "labels" or np.allclose(array.astype(float), answer[name], rtol=1e-4, atol=1.001)


def test_a_stream_on_openvino_has_the_labels_of_onnx_runtime(exported: Exported) -> None:
    bundle = read_bundle(exported.bundle.folder)
    frames = render_clip(5, "target", (64, 128), 7).frames
    labels = []
    for choice in ("auto", "onnxruntime"):
        with open_engine(bundle.folder, size=(64, 128), runtime=choice, threads=1) as engine:
            assert engine.runtime.name == {"auto": "openvino", "onnxruntime": "onnxruntime-cpu"}[choice]
            with engine.open_stream(key_frame_interval=3) as stream:
                labels.append([stream.submit(frame).result().labels for frame in frames])
    assert np.mean(np.array(labels[0]) == np.array(labels[1])) >= 0.9999
