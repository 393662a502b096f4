"""RAFT in a graph: all that the flow network of a segmenter needs of an exporter that the others do not."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from export.graphs import step_graph
from export.quantization import sensitive_weights
from serving.bundle import NEXT
from training.models.raft import Raft, RaftConfig
from training.models.video_segmenter import KeyState, Propagation, VideoSegmenter
from training.models.warping import warp

SIZE = (64, 128)


class Carried(VideoSegmenter):
    """Carries the colours of the key frame along RAFT's flow."""

    num_classes = 3
    stride = 4
    state_names = ("colours",)

    def __init__(self, raft: Raft) -> None:
        super().__init__()
        self.raft = raft

    def encode_key(self, frame: torch.Tensor) -> KeyState:
        return (F.avg_pool2d(frame, 4),)

    def propagate(self, state: KeyState, previous: torch.Tensor, frame: torch.Tensor) -> Propagation:
        colours = warp(state[0], self.raft(frame, previous))
        return Propagation(colours, (colours,), colours, None)


@pytest.fixture(scope="module")
def segmenter() -> Carried:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        segmenter = Carried(RaftConfig(iterations=2, width=0.125).build())
        segmenter.raft.update_block.get_parameter("flow_head.conv2.weight").mul_(50)  # flows of some pixels
    return segmenter.eval()


@pytest.fixture(scope="module")
def session(segmenter: Carried) -> onnxruntime.InferenceSession:
    model = step_graph(segmenter, *SIZE)
    weights = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:2]}
    kept = {name for name in sensitive_weights(segmenter) if name.endswith(".weight")}
    assert {f"segmenter.{name}" for name in kept} <= weights  # no folding has renamed them
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_graph_of_raft_answers_like_torch_for_any_batch(
    batch: int, segmenter: Carried, session: onnxruntime.InferenceSession
) -> None:
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand(2, batch, 3, 8, 16, generator=generator)
    inputs = torch.stack([F.interpolate(frames, size=SIZE, mode="bilinear") for frames in coarse])
    frames = (255 * inputs).round().byte()
    current, previous = frames.float() / 255
    with torch.no_grad():
        state = segmenter.encode_key(previous)
        (expected,) = segmenter.propagate(state, previous, current).state
        assert float(segmenter.raft(current, previous).abs().mean()) > 1
    as_cameras_give = frames.permute(0, 1, 3, 4, 2).contiguous().numpy()
    (found,) = session.run(
        [NEXT + "colours"],
        {"frame": as_cameras_give[0], "previous_frame": as_cameras_give[1], "colours": state[0].numpy()},
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
