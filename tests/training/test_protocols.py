from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from training.data import CityscapesSeq, SynthiaSeq, World, WorldFlow
from training.data.synthia_seq import synthia_train_ids
from training.data.world.layouts import Videos, write_layout
from training.label_spaces import VIPER_TO_CITYSCAPES
from training.models.video_segmenter import KeyState, Propagation, VideoSegmenter
from training.protocols import (
    PROTOCOLS,
    confusion_of,
    enlarge_by_pixel_areas,
    enlarge_by_pixel_centers,
    evaluate_clips,
    open_labelled,
)

CPU = torch.device("cpu")
WORLD = World(size=(64, 64), num_clips=2)
NATIVE = (64, 128)  # of the files
NETWORK = (32, 64)  # of the frames that the network sees


class Painter(VideoSegmenter):
    """Gives every frame a class of its own choice, whatever it shows."""

    num_classes = 15
    stride = 1
    state_names = ()

    def __init__(self, paint: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.paint = paint  # frames (B, 3, H, W) to classes (B, H, W)

    def encode_key(self, frame: Tensor) -> KeyState:
        return ()

    def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
        scores = nn.functional.one_hot(self.paint(frame), self.num_classes).permute(0, 3, 1, 2).float()
        return Propagation(scores, (), scores, None)


def constant(frame: Tensor) -> Tensor:
    return torch.full_like(frame[:, 0], 4).long()


def consistency(paint: Callable[[Tensor], Tensor]) -> float:
    return evaluate_clips(Painter(paint), open_labelled(WORLD), ("sfc",), CPU).temporal_consistency


def test_a_constant_answer_is_perfectly_consistent() -> None:
    assert consistency(constant) == 100.0


def test_an_answer_that_always_changes_has_no_consistency() -> None:
    num_calls = iter(range(100))

    def alternating(frame: Tensor) -> Tensor:
        return torch.full_like(frame[:, 0], next(num_calls) % 2).long()

    assert consistency(alternating) == 0.0  # each frame of a pair is propagated once


def test_labels_that_move_with_the_scene_are_more_consistent_than_noise() -> None:
    def brightness(frame: Tensor) -> Tensor:
        return (2.99 * frame.mean(1)).long()

    def noise(frame: Tensor) -> Tensor:
        return torch.randint_like(frame[:, 0], 3).long()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        moving, flickering = consistency(brightness), consistency(noise)
    assert moving > 80
    assert 25 < flickering < 42  # a third agrees by chance


def test_scores_are_enlarged_between_the_middles_of_the_corner_pixels_in_advent() -> None:
    scores = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
    expected = [[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0], [4.0, 5.0, 6.0, 7.0], [6.0, 7.0, 8.0, 9.0]]
    assert torch.allclose(enlarge_by_pixel_centers(scores, (4, 4))[0, 0], torch.tensor(expected))
    assert PROTOCOLS["advent"].enlarge is enlarge_by_pixel_centers


def test_scores_are_enlarged_between_outlines_in_sfc_as_the_network_does() -> None:
    scores = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    first = [0.0, 1.0, 3.0, 4.0]  # quarters of the way between pixels, constant beyond the outer middles
    expected = [first, [value + 2 for value in first], [value + 6 for value in first], [value + 8 for value in first]]
    assert torch.equal(enlarge_by_pixel_areas(scores, (4, 4))[0, 0], torch.tensor(expected))
    random = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    segmenter = Painter(constant)
    segmenter.stride = 4
    assert torch.equal(enlarge_by_pixel_areas(random, (24, 32)), segmenter.upsample(random))
    assert PROTOCOLS["sfc"].enlarge is enlarge_by_pixel_areas


def test_the_protocols_disagree_about_a_pixel_where_their_enlargements_do() -> None:
    # Of the way between two scores, pixel x of 6 has gone (x + 0.5) / 3 - 0.5 in pixel areas, 2 / 3 at x = 3; between
    # pixel centers it has gone x / 5, 3 / 5 at x = 3. Class 1 leads from 0.65 of the way on.
    difference = torch.tensor([-0.65, 0.35])
    scores = torch.stack([torch.zeros(2), difference]).view(1, 2, 1, 2)
    labels = torch.zeros(1, 6, dtype=torch.int64)
    assert confusion_of(PROTOCOLS["sfc"], scores, labels).tolist() == [[3, 3], [0, 0]]
    assert confusion_of(PROTOCOLS["advent"], scores, labels).tolist() == [[4, 2], [0, 0]]


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "cityscapes"
    for _ in write_layout(root, "cityscapes", [Videos(1, NATIVE, "source", "val", 0)]):
        pass
    return root


def test_labels_are_used_as_stored_in_advent_and_resized_in_sfc(cityscapes: Path) -> None:
    data = CityscapesSeq(root=cityscapes, split="val", size=NETWORK, num_frames=2)
    evaluation = evaluate_clips(Painter(constant), open_labelled(data), ("sfc", "advent"), CPU)
    (path,) = (cityscapes / "gtFine/val").glob("*/*_labelIds.png")
    with Image.open(path) as image:
        stored = VIPER_TO_CITYSCAPES.to_train_ids(np.array(image), "cityscapes")
        smaller = image.resize((NETWORK[1], NETWORK[0]), Image.Resampling.NEAREST)
    resized = VIPER_TO_CITYSCAPES.to_train_ids(np.array(smaller), "cityscapes")
    assert stored.shape == NATIVE
    for protocol, labels in (("advent", stored), ("sfc", resized)):
        expected = torch.zeros(15, 15, dtype=torch.int64)
        expected[:, 4] = torch.from_numpy(np.bincount(labels[labels >= 0], minlength=15))
        assert torch.equal(evaluation.confusions[protocol], expected)
    assert evaluation.num_clips == 1


def test_stored_labels_of_synthia_lack_the_rows_that_frames_lack(tmp_path: Path) -> None:
    for _ in write_layout(tmp_path / "synthia", "synthia", [Videos(1, (76, 64), "source", "val", 0)]):
        pass
    dataset = open_labelled(SynthiaSeq(root=tmp_path / "synthia", size=(32, 32)))
    labels = dataset.native_labels(0)
    assert labels.shape == (64, 64)
    same_size = open_labelled(SynthiaSeq(root=tmp_path / "synthia", size=(64, 64)))
    assert torch.equal(labels, same_size[0].labels[-1])
    assert synthia_train_ids(np.array([[3]])).tolist() == [[0]]


def test_the_world_is_stored_at_the_size_of_its_frames() -> None:
    dataset = open_labelled(WORLD)
    assert torch.equal(dataset.native_labels(1), dataset[1].labels[-1])


def test_a_file_that_is_no_image_is_named(cityscapes: Path, tmp_path: Path) -> None:
    dataset = open_labelled(CityscapesSeq(root=cityscapes, split="val", size=NETWORK, num_frames=2))
    (path,) = (cityscapes / "gtFine/val").glob("*/*_labelIds.png")
    content = path.read_bytes()
    path.write_bytes(b"no image")
    try:
        with pytest.raises(ValueError, match=f"{path.name} cannot be read"):
            dataset.native_labels(0)
    finally:
        path.write_bytes(content)


def test_the_last_frame_of_longer_clips_is_compared_with_the_one_before_from_the_same_key_frame() -> None:
    class Counter(Painter):
        """Answers with the number of steps since the key frame."""

        def encode_key(self, frame: Tensor) -> KeyState:
            return (torch.zeros_like(frame[:, 0]),)

        def propagate(self, state: KeyState, previous: Tensor, frame: Tensor) -> Propagation:
            scores = nn.functional.one_hot((state[0] + 1).long(), self.num_classes).permute(0, 3, 1, 2).float()
            return Propagation(scores, (state[0] + 1,), scores, None)

    evaluation = evaluate_clips(Counter(constant), open_labelled(replace(WORLD, num_frames=4)), ("sfc",), CPU)
    assert evaluation.confusions["sfc"].sum(0).nonzero().tolist() == [[3]]
    assert evaluation.temporal_consistency == 0.0


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="WorldFlow has no labels to evaluate on: choose a --dataset that has"):
        open_labelled(WorldFlow(size=(64, 64), num_clips=1))
