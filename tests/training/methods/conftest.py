"""Small methods of every kind, random clips, and the part of the trainer's contract that methods rely on."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from training.data.clip import Clip, FlowClip, LabelledClip
from training.methods import METHODS
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method, Networks
from training.methods.optimization import Adam
from training.methods.stage import Stage, StagedMethod, StageOne, StageTwo
from training.methods.tpl import Tpl
from training.models.accel import AccelConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig

NUM_CLASSES = 4
FLOW_NET = FlowNetSConfig(width=1 / 4)
ADAM = Adam(learning_rate=1e-3)
STAGES: dict[str, Stage] = {
    "one": StageOne(PerFrameConfig(backbone="resnet10_slim"), optimizer=ADAM),
    "two": StageTwo(AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=FLOW_NET), optimizer=ADAM),
}
SMALL: dict[str, dict[str, Any]] = {  # Any: fields of many types; what keeps each method of the table small
    "supervised": {},
    "flow_supervision": {"flow_net": FLOW_NET, "optimizer": ADAM},
    "sfm_pretraining": {"flow_net": FLOW_NET, "optimizer": ADAM},
    "distortion_pretraining": {"segmenter": STAGES["one"].segmenter, "flow_net": FLOW_NET, "optimizer": ADAM},
    "sfc": {"teacher_flow": FLOW_NET},
    "advent": {"discriminator_width": 4},
    "da_vsn": {"discriminator_width": 4, "teacher_flow": FLOW_NET},
    "pixmatch": {"fourier_weight": 0.1, "cut_mix_weight": 0.1, "crop_size": 24},
    "tps": {"teacher_flow": FLOW_NET},
    "tpl": {"teacher_flow": FLOW_NET},  # around a small "sfc", if no other method is given
    "mean_teacher": {},
    "mixed_teacher": {},
    "flow_ratio_pretraining": {"teacher_flow": FLOW_NET, "width": 8},
    "flow_ratio_teacher": {"teacher_flow": FLOW_NET, "ratio_width": 8},
    "conditioned_sfm_pretraining": {"flow_net": FLOW_NET, "optimizer": ADAM},
    "conditioned_sfc": {"teacher_flow": FLOW_NET},
}

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


def stages_of(name: str) -> list[str]:
    """The stages that a method of the table trains in; "one" stands for any where it knows no stages."""
    return list(STAGES) if issubclass(METHODS[name], StagedMethod | Tpl) else ["one"]


@pytest.fixture
def small() -> Small:
    """Builds a method by its name in the table, with small networks and other hyperparameters as given."""

    def build(name: str, stage: str = "one", **hyperparameters: object) -> Method[Any]:
        assert name in SMALL, f"{name} is in METHODS: give it small networks here"
        options: dict[str, Any] = {**SMALL[name], **hyperparameters}  # Any: of many types
        if issubclass(METHODS[name], StagedMethod):
            of_stage = {field.name for field in fields(STAGES[stage])}
            changes = {key: options.pop(key) for key in of_stage & options.keys()}
            options["stage"] = replace(STAGES[stage], **changes)
        if METHODS[name] is Tpl:
            options.setdefault("method", build("sfc", stage))
        return METHODS[name](**options)

    return build


@pytest.fixture(params=[(name, stage) for name in METHODS for stage in stages_of(name)], ids="-".join)
def method(request: pytest.FixtureRequest, small: Small) -> Method[Any]:
    """Every method of the table, in each of its stages."""
    return small(*request.param)


@pytest.fixture
def train(source: LabelledClip, flow_source: FlowClip, target: Clip) -> Train:
    """Trains for some steps on one pair of batches, as the trainer does; returns the losses of each step."""

    def steps(method: Method[Any], networks: Networks, num_steps: int) -> list[dict[str, float]]:
        optimizers = method.optimizers(networks)
        for name, network in networks.items():
            if name not in optimizers:
                network.requires_grad_(False).eval()
        base_rates = {name: [group["lr"] for group in each.param_groups] for name, each in optimizers.items()}
        history: list[dict[str, float]] = []
        for step in range(num_steps):
            for name, optimizer in optimizers.items():
                networks[name].train()
                for group, base_rate in zip(optimizer.param_groups, base_rates[name], strict=True):
                    group["lr"] = base_rate * method.learning_rate_factor(step, num_steps)
            clip = flow_source if isinstance(method, FlowSupervision) else source
            history.append({})
            for update in method.updates(networks, clip, target):
                optimizers[update.network].zero_grad()
                trained = [each for each in networks[update.network].parameters() if each.requires_grad]
                torch.autograd.backward(torch.stack(list(update.losses.values())).sum(), inputs=trained)
                optimizers[update.network].step()
                history[-1] |= {name: loss.item() for name, loss in update.losses.items()}
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
