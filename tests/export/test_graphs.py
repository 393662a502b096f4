import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

from export.graphs import mean_entropy, state_shapes, step_graph, still_residual, warp_residual
from serving.bundle import NEXT, RESULTS, SIGNALS
from tests.fake_tensorrt import byte_errors
from training.models.video_segmenter import KeyState, Motion, Propagation, VideoSegmenter
from training.models.warping import warp

ROOT = Path(__file__).parents[2]
SIZE = (64, 128)


class Graphs(NamedTuple):
    segmenter: VideoSegmenter
    key: Path
    step: Path


def run(path: Path, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    if not names:  # it loads, but there is nothing to ask for
        return {}
    return dict(zip(names, session.run(names, inputs), strict=True))


def step(graphs: Graphs, **inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """What the step graph gives, from those of the inputs that it takes."""
    taken = {value.name for value in onnx.load(graphs.step).graph.input}
    return run(graphs.step, **{name: array for name, array in inputs.items() if name in taken})


def advancing(segmenter: VideoSegmenter) -> dict[str, bool]:
    """Names of the state's tensors, and whether a step leaves another in their place."""
    with torch.no_grad():
        frame = torch.rand(1, 3, *SIZE)
        state = segmenter.encode_key(frame)
        next_state = segmenter.propagate(state, frame, frame).state
    changes = [not torch.equal(before, after) for before, after in zip(state, next_state, strict=True)]
    return dict(zip(segmenter.state_names, changes, strict=True))


def random_frames(batch: int, seed: int) -> NDArray[np.uint8]:
    """Smooth enough that neighbours resemble each other, as in real frames."""
    coarse = torch.rand(batch, 3, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(seed))
    frames = F.interpolate(coarse, size=SIZE, mode="bilinear")
    return np.asarray((255 * frames).round().byte().permute(0, 2, 3, 1).numpy())


def network_frames(frames: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255


class Notebook(VideoSegmenter):
    """Remembers where the key frame was red, and adds what is blue now."""

    num_classes = 2
    stride = 4
    state_names = ("red",)

    def encode_key(self, frame: Tensor) -> KeyState:
        red = F.avg_pool2d(frame[:, :1], 4)
        return (torch.cat([red, 1 - red], 1),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        blue = F.avg_pool2d(frame[:, 2:], 4)
        green_before = F.avg_pool2d(previous[:, 1:2], 4)
        logits = state[0] + torch.cat([torch.zeros_like(blue), 3 * blue], 1)
        one_to_the_left = torch.zeros_like(state[0]) - torch.tensor([1.0, 0.0])[:, None, None]
        return Propagation(logits, (state[0] - green_before,), state[0], Motion(one_to_the_left, previous))


def test_graphs_whose_answers_are_known_by_hand(make_graphs: Callable[..., Graphs]) -> None:
    graphs = make_graphs(Notebook(), (64, 64))
    key_frame, previous_frame, frame = np.zeros((3, 1, 64, 64, 3), np.uint8)
    key_frame[:, :, :32, 0] = 255  # the left half is red
    previous_frame[..., 1] = 51  # a fifth of full green
    frame[:, :32, :, 2] = 255  # the upper half is blue

    state = run(graphs.key, frame=key_frame)["red"]
    assert state.shape == (1, 2, 16, 16)
    assert (state[0, :, 3, 0] == [1, 0]).all()
    assert (state[0, :, 3, 15] == [0, 1]).all()

    answer = run(graphs.step, frame=frame, previous_frame=previous_frame, red=state)
    # Scores: (1, 3) upper left, (0, 4) upper right, (1, 0) lower left, (0, 1) lower right.
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    assert [answer["labels"][0, y, x] for y, x in corners] == [1, 1, 0, 1]
    certain = [1 / (1 + math.exp(-margin)) for margin in (2, 4, 1, 1)]
    assert [answer["confidence"][0, y, x] for y, x in corners] == [round(255 * share) for share in certain]
    np.testing.assert_allclose(answer["mean_confidence"], [sum(certain) / 4], rtol=1e-6)
    assert answer["disagreement"] == [0.25]  # the past alone says (0, 1, 0, 1)
    entropy = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in certain]
    np.testing.assert_allclose(answer["mean_entropy"], [sum(entropy) / 4], rtol=1e-5)
    # Blue is off by one in the upper half, green by a fifth all over, wherever they are moved to.
    np.testing.assert_allclose(answer["warp_residual"], [(0.5 + 0.2) / 3], rtol=1e-5)
    np.testing.assert_allclose(answer["next_red"], state - 0.2, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_graphs_answer_like_torch_for_any_batch(graphs: Graphs, batch: int) -> None:
    key_frame, previous_frame, frame = (random_frames(batch, seed) for seed in range(3))
    folded = graphs.segmenter.folded()
    with torch.no_grad():
        folded_state = folded.encode_key(network_frames(key_frame))
        folded_step = folded.propagate(folded_state, network_frames(previous_frame), network_frames(frame))
        state = graphs.segmenter.encode_key(network_frames(key_frame))
        expected = graphs.segmenter.propagate(state, network_frames(previous_frame), network_frames(frame))
        expected_labels = graphs.segmenter.upsample(expected.logits).argmax(1).numpy()
        quarter = graphs.segmenter.upsample(expected.logits, stride=4)
    confidence = quarter.softmax(1).amax(1).numpy()
    disagreement = (expected.propagated_logits.argmax(1) != expected.logits.argmax(1)).float().mean((1, 2)).numpy()

    key = run(graphs.key, frame=key_frame)
    assert tuple(key) == folded.state_names
    for name, tensor in zip(folded.state_names, folded_state, strict=True):
        np.testing.assert_allclose(key[name], tensor.numpy(), atol=1e-4 * float(tensor.abs().max()))

    answer = step(graphs, frame=frame, previous_frame=previous_frame, **key)
    is_advanced = advancing(folded)
    assert tuple(answer) == (*RESULTS, *(NEXT + name for name in folded.state_names if is_advanced[name]))
    assert answer["labels"].shape == (batch, *SIZE)
    assert len(np.unique(expected_labels)) > 3
    assert (answer["labels"] == expected_labels).mean() > 0.999
    assert np.abs(answer["confidence"].astype(float) - 255 * confidence).max() < 1
    np.testing.assert_allclose(answer["mean_confidence"], confidence.mean((1, 2)), atol=1e-3)
    np.testing.assert_allclose(answer["disagreement"], disagreement, atol=2e-3)
    for name, tensor in zip(folded.state_names, folded_step.state, strict=True):
        after = answer[NEXT + name] if is_advanced[name] else key[name]
        np.testing.assert_allclose(after, tensor.numpy(), atol=1e-4 * float(tensor.abs().max()))


def test_videos_of_a_batch_do_not_meet(graphs: Graphs) -> None:
    key_frame, previous_frame, frame = (random_frames(3, seed) for seed in range(3))
    key = run(graphs.key, frame=key_frame)
    together = step(graphs, frame=frame, previous_frame=previous_frame, **key)
    alone = step(
        graphs,
        frame=frame[1:2],
        previous_frame=previous_frame[1:2],
        **{name: value[1:2] for name, value in key.items()},
    )
    assert (together["labels"][1:2] == alone["labels"]).mean() > 0.999
    np.testing.assert_allclose(together["mean_confidence"][1:2], alone["mean_confidence"], rtol=1e-4)


def test_frames_and_maps_are_bytes_and_only_the_batch_is_open(graphs: Graphs) -> None:
    height, width = SIZE
    shapes = {
        "frame": [height, width, 3],
        "previous_frame": [height, width, 3],
        "labels": [height, width],
        "confidence": [height // 4, width // 4],
        **{name: [] for name in SIGNALS},
    }
    for shape in state_shapes(graphs.segmenter.folded(), height, width):
        shapes |= {shape.name: list(shape.shape), NEXT + shape.name: list(shape.shape)}
    for path in (graphs.key, graphs.step):
        graph = onnx.load(path).graph
        for value in [*graph.input, *graph.output]:
            batch, *sides = value.type.tensor_type.shape.dim
            assert batch.dim_param == "batch"
            assert [side.dim_value for side in sides] == shapes[value.name], value.name
            is_bytes = value.name in ("frame", "previous_frame", "labels", "confidence")
            assert value.type.tensor_type.elem_type == (TensorProto.UINT8 if is_bytes else TensorProto.FLOAT)


def test_a_step_uses_all_that_it_takes(graphs: Graphs) -> None:
    """A runtime may leave out an input that nothing reads."""
    graph = onnx.load(graphs.step).graph
    read = {name for node in graph.node for name in node.input}
    assert {value.name for value in graph.input} <= read


def test_bytes_are_but_made_of_floats_and_made_floats_of(graphs: Graphs) -> None:
    """TensorRT does nothing else with them."""
    if graphs.segmenter.state_names:  # or its key graph is for no runtime: it gives nothing
        assert not byte_errors(onnx.load(graphs.key))
    assert not byte_errors(onnx.load(graphs.step))


def test_the_opset_is_one_whose_warp_every_runtime_reads_alike(graphs: Graphs) -> None:
    for path in (graphs.key, graphs.step):
        model = onnx.load(path)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 19)]
        for node in model.graph.node:
            if node.op_type == "GridSample":
                attributes = {
                    attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
                }
                assert attributes == {"mode": b"bilinear", "padding_mode": b"border", "align_corners": 1}
    warps = [node for node in onnx.load(graphs.step).graph.node if node.op_type == "GridSample"]
    # Along the flow go the state, less what DFF keeps as it is, and for the residual the frame that the flow leads to.
    num_carried = {"Dff": 1}.get(type(graphs.segmenter).__name__, len(graphs.segmenter.state_names))
    assert len(warps) == (num_carried + 1 if num_carried else 0)


class Still(VideoSegmenter):
    """Warps by no flow."""

    num_classes = 3
    stride = 8
    state_names = ("image",)

    def encode_key(self, frame: Tensor) -> KeyState:
        return (F.avg_pool2d(frame, 8),)

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        warped = warp(state[0], torch.zeros_like(state[0][:, :2]))
        return Propagation(warped, (warped,), warped, None)


def test_an_opset_whose_warp_is_misread_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.graphs.OPSET", 20)
    with pytest.raises(AssertionError, match="GridSample has mode"):
        step_graph(Still(), 64, 64)


def test_the_files_tell_nothing_of_the_machine_that_wrote_them(graphs: Graphs) -> None:
    for path in (graphs.key, graphs.step):
        model = onnx.load(path)
        assert not model.metadata_props
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")  # weights may spell anything
        text = model.SerializeToString()
        for trace in (b".py", b"site-packages", b"torch.", b"File ", b"stack_trace", str(ROOT).encode()):
            assert trace not in text, trace
        assert not model.doc_string
        assert not model.graph.doc_string
        for node in model.graph.node:
            assert not node.doc_string
            assert not node.metadata_props
        for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
            assert not value.doc_string
            assert not value.metadata_props
        assert not model.graph.metadata_props


def test_a_network_of_single_frames_has_an_empty_key_graph_and_forgets_the_past(graphs: Graphs) -> None:
    if graphs.segmenter.state_names:
        assert onnx.load(graphs.key).graph.output
        return
    assert state_shapes(graphs.segmenter, *SIZE) == ()
    assert run(graphs.key, frame=random_frames(1, 0)) == {}
    frame = random_frames(1, 0)
    answers = [run(graphs.step, frame=frame, previous_frame=random_frames(1, seed)) for seed in (1, 2)]
    assert all((answers[0][name] == answers[1][name]).all() for name in RESULTS if name != "warp_residual")
    assert answers[0]["disagreement"] == [0]
    quarters = [
        F.interpolate(network_frames(random_frames(1, seed)), scale_factor=0.25, mode="bilinear") for seed in range(3)
    ]
    for answer, earlier in zip(answers, quarters[1:], strict=True):
        np.testing.assert_allclose(answer["warp_residual"], [float((quarters[0] - earlier).abs().mean())], rtol=1e-4)


def test_the_residual_is_none_where_the_flow_explains_the_motion() -> None:
    """A picture that moved by two quarter-resolution pixels to the right, seen with and without its flow."""
    coarse = torch.rand(1, 3, 16, 34, generator=torch.Generator().manual_seed(0))
    picture = F.interpolate(coarse, scale_factor=4.0)
    frame, previous = picture[..., :-8], picture[..., 8:]
    flow = torch.zeros(1, 2, 16, 32)
    flow[:, 0] = -2
    explained = warp_residual(frame, Motion(flow, previous))
    # All but the two columns that came into view, where the border is repeated.
    came = (coarse[..., :2] - coarse[..., 2:3]).abs().sum() / (3 * 16 * 32)
    torch.testing.assert_close(explained, came[None])
    assert explained < 0.1 * still_residual(frame, previous)
    torch.testing.assert_close(warp_residual(frame, Motion(torch.zeros_like(flow), frame)), torch.zeros(1))


@pytest.mark.parametrize("num_classes", [1, 2, 15])
def test_entropy_is_one_where_all_classes_are_equally_likely_and_none_where_one_is_certain(num_classes: int) -> None:
    flat = torch.full((2, num_classes, 4, 4), 1 / num_classes)
    certain = F.one_hot(torch.zeros(2, 4, 4, dtype=torch.long), num_classes).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(mean_entropy(flat), torch.full((2,), float(num_classes > 1)))
    torch.testing.assert_close(mean_entropy(certain), torch.zeros(2))
