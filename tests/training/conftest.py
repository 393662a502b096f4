import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.command_line import Machine
from training.data.clip import Clip, LabelledClip
from training.data.world.dataset import World, WorldFlow
from training.methods.method import Method, Networks, Update
from training.methods.optimization import Adam
from training.methods.stage import StageOne
from training.methods.supervised import Supervised
from training.models.per_frame import PerFrameConfig
from training.recipe import Recipe
from training.run_directory import Run
from training.trainer import train
from training.validation import SegmentationValidation

TINY = World(look="source", size=(64, 64), num_clips=4, num_frames=2)
TINY_FLOW = WorldFlow(look="source", size=(64, 64), num_clips=2)

Train = Callable[..., Run]
CrashAfter = Callable[..., contextlib.AbstractContextManager[None]]


def no_prerequisites(name: str) -> Run:
    raise AssertionError(f"nothing starts from {name}")


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Seconds of training: a slim network on four clips."""
    return Recipe(
        method=Supervised(
            StageOne(PerFrameConfig(backbone="resnet10_slim"), optimizer=Adam(learning_rate=1e-3)), forward_target=True
        ),
        source=TINY,
        target=replace(TINY, look="mid", num_frames=3),
        validation=SegmentationValidation(data=replace(TINY, look="mid", split="val", num_clips=2)),
        steps=4,
        source_batch=2,
        validate_every=2,
        keep_best=False,
    )


@pytest.fixture
def train_tiny(tiny_recipe: Recipe, tmp_path: Path) -> Train:
    """Trains the tiny recipe, with some of its fields changed."""

    def train_it(folder: str = "run", resume: bool = False, **changes: object) -> Run:
        recipe = replace(tiny_recipe, **changes)  # type: ignore[arg-type]  # fields by name
        return train("tiny", recipe, tmp_path / folder, no_prerequisites, Machine("cpu"), resume)

    return train_it


@dataclass(frozen=True)
class OfficialStates:
    """State dicts with the names and shapes of the released checkpoints, written out, with random values."""

    generator: torch.Generator

    def deeplab(self, auxiliary: bool = True, counters: bool = True, classes: int = 15) -> dict[str, Tensor]:
        """Of a slim residual network, to be quick."""
        shapes = self._stem(24, counters)
        channels = 24
        for layer, width in enumerate((24, 48, 96, 96), start=1):
            block = f"layer{layer}.0"
            shapes |= {f"{block}.conv1.weight": (width, channels, 3, 3), f"{block}.conv2.weight": (width, width, 3, 3)}
            shapes |= self._norm(f"{block}.bn1", width, counters) | self._norm(f"{block}.bn2", width, counters)
            if layer in (2, 3):  # where width or resolution change
                shapes |= {f"{block}.downsample.0.weight": (width, channels, 1, 1)}
                shapes |= self._norm(f"{block}.downsample.1", width, counters)
            channels = width
        if auxiliary:
            shapes |= self._classifier("layer5", 96, classes)
        return self._draw(shapes | self._classifier("layer6", 96, classes))

    def initialisation(self) -> dict[str, Tensor]:
        """Of DeepLab_resnet_pretrained_init: ResNet-101, a classifier of COCO's classes called layer5, no counters."""
        shapes = self._stem(64, counters=False)
        channels = 64
        for layer, (depth, width) in enumerate(zip((3, 4, 23, 3), (64, 128, 256, 512), strict=True), start=1):
            for index in range(depth):
                block = f"layer{layer}.{index}"
                sizes = ((width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
                for number, size in enumerate(sizes, start=1):
                    shapes |= {
                        f"{block}.conv{number}.weight": size,
                        **self._norm(f"{block}.bn{number}", size[0], False),
                    }
                if index == 0:
                    shapes |= {f"{block}.downsample.0.weight": (4 * width, channels, 1, 1)}
                    shapes |= self._norm(f"{block}.downsample.1", 4 * width, False)
                channels = 4 * width
        shapes |= self._classifier("layer5", 2048, 21)
        return {f"Scale.{name}": value for name, value in self._draw(shapes).items()}

    def flow_net(self) -> dict[str, Tensor]:
        """Of the Flying Chairs file: the thin FlowNetS."""
        convolutions = {
            "conv1.0": (24, 6, 7, 7), "conv2.0": (48, 24, 5, 5), "conv3.0": (96, 48, 5, 5), "conv3_1.0": (96, 96, 3, 3),
            "conv4.0": (192, 96, 3, 3), "conv4_1.0": (192, 192, 3, 3), "conv5.0": (192, 192, 3, 3),
            "conv5_1.0": (192, 192, 3, 3), "conv6.0": (384, 192, 3, 3), "conv6_1.0": (384, 384, 3, 3),
            "predict_flow6": (2, 384, 3, 3), "predict_flow5": (2, 386, 3, 3), "predict_flow4": (2, 290, 3, 3),
            "predict_flow3": (2, 146, 3, 3), "predict_flow2": (2, 74, 3, 3),
        }  # fmt: skip
        deconvolutions = {
            "deconv5.0": (384, 192), "deconv4.0": (386, 96), "deconv3.0": (290, 48), "deconv2.0": (146, 24),
            "upsample_flow6to5": (2, 2), "upsample_flow5to4": (2, 2), "upsample_flow4to3": (2, 2),
            "upsample_flow3to2": (2, 2),
        }  # fmt: skip
        shapes: dict[str, tuple[int, ...]] = {}
        for name, size in convolutions.items():
            shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
        for name, channels in deconvolutions.items():
            shapes |= {f"{name}.weight": (*channels, 4, 4), f"{name}.bias": channels[1:]}
        return self._draw(shapes)

    def raft(self) -> dict[str, Tensor]:
        """Of raft-things, without the "module." of each name."""
        shapes: dict[str, tuple[int, ...]] = {}
        for encoder in ("fnet", "cnet"):
            convolutions = {
                "conv1": (64, 3, 7, 7), "conv2": (256, 128, 1, 1),
                "layer1.0.conv1": (64, 64, 3, 3), "layer1.0.conv2": (64, 64, 3, 3),
                "layer1.1.conv1": (64, 64, 3, 3), "layer1.1.conv2": (64, 64, 3, 3),
                "layer2.0.conv1": (96, 64, 3, 3), "layer2.0.conv2": (96, 96, 3, 3),
                "layer2.0.downsample.0": (96, 64, 1, 1),
                "layer2.1.conv1": (96, 96, 3, 3), "layer2.1.conv2": (96, 96, 3, 3),
                "layer3.0.conv1": (128, 96, 3, 3), "layer3.0.conv2": (128, 128, 3, 3),
                "layer3.0.downsample.0": (128, 96, 1, 1),
                "layer3.1.conv1": (128, 128, 3, 3), "layer3.1.conv2": (128, 128, 3, 3),
            }  # fmt: skip
            for name, size in convolutions.items():
                shapes |= {f"{encoder}.{name}.weight": size, f"{encoder}.{name}.bias": size[:1]}
        shapes |= self._norm("cnet.norm1", 64, counters=True)
        for layer, width in ((1, 64), (2, 96), (3, 128)):
            for norm in ("0.norm1", "0.norm2", "1.norm1", "1.norm2", *(("0.norm3",) if layer > 1 else ())):
                shapes |= self._norm(f"cnet.layer{layer}.{norm}", width, counters=True)
        convolutions = {
            "encoder.convc1": (256, 324, 1, 1), "encoder.convc2": (192, 256, 3, 3), "encoder.convf1": (128, 2, 7, 7),
            "encoder.convf2": (64, 128, 3, 3), "encoder.conv": (126, 256, 3, 3),
            "gru.convz1": (128, 384, 1, 5), "gru.convr1": (128, 384, 1, 5), "gru.convq1": (128, 384, 1, 5),
            "gru.convz2": (128, 384, 5, 1), "gru.convr2": (128, 384, 5, 1), "gru.convq2": (128, 384, 5, 1),
            "flow_head.conv1": (256, 128, 3, 3), "flow_head.conv2": (2, 256, 3, 3),
            "mask.0": (256, 128, 3, 3), "mask.2": (576, 256, 1, 1),
        }  # fmt: skip
        for name, size in convolutions.items():
            shapes |= {f"update_block.{name}.weight": size, f"update_block.{name}.bias": size[:1]}
        state = self._draw(shapes)
        twice = {name.replace("norm3", "downsample.1"): value for name, value in state.items() if ".norm3." in name}
        return state | twice  # one layer under two names

    def accel(self, classes: int = 15) -> dict[str, Tensor]:
        """Of Accel, as SFC saves it."""
        parts = {
            "net_ref": self.deeplab(auxiliary=False, classes=classes),
            "net_update": self.deeplab(auxiliary=False, classes=classes),
            "merge": self._draw({"weight": (classes, 2 * classes, 1, 1), "bias": (classes,)}),
            "flownet": self.flow_net(),
        }
        return {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def shared_accel(self, counters: bool = True, classes: int = 15) -> dict[str, Tensor]:
        """Of DA-VSN and of TPS: a DeepLab with both classifiers, and what fuses two frames; no flow network."""
        fusion = self._draw({"sf_layer.weight": (classes, 2 * classes, 1, 1)})
        return self.deeplab(counters=counters, classes=classes) | fusion

    def sfc(self) -> dict[str, Tensor]:
        """Of SFC's class of stage two."""
        teacher = {f"flownet_global.{name}": value for name, value in self.flow_net().items()}
        return self.accel() | teacher | {f"SFM.{name}": value for name, value in self.flow_net().items()}

    def _draw(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        return {
            name: torch.rand(shape, generator=self.generator) if shape else torch.tensor(7)
            for name, shape in shapes.items()
        }

    def _stem(self, channels: int, counters: bool) -> dict[str, tuple[int, ...]]:
        return {"conv1.weight": (channels, 3, 7, 7), **self._norm("bn1", channels, counters)}

    def _norm(self, name: str, channels: int, counters: bool) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
        }
        return shapes | ({f"{name}.num_batches_tracked": ()} if counters else {})

    def _classifier(self, name: str, channels: int, classes: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for index in range(4):
            start = f"{name}.conv2d_list.{index}"
            shapes |= {f"{start}.weight": (classes, channels, 3, 3), f"{start}.bias": (classes,)}
        return shapes


@pytest.fixture
def official() -> Callable[..., dict[str, Tensor]]:
    """Makes the state dict of one checkpoint, by the name of the method above that does."""
    states = OfficialStates(torch.Generator().manual_seed(0))

    def make(name: str, **options: object) -> dict[str, Tensor]:
        state: dict[str, Tensor] = getattr(states, name)(**options)
        return state

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint file, in the format of torch before or since 1.6."""

    def write(document: object, is_zip: bool = True) -> Path:
        path = tmp_path / "official.pth"
        torch.save(document, path, _use_new_zipfile_serialization=is_zip)
        return path

    return write


@pytest.fixture
def crash_after(monkeypatch: pytest.MonkeyPatch) -> CrashAfter:
    """Ends trainings, supervised if no method is named, in this `with` block by KeyboardInterrupt after some steps."""

    @contextlib.contextmanager
    def crash(num_steps: int, kind: type[Method[Any]] = Supervised) -> Iterator[None]:
        real_updates, steps_left = kind.updates, num_steps

        def crashing(method: Method[Any], networks: Networks, source: LabelledClip, target: Clip) -> Iterator[Update]:
            nonlocal steps_left
            if steps_left == 0:
                raise KeyboardInterrupt
            steps_left -= 1
            yield from real_updates(method, networks, source, target)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "updates", crashing)
            with pytest.raises(KeyboardInterrupt):
                yield

    return crash
