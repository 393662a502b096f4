from itertools import islice

import numpy as np
import pytest
import torch

from training.data import World, WorldFlow
from training.data.augmentation import Augmented, Draw, augment, mirror, recolor
from training.data.clip import Clip, FlowClip, LabelledClip
from training.data.loader import batches

NOTHING = Draw(
    hue=0.0,
    saturation=1.0,
    brightness=1.0,
    contrast=1.0,
    gains=(1.0, 1.0, 1.0),
    offset=0.0,
    gamma=1.0,
    blur=0.0,
    noise=0.0,
    noise_seed=0,
    is_mirrored=False,
)


@pytest.fixture(scope="module")
def labelled() -> LabelledClip:
    clip: LabelledClip = World(size=(32, 64), num_clips=1).open()[0]
    return clip


def test_the_neutral_draw_changes_nothing(labelled: LabelledClip) -> None:
    assert torch.allclose(recolor(labelled.frames, NOTHING), labelled.frames, atol=1e-5)


def test_all_frames_of_a_clip_get_the_same_colours() -> None:
    frame = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = recolor(
        frame.repeat(2, 1, 1, 1), NOTHING._replace(hue=0.3, saturation=0.5, gamma=1.2, blur=0.8, offset=0.02)
    )
    assert torch.equal(result[0], result[1])
    assert not torch.allclose(result[0], frame[0], atol=0.01)


def test_grey_keeps_its_colour_when_the_hue_turns() -> None:
    grey = torch.full((1, 3, 4, 4), 0.4)
    assert torch.allclose(recolor(grey, NOTHING._replace(hue=0.35, saturation=1.5)), grey, atol=1e-3)


def test_brightness_and_offset_by_hand() -> None:
    frames = torch.full((1, 3, 2, 2), 0.5)
    assert torch.allclose(recolor(frames, NOTHING._replace(brightness=1.2, offset=0.1)), torch.tensor(0.7))


def test_labels_are_mirrored_with_the_frames(labelled: LabelledClip) -> None:
    mirrored = mirror(labelled)
    assert torch.equal(mirrored.frames[..., 0], labelled.frames[..., -1])
    assert torch.equal(mirrored.labels.flip(-1), labelled.labels)
    assert torch.equal(mirrored.quarter_labels.flip(-1), labelled.quarter_labels)


def test_mirrored_flow_changes_the_sign_of_x_and_points_to_the_mirrored_match() -> None:
    clip: FlowClip = WorldFlow(size=(32, 64), num_clips=1).open()[0]
    mirrored = mirror(clip)
    assert torch.equal(mirrored.flow[0], -clip.flow[0].flip(-1))
    assert torch.equal(mirrored.flow[1], clip.flow[1].flip(-1))
    assert torch.equal(mirrored.valid, clip.valid.flip(-1))
    assert mirror(Clip(clip.frames)).frames.equal(mirrored.frames)


def test_labels_change_only_by_mirroring(labelled: LabelledClip) -> None:
    seen = set()
    for seed in range(12):
        augmented = augment(labelled, np.random.default_rng(seed))
        assert type(augmented) is LabelledClip
        is_same = augmented.labels.equal(labelled.labels)
        assert is_same or augmented.labels.equal(labelled.labels.flip(-1))
        assert not augmented.frames.equal(labelled.frames)
        assert 0 <= augmented.frames.min() <= augmented.frames.max() <= 1
        seen.add(is_same)
    assert seen == {True, False}


def test_augmentation_differs_from_pass_to_pass_and_resumes() -> None:
    dataset = Augmented(World(size=(32, 64), num_clips=2).open(), seed=1)
    everything = [batch.frames for batch in islice(batches(dataset, 2, 0), 3)]
    assert not everything[0].sort(0).values.allclose(everything[1].sort(0).values)
    resumed = [batch.frames for batch in islice(batches(dataset, 2, 0, start_step=1), 2)]
    assert all(one.equal(other) for one, other in zip(everything[1:], resumed, strict=True))
