"""Small networks, their graphs, runs of two steps, and bundles made from those by the command."""

import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import nn

from export.graphs import key_graph, step_graph
from export.to_onnx import main
from serving.bundle import Bundle, read_bundle
from training.command_line import Machine
from training.data.world.dataset import World, WorldFlow
from training.methods.flow_supervision import FlowSupervision
from training.methods.method import Method
from training.methods.optimization import Adam
from training.methods.stage import StageOne, StageTwo
from training.methods.supervised import Supervised
from training.models import SEGMENTERS
from training.models.accel import AccelConfig
from training.models.da_vss import DaVssConfig
from training.models.deeplab import Classifier
from training.models.dff import DffConfig
from training.models.flownet_s import FlowNetSConfig
from training.models.optical_flow import FlowNet
from training.models.per_frame import PerFrameConfig
from training.models.shared_accel import SharedAccel, SharedAccelConfig
from training.models.video_segmenter import SegmenterConfig, VideoSegmenter
from training.recipe import Recipe
from training.run_directory import Run
from training.trainer import train
from training.validation import FlowValidation, SegmentationValidation, Validation

SIZE = (64, 128)  # of the graphs
SMALL_FLOW_NET = FlowNetSConfig(width=0.25)
SMALL_PER_FRAME = PerFrameConfig(backbone="resnet10_slim")
SMALL_ACCEL = AccelConfig(reference="resnet10_slim", update="resnet10_slim", flow_net=SMALL_FLOW_NET)
SMALL_DFF = DffConfig(reference="resnet10_slim", flow_net=SMALL_FLOW_NET)
SMALL_DA_VSS = DaVssConfig(reference="resnet10_slim", flow_net=SMALL_FLOW_NET, correction_width=0.25)
SMALL_SHARED_ACCEL = SharedAccelConfig(backbone="resnet10_slim", flow_net=SMALL_FLOW_NET)
SMALL: dict[str, SegmenterConfig] = {
    "per_frame": SMALL_PER_FRAME,
    "accel": SMALL_ACCEL,
    "dff": SMALL_DFF,
    "da_vss": SMALL_DA_VSS,
    "shared_accel": SMALL_SHARED_ACCEL,
}
# Of bundles: without a state, with one that every step renews, with one that lasts until the next key frame.
FORMS = ("per_frame", "accel", "dff")
SMALL_METHODS: dict[str, Method] = {  # type: ignore[type-arg]  # of labelled clips or of clips with flow
    "per_frame": Supervised(StageOne(SMALL_PER_FRAME, optimizer=Adam(learning_rate=1e-3))),
    "accel": Supervised(StageTwo(SMALL_ACCEL, optimizer=Adam(learning_rate=1e-3))),
    "dff": Supervised(StageTwo(SMALL_DFF, optimizer=Adam(learning_rate=1e-3))),
    "da_vss": Supervised(StageTwo(SMALL_DA_VSS, optimizer=Adam(learning_rate=1e-3))),
    # in two steps it must learn enough that classes do not tie in half precision
    "shared_accel": Supervised(StageTwo(SMALL_SHARED_ACCEL, optimizer=Adam(learning_rate=1e-2))),
    "flow": FlowSupervision(flow_net=SMALL_FLOW_NET),
}
WORLD = World(size=(64, 64), num_clips=2)
WORLD_FLOW = WorldFlow(size=(64, 64), num_clips=2)


class Graphs(NamedTuple):
    """A network and the files of its graphs."""

    segmenter: VideoSegmenter
    key: Path
    step: Path


MakeGraphs = Callable[[VideoSegmenter, tuple[int, int]], Graphs]


@pytest.fixture(scope="session")
def make_graphs(tmp_path_factory: pytest.TempPathFactory) -> MakeGraphs:
    def make(segmenter: VideoSegmenter, size: tuple[int, int]) -> Graphs:
        folder = tmp_path_factory.mktemp("graphs")
        made = Graphs(segmenter, folder / "key.onnx", folder / "step.onnx")
        onnx.save_model(key_graph(segmenter.folded(), *size), made.key)
        onnx.save_model(step_graph(segmenter.folded(), *size), made.step)
        return made

    return make


@pytest.fixture(scope="session")
def graphs_of(make_graphs: MakeGraphs) -> Callable[[str], Graphs]:
    """Graphs of networks, by name, whose answers vary over the image, with flows of about a pixel. Made once each."""
    return functools.cache(lambda name: make_graphs(varied(SMALL[name]), SIZE))


def varied(config: SegmenterConfig) -> VideoSegmenter:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        segmenter = config.build(num_classes=15)
        for module in segmenter.modules():
            if isinstance(module, FlowNet | Classifier):
                for parameter in module.parameters():
                    nn.init.normal_(parameter, std=0.05 if isinstance(module, FlowNet) else 1.0)
            if isinstance(module, SharedAccel):
                nn.init.normal_(module.sf_layer.weight)  # or nothing of the past is seen
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics become those of the frames forwarded last
        segmenter.train()(torch.rand(4, 2, 3, *SIZE))
        return segmenter.eval()


@pytest.fixture(scope="session", params=SEGMENTERS)
def graphs(request: pytest.FixtureRequest, graphs_of: Callable[[str], Graphs]) -> Graphs:
    """Of every segmenter."""
    return graphs_of(request.param)


@pytest.fixture(scope="session", params=FORMS)
def form_graphs(request: pytest.FixtureRequest, graphs_of: Callable[[str], Graphs]) -> Graphs:
    """Of a segmenter of every form."""
    return graphs_of(request.param)


def train_small(name: str, folder: Path) -> Run:
    validation: Validation = FlowValidation(data=WORLD_FLOW) if name == "flow" else SegmentationValidation(data=WORLD)
    recipe = Recipe(
        method=SMALL_METHODS[name],
        source=WORLD_FLOW if name == "flow" else WORLD,
        target=WORLD,
        validation=validation,
        steps=2,
        source_batch=2,
        keep_best=False,
    )

    def no_prerequisites(name: str) -> Run:
        raise AssertionError(f"nothing starts from {name}")

    return train(name, recipe, folder, no_prerequisites, Machine("cpu"))


@pytest.fixture(scope="session")
def flow_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run without a segmenter."""
    return train_small("flow", tmp_path_factory.mktemp("runs") / "flow")


@pytest.fixture(scope="session")
def per_frame_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_small("per_frame", tmp_path_factory.mktemp("runs") / "per_frame")


@pytest.fixture
def own_run(per_frame_run: Run, tmp_path: Path) -> Run:
    """A copy of a run, to be changed."""
    folder = tmp_path / "own"
    shutil.copytree(per_frame_run.folder, folder)
    return Run(folder, per_frame_run.name, per_frame_run.recipe, per_frame_run.provenance)


class Exported(NamedTuple):
    """A run and the bundle made from it, for frames of 64x64 and of 64x128 pixels."""

    run: Run
    bundle: Bundle


@pytest.fixture(scope="session", params=FORMS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    run = train_small(request.param, folder / "run")
    arguments = ["to_onnx.py", str(run.folder), "--out", str(folder / "bundle"), "--name", "street", "--version", "2.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*arguments, "--size", "64x64", "--size", "64x128", "--size", "64x64"])
        main()
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "run"]
    return Exported(run, read_bundle(folder / "bundle"))


def call(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Runs a command."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    main()


def sentence_of(
    main: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: object,
) -> str:
    """The one with which a command refuses what a user got wrong."""
    with pytest.raises(SystemExit) as stopped:
        call(main, monkeypatch, *arguments)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")
