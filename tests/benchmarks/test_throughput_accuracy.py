from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.throughput_accuracy import CLIP_FRAMES, LOOK, served_mean_iou, why_no_accuracy
from benchmarks.throughput_contestants import flowseg_server, started
from benchmarks.untrained_bundles import parse_architecture, untrained_bundle
from serving.bundle import Bundle, ClassInfo
from serving.engine import open_engine
from training.data.world.dataset import clip_seed
from training.data.world.render import render_clip
from training.label_spaces import VIPER_TO_CITYSCAPES
from training.metrics import confusion_matrix, mean_iou

SIZE = (64, 64)
INTERVAL = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    name, config = parse_architecture("resnet10_slim/resnet10_slim")
    return untrained_bundle(tmp_path_factory.mktemp("bundles"), name, config, SIZE, "fp32")


@pytest.mark.slow
def test_mean_iou_of_the_served_path_is_that_of_the_engine_on_the_same_clips(bundle: Bundle, tmp_path: Path) -> None:
    graphs = ("--precision", "fp32", "--runtime", "onnxruntime", "--threads", "1")
    server = flowseg_server(bundle.folder, tmp_path / "server.log", *graphs)
    with started(server, 60) as ready:
        served = served_mean_iou(f"{ready['host']}:{ready['port']}", SIZE, INTERVAL, num_clips=2)
    num_classes = VIPER_TO_CITYSCAPES.num_classes
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    with open_engine(bundle.folder, precision="fp32", runtime="onnxruntime", threads=1) as engine:
        for index in range(2):
            clip = render_clip(clip_seed(1, "val", index), LOOK, SIZE, CLIP_FRAMES)
            with engine.open_stream(key_frame_interval=INTERVAL) as stream:
                answers = np.stack([stream.submit(frame).result().labels for frame in clip.frames])
            truth = torch.from_numpy(clip.labels).long()
            confusion += confusion_matrix(truth, torch.from_numpy(answers).long(), num_classes)
    assert 0 < served < 100
    assert served == pytest.approx(mean_iou(confusion, VIPER_TO_CITYSCAPES.evaluated), abs=1e-9)


def test_a_bundle_without_meaning_on_the_world_has_no_accuracy(bundle: Bundle) -> None:
    assert why_no_accuracy(bundle) == "untrained"
    trained = bundle.manifest.model_copy(update={"provenance": {}})
    assert why_no_accuracy(Bundle(folder=bundle.folder, manifest=trained)) == ""
    cats = (ClassInfo(name="cat", color=(0, 0, 0)),)
    of_cats = trained.model_copy(update={"classes": cats})
    assert why_no_accuracy(Bundle(folder=bundle.folder, manifest=of_cats)) == "other classes than the world's"
