import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.verify import Figures, LabelledVideo, VerificationError, Verifier
from serving.bundle import Bundle, BundleError, file_sha256, read_bundle, write_manifest
from serving.runtimes.onnx_runtime import OnnxRuntime
from tests.export.conftest import Exported
from training.data.world.dataset import World
from training.models.video_segmenter import VideoSegmenter

SPACE = World().label_space


def verify(network: VideoSegmenter, folder: Path, labelled: tuple[LabelledVideo, ...] = ()) -> Figures:
    """Of the first variant of a bundle."""
    bundle = read_bundle(folder)
    variant = bundle.manifest.variants[0]
    return Verifier(network, (variant.height, variant.width), SPACE, labelled).verify(bundle, variant)


def as_int8(bundle: Bundle, folder: Path) -> Path:
    """A copy of a bundle whose first variant is judged like integers, and nothing else is in it."""
    shutil.copytree(bundle.folder, folder)
    variant = bundle.manifest.variants[0].model_copy(update={"precision": "int8"})
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": (variant,)}))
    return folder


def segmenter(exported: Exported) -> VideoSegmenter:
    network = exported.run.networks()["segmenter"]
    assert isinstance(network, VideoSegmenter)
    return network


def spoilt(
    bundle: Bundle, graph: Literal["key", "step"], folder: Path, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Path:
    """A copy of a bundle with changed weights in one graph, whose hashes are right; of its first size alone."""
    shutil.copytree(bundle.folder, folder)
    variant = bundle.manifest.variants[0]
    file = getattr(variant, graph)
    model = onnx.load(folder / file.file)
    for weights in model.graph.initializer:
        if len(weights.dims) == 4:  # of a convolution
            weights.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(weights)), weights.name))
    onnx.save_model(model, folder / file.file)
    changed = file.model_copy(update={"sha256": file_sha256(folder / file.file)})
    variants = (variant.model_copy(update={graph: changed}),)
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": variants}))
    return folder


def test_a_bundle_answers_like_the_network_it_was_made_from(exported: Exported) -> None:
    figures = verify(segmenter(exported), exported.bundle.folder)
    assert figures["frames"] == 8
    assert str(figures["verified_on"]).endswith(OnnxRuntime("cpu").description)
    assert ("OpenVINO" in str(figures["verified_on"])) == (importlib.util.find_spec("openvino") is not None)
    assert isinstance(figures["label_agreement"], float)
    assert 0.9999 <= figures["label_agreement"] <= 1
    assert isinstance(figures["max_state_difference"], float)
    assert 0 <= figures["max_state_difference"] <= 1e-3
    assert (figures["max_state_difference"] > 0) == bool(segmenter(exported).state_names)


def test_a_bundle_made_from_other_weights_is_told(exported: Exported) -> None:
    other = segmenter(exported)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(
        VerificationError, match=r"does not answer like the network: \d+\.\d+ % of labels agree"
    ) as told:
        verify(other, exported.bundle.folder)
    assert isinstance(told.value.figures["label_agreement"], float)
    assert told.value.figures["label_agreement"] < 0.9999


def own_labels(network: VideoSegmenter, wrong_rows: int) -> tuple[LabelledVideo, ...]:
    """A clip whose labels are what the network says, but for some rows."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    inputs = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
    with torch.no_grad():
        labels = network(inputs).argmax(1)[0].numpy()
    labels[:wrong_rows] = (labels[:wrong_rows] + 1) % SPACE.num_classes
    return (LabelledVideo(frames, labels),)


# Of tests that write 8-bit graphs, which takes long: as for every form of bundle.
ON_ACCEL = pytest.mark.parametrize("exported", ["accel"], indirect=True)


@ON_ACCEL
def test_integers_are_judged_by_their_mean_iou_where_there_are_labels(exported: Exported, tmp_path: Path) -> None:
    network = segmenter(exported)
    folder = as_int8(exported.bundle, tmp_path / "bundle")
    figures = verify(network, folder, own_labels(network, wrong_rows=0))
    assert (figures["miou"], figures["miou_of_network"]) == (100, 100)
    figures = verify(network, folder, own_labels(network, wrong_rows=32))
    assert figures["miou"] == figures["miou_of_network"]
    assert isinstance(figures["miou"], float)
    assert 0 <= figures["miou"] < 100
    assert figures["labelled_clips"] == 1


@ON_ACCEL
def test_integers_that_lose_accuracy_are_told(exported: Exported, tmp_path: Path) -> None:
    network = segmenter(exported)
    folder = as_int8(exported.bundle, tmp_path / "bundle")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(VerificationError, match=r"loses accuracy: mIoU \d+\.\d\d %, the network has 100\.00 %"):
        verify(network, folder, own_labels(network, wrong_rows=0))


@ON_ACCEL
def test_integers_without_labels_to_judge_by_must_agree_with_the_network(exported: Exported, tmp_path: Path) -> None:
    network = segmenter(exported)
    folder = as_int8(exported.bundle, tmp_path / "bundle")
    assert "miou" not in verify(network, folder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(VerificationError, match=r"at least 99\.9 % should"):
        verify(network, folder)


@pytest.mark.parametrize("graph", ["key", "step"])
def test_a_graph_with_weights_that_are_no_numbers_is_told(
    exported: Exported, graph: Literal["key", "step"], tmp_path: Path
) -> None:
    if graph == "key" and not segmenter(exported).state_names:
        pytest.skip("its key graph has no weights")
    folder = spoilt(exported.bundle, graph, tmp_path / "spoilt", lambda weights: np.full_like(weights, np.nan))
    with pytest.raises(VerificationError):
        verify(segmenter(exported), folder)


def test_a_state_that_drifts_is_told(exported: Exported, tmp_path: Path) -> None:
    if not segmenter(exported).state_names:
        pytest.skip("it has no state")
    folder = spoilt(exported.bundle, "key", tmp_path / "spoilt", lambda weights: weights * np.float32(1.02))
    with pytest.raises(VerificationError, match=r"the state differs by [1-9]\.\de-0[123] \(at most 1e-03 may\)"):
        verify(segmenter(exported), folder)


def test_a_network_that_is_no_numbers_is_told(exported: Exported) -> None:
    # What is to be mended is the training, not the export.
    network = segmenter(exported)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(VerificationError, match="scores that are not finite"):
        verify(network, exported.bundle.folder)


def test_what_is_verified_is_what_a_server_would_load(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, folder)
    step = exported.bundle.manifest.variants[0].step
    with (folder / step.file).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="does not match the manifest's SHA-256"):
        verify(segmenter(exported), folder)
    shutil.copy(exported.bundle.path(step), folder / step.file)
    assert read_bundle(folder)
