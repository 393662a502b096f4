"""Small methods of every kind, random clips, and the part of the trainer's contract that methods rely on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from training.data.clip import Clip, FlowClip, LabelledClip
from training.methods.distortion_pretraining import DistortionPretraining
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method, Networks
from training.methods.optimization import Adam
from training.methods.sfc import SfcStageOne, SfcStageTwo
from training.methods.sfm_pretraining import SfmPretraining
from training.methods.supervised import SupervisedStageOne, SupervisedStageTwo
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig

NUM_CLASSES = 4
STAGE_ONE = PerFrameConfig(backbone="resnet10_slim")
FLOW_NET = FlowNetSConfig(width=1 / 4)
STAGE_TWO = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FLOW_NET)

Small = Callable[..., Method[Any]]  # Any: methods of either source
Prepare = Callable[[Method[Any]], Networks]
Train = Callable[[Method[Any], Networks, int], list[dict[str, float]]]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def source() -> LabelledClip:
    """Two clips of two frames whose classes are visible: the red channel names them."""
    labels = torch.randint(0, NUM_CLASSES, (2, 2, 4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    frames = torch.rand(2, 2, 3, 32, 32) / 4
    frames[:, :, 0] += labels / NUM_CLASSES
    labels[:, :, :4, :4] = -1
    return LabelledClip(frames, labels, labels[:, -1, ::4, ::4])


@pytest.fixture
def flow_source(source: LabelledClip) -> FlowClip:
    """The same frames with one flow everywhere, (4, -8) pixels."""
    flow = torch.tensor([4.0, -8.0]).view(1, 2, 1, 1).expand(2, 2, 32, 32)
    return FlowClip(source.frames, flow, torch.ones(2, 32, 32, dtype=torch.bool))


@pytest.fixture
def target() -> Clip:
    """A clip of three frames."""
    return Clip(torch.rand(1, 3, 3, 32, 32))


@pytest.fixture
def small() -> Small:
    """Builds a method by its name in the table, with small networks and other hyperparameters as given."""

    def build(name: str, **hyperparameters: object) -> Method[Any]:
        options: dict[str, Any] = {"optimizer": Adam(learning_rate=1e-3), **hyperparameters}  # Any: of many types
        match name:
            case "supervised_stage_one":
                return SupervisedStageOne(segmenter=STAGE_ONE, **options)
            case "supervised_stage_two":
                return SupervisedStageTwo(segmenter=STAGE_TWO, **options)
            case "flow_supervision":
                return FlowSupervision(flow_net=FLOW_NET, **options)
            case "sfm_pretraining":
                return SfmPretraining(flow_net=FLOW_NET, **options)
            case "distortion_pretraining":
                return DistortionPretraining(segmenter=STAGE_ONE, flow_net=FLOW_NET, **options)
            case "sfc_stage_one":
                return SfcStageOne(segmenter=STAGE_ONE, teacher_flow=FLOW_NET, **options)
            case "sfc_stage_two":
                return SfcStageTwo(segmenter=STAGE_TWO, teacher_flow=FLOW_NET, **options)
        raise AssertionError(f"{name} is in METHODS: give it small networks here")

    return build


@pytest.fixture
def train(source: LabelledClip, flow_source: FlowClip, target: Clip) -> Train:
    """Trains for some steps on one pair of batches, as the trainer does; returns the losses of each step."""

    def steps(method: Method[Any], networks: Networks, num_steps: int) -> list[dict[str, float]]:
        optimizers = method.optimizers(networks)
        for name, network in networks.items():
            if name not in optimizers:
                network.requires_grad_(False).eval()
        base_rates = {name: [group["lr"] for group in each.param_groups] for name, each in optimizers.items()}
        history = []
        for step in range(num_steps):
            for name, optimizer in optimizers.items():
                networks[name].train()
                for group, base_rate in zip(optimizer.param_groups, base_rates[name], strict=True):
                    group["lr"] = base_rate * method.learning_rate_factor(step, num_steps)
            clip = flow_source if isinstance(method, FlowSupervision) else source
            for update in method.updates(networks, clip, target):
                optimizers[update.network].zero_grad()
                torch.autograd.backward(torch.stack(list(update.losses.values())).sum())
                optimizers[update.network].step()
                history.append({name: loss.item() for name, loss in update.losses.items()})
        return history

    return steps


@pytest.fixture
def snapshot() -> Callable[[Networks], dict[str, Tensor]]:
    """All tensors of networks by name, copied."""

    def copy(networks: Networks) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value.clone()
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }

    return copy
