"""What the official SFC modules computed, and networks with the same seeded weights."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.data.clip import Clip, LabelledClip
from training.models import deeplab
from training.models.accel import Accel
from training.models.deeplab import DeepLab
from training.models.flownet_s import FlowNetS
from training.models.per_frame import PerFrame

NUM_CLASSES = 15
TRAINABLE_FLOW, TEACHER_FLOW, SFM, SEGNET, NET_REF = 11, 12, 13, 21, 22  # seeds
SEGNET_GAIN = 0.7

Reference = Callable[[str], dict[str, Tensor]]


class AssertEqual(Protocol):
    def __call__(self, actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None: ...


@pytest.fixture(scope="session")
def reference() -> Reference:
    """Reads one file of reference arrays."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(Path(__file__).parent / "official_f64" / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def assert_equal() -> AssertEqual:
    """Equality to 1e-9 of the largest magnitude, unless a test says why not."""

    def check(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
        expected = expected.reshape(actual.shape)
        torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=tolerance * float(expected.abs().max()))

    return check


@pytest.fixture(scope="session")
def frames(reference: Reference) -> Tensor:
    """The three frames that all but the smallest references were computed on: (1, 3, 3, 64, 128), RGB."""
    return reference("accel101")["flow_in"].transpose(1, 2).flip(2)


@pytest.fixture(autouse=True)
def official_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds the segmentation networks' input as the official loader does: in float32, from integer pixels."""

    def segmentation_input(frame: Tensor) -> Tensor:
        mean = torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(3, 1, 1)
        return ((255 * frame.flip(1)).round().float() - mean).to(frame.dtype)

    monkeypatch.setattr(deeplab, "segmentation_input", segmentation_input)


@pytest.fixture
def trainable_flow() -> FlowNetS:
    return _flow_net(TRAINABLE_FLOW)


@pytest.fixture
def teacher_flow() -> FlowNetS:
    return _flow_net(TEACHER_FLOW).requires_grad_(False)


@pytest.fixture
def sfm() -> FlowNetS:
    return _flow_net(SFM)


@pytest.fixture
def per_frame() -> PerFrame:
    """The network of stage one, in training mode."""
    return PerFrame(_segnet(SEGNET, auxiliary=True), NUM_CLASSES)


@pytest.fixture
def accel(trainable_flow: FlowNetS, reference: Reference) -> Accel:
    """The network of stage two, in training mode."""
    segmenter = Accel(
        _segnet(NET_REF, auxiliary=False), _segnet(SEGNET, auxiliary=False), trainable_flow, NUM_CLASSES, "random"
    ).double()
    arrays = reference("accel101")
    segmenter.merge.load_state_dict({"weight": arrays["merge_w"], "bias": arrays["merge_b"]})
    return segmenter


@pytest.fixture
def source(frames: Tensor, reference: Reference) -> LabelledClip:
    """The first two frames, the second with labels."""
    labels = reference("stage_one_source")["gt"]
    nothing = torch.full_like(labels, -1)
    return LabelledClip(frames[:, :2], torch.stack([nothing, labels], 1), labels[:, ::4, ::4])


@pytest.fixture
def target(frames: Tensor) -> Clip:
    return Clip(frames[:, :2])


def _flow_net(seed: int) -> FlowNetS:
    with torch.device("meta"):
        network = FlowNetS()
    _load(network, _seeded_state(FlowNetS, seed, gain=1.0))
    return network


def _segnet(seed: int, auxiliary: bool) -> DeepLab:
    with torch.device("meta"):
        network = DeepLab("resnet101", NUM_CLASSES, auxiliary)
    state = _seeded_state(_official_segnet, seed, SEGNET_GAIN)
    _load(network, {key: state[key] for key in network.state_dict()})
    return network


def _official_segnet() -> DeepLab:
    return DeepLab("resnet101", NUM_CLASSES, auxiliary=True)


def _load(network: nn.Module, state: dict[str, Tensor]) -> None:
    network.load_state_dict({key: value.clone() for key, value in state.items()}, assign=True)


@cache
def _seeded_state(build: Callable[[], nn.Module], seed: int, gain: float) -> dict[str, Tensor]:
    """The weights of the reference: drawn with one generator in the order of the sorted official names."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    generator = np.random.default_rng(seed)
    return {key: _draw(generator, key, shapes[key], gain) for key in sorted(shapes)}


def _draw(generator: np.random.Generator, key: str, shape: tuple[int, ...], gain: float) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if len(shape) == 4:
        values = generator.standard_normal(shape) * (gain * math.sqrt(2 / math.prod(shape[1:])))
    elif key.endswith(("running_var", "weight")):
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.standard_normal(shape) * (0.1 if "bn" in key or "running" in key else 0.05)
    return torch.from_numpy(values.astype(np.float32).astype(np.float64))
