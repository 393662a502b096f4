import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.verify import VerificationError, verify
from serving.bundle import Bundle, BundleError, file_sha256, read_bundle, write_manifest
from training.models.video_segmenter import VideoSegmenter
from training.run_directory import Run

SIZES = ((64, 64), (64, 128))


class Exported(NamedTuple):
    run: Run
    bundle: Bundle


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
    figures = verify(segmenter(exported), exported.bundle.folder, SIZES)
    assert figures["frames"] == 8
    assert isinstance(figures["label_agreement"], float)
    assert 0.999 <= figures["label_agreement"] <= 1
    assert isinstance(figures["max_state_difference"], float)
    assert 0 <= figures["max_state_difference"] <= 1e-3
    assert (figures["max_state_difference"] > 0) == bool(segmenter(exported).state_names)


def test_a_bundle_made_from_other_weights_is_told(exported: Exported) -> None:
    other = segmenter(exported)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(VerificationError, match=r"do not answer like the network: \d+\.\d+ % of labels agree"):
        verify(other, exported.bundle.folder, SIZES[:1])


@pytest.mark.parametrize("graph", ["key", "step"])
def test_a_graph_with_weights_that_are_no_numbers_is_told(
    exported: Exported, graph: Literal["key", "step"], tmp_path: Path
) -> None:
    if graph == "key" and not segmenter(exported).state_names:
        pytest.skip("its key graph has no weights")
    folder = spoilt(exported.bundle, graph, tmp_path / "spoilt", lambda weights: np.full_like(weights, np.nan))
    with pytest.raises(VerificationError):
        verify(segmenter(exported), folder, SIZES[:1])


def test_a_state_that_drifts_is_told(exported: Exported, tmp_path: Path) -> None:
    if not segmenter(exported).state_names:
        pytest.skip("it has no state")
    folder = spoilt(exported.bundle, "key", tmp_path / "spoilt", lambda weights: weights * np.float32(1.02))
    with pytest.raises(VerificationError, match=r"the state differs by [1-9]\.\de-0[123] \(at most 1e-03 may\)"):
        verify(segmenter(exported), folder, SIZES[:1])


def test_a_network_that_is_no_numbers_is_told(exported: Exported) -> None:
    # What is to be mended is the training, not the export.
    network = segmenter(exported)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(VerificationError, match="scores that are not finite"):
        verify(network, exported.bundle.folder, SIZES[:1])


def test_what_is_verified_is_what_a_server_would_load(exported: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(exported.bundle.folder, folder)
    step = exported.bundle.manifest.variants[0].step
    with (folder / step.file).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="does not match the manifest's SHA-256"):
        verify(segmenter(exported), folder, SIZES[:1])
    shutil.copy(exported.bundle.path(step), folder / step.file)
    assert read_bundle(folder)
    with pytest.raises(BundleError, match="128x128"):
        verify(segmenter(exported), folder, ((128, 128),))
