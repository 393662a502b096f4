"""One training step of SFC in two variants, on the same weights and the same frames of the procedural world.

"ours" is what the trainer runs: `Method.updates`, then backward, in channels-last memory. "official" is the
transcription in `official_step`, in PyTorch's usual memory layout. The optimizer's step, the same work for both, is
left out, and the gradients of the step before are gone when a step begins.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks import official_step
from training.acceleration import accelerate
from training.data.clip import IGNORE, Clip, LabelledClip
from training.data.world.dataset import World
from training.methods.losses import scaled_softmax
from training.methods.method import Networks
from training.methods.sfc import Sfc
from training.methods.stage import StageOne, StageTwo
from training.models.accel import Accel, AccelConfig
from training.models.deeplab import BackboneName
from training.models.flownet_s import FlowNetSConfig
from training.models.per_frame import PerFrameConfig
from training.models.video_segmenter import VideoSegmenter

Stage = Literal["one", "two"]
Variant = Literal["official", "ours"]
Precision = Literal["fp32", "bf16", "fp64"]
SEED = 0  # of weights and streets


@dataclass(frozen=True)
class StepConfig:
    """Which step, how large."""

    stage: Stage = "one"  # stage of SFC
    size: tuple[int, int] = (128, 256)  # height and width of the frames in pixels, multiples of 8
    backbone: BackboneName = "resnet101"  # residual network of every DeepLab
    flow_width: float = 1.0  # factor on the channels of flow networks and SFM
    classes: int = 15  # number of classes, 2 to 15
    # bf16 is automatic mixed precision, of all of "official" and of the backbones of "ours"; fp64 compares gradients
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        if min(self.size) < 64 or self.size[0] % 8 or self.size[1] % 8:
            raise ValueError(
                f"frames of {self.size[1]}x{self.size[0]} pixels do not work: use multiples of 8 from 64 up"
            )
        if not 2 <= self.classes <= World().label_space.num_classes:
            raise ValueError(f"classes is {self.classes}: choose 2 to {World().label_space.num_classes}")

    def method(self) -> Sfc:
        """The method with the paper's hyperparameters."""
        flow_net = FlowNetSConfig(width=self.flow_width)
        if self.stage == "one":
            return Sfc(StageOne(PerFrameConfig(backbone=self.backbone)), teacher_flow=flow_net, flow_weight=0.005)
        segmenter = AccelConfig(reference=self.backbone, update=self.backbone, flow_net=flow_net)
        return Sfc(StageTwo(segmenter), teacher_flow=flow_net, flow_weight=0.001)


class Step:
    """A variant's networks and inputs; `run` accumulates the gradients of one step."""

    def __init__(self, config: StepConfig, variant: Variant, device: torch.device) -> None:
        """Draws the weights, which depend on the configuration alone, and renders the frames."""
        self.variant = variant
        self.device = device
        self.method = config.method()
        self.precision = config.precision
        dtype = torch.float64 if config.precision == "fp64" else torch.float32
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            self.networks = self.method.networks(config.classes)
        if isinstance(accel := self.segmenter, Accel):  # one run of stage one serves both, as in the recipes
            accel.net_update.load_state_dict(accel.net_ref.state_dict())
        self.method.optimizers(self.networks)  # freezes what the method does not train
        _freeze_flow(self.networks)
        layout = torch.channels_last if variant == "ours" else torch.contiguous_format
        for network in self.networks.values():
            network.to(device, dtype, memory_format=layout)  # type: ignore[call-overload]  # torch's stubs miss it
        match variant:
            case "official":
                official_step.prepare(self.networks)
            case "ours" if config.precision == "bf16":
                accelerate(self.segmenter, "bf16", is_compiled=False)
        self.source, self.target = _clips(config, device, dtype)

    @property
    def segmenter(self) -> nn.Module:
        """The network that is trained."""
        return self.networks["segmenter"]

    def run(self) -> dict[str, Tensor]:
        """Forward and backward; returns the losses."""
        for network in self.networks.values():
            network.zero_grad()
        if self.variant == "ours":
            return self._ours()
        # Mixed precision is switched on around backward too, since the official order mixes both.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._official()

    def gradients(self) -> Iterator[Tensor]:
        """Those of the trained parameters after `run`."""
        for parameter in self.segmenter.parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None
                yield parameter.grad

    @torch.no_grad()
    def live_classes(self) -> list[int]:
        """Classes with any pixel in the target's predictions, per classifier: those the SFM has to look at."""
        network = copy.deepcopy(self.segmenter)
        assert isinstance(network, VideoSegmenter)
        scale = self.method.softmax_scale
        return [
            int(
                torch.cat([scaled_softmax(network.upsample(scores), scale) for scores in level])
                .amax((0, 2, 3))
                .count_nonzero()
            )
            for level in zip(*self.method.stage.levels_of_last_two(network, self.target.frames), strict=True)
        ]

    def _ours(self) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for update in self.method.updates(self.networks, self.source, self.target):
            torch.autograd.backward(torch.stack(list(update.losses.values())).sum())
            losses |= update.losses
        return {name: loss.detach() for name, loss in losses.items()}

    def _official(self) -> dict[str, Tensor]:
        if isinstance(self.method.stage, StageOne):
            return official_step.stage_one_step(self.method, self.networks, self.source, self.target)
        return official_step.stage_two_step(self.method, self.networks, self.source, self.target)


def _freeze_flow(networks: Networks) -> None:
    for name in ("teacher_flow", "sfm"):
        networks[name].requires_grad_(False).eval()


def _clips(config: StepConfig, device: torch.device, dtype: torch.dtype) -> tuple[LabelledClip, Clip]:
    source = World(look="source", size=config.size, num_clips=1, num_frames=2, seed=SEED).open()[0]
    target = World(look="mid", size=config.size, num_clips=1, num_frames=3, seed=SEED + 1).open()[0]
    frames, labels, quarter_labels = (tensor[None].to(device) for tensor in source)
    labels = labels.where(labels < config.classes, IGNORE)
    return LabelledClip(frames.to(dtype), labels, quarter_labels), Clip(target.frames[None].to(device, dtype))
