import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from training.data import DATASETS, World, WorldFlow
from training.data.clip import Clip, FlowClip, LabelledClip
from training.data.unlabelled import Unlabelled
from training.data.world import render_clip
from training.data.world.dataset import LabelledWorld, clip_seed
from training.data.world.materials import Kind
from training.label_spaces import IGNORE, LABEL_SPACES, VIPER_TO_CITYSCAPES

SIZE = (32, 64)


def test_items_are_collated_into_labelled_clips() -> None:
    batch = next(iter(DataLoader(World(size=SIZE, num_clips=2).open(), 2)))
    assert isinstance(batch, LabelledClip)
    assert batch.frames.shape == (2, 2, 3, *SIZE)
    assert batch.frames.dtype == torch.float32
    assert 0 <= batch.frames.min() < batch.frames.max() <= 1
    assert batch.labels.shape == (2, 2, *SIZE)
    assert batch.labels.dtype == torch.int64
    assert torch.equal(batch.quarter_labels, batch.labels[:, -1, 2::4, 2::4])


def test_items_of_world_flow_are_collated_into_flow_clips() -> None:
    batch = next(iter(DataLoader(WorldFlow(size=SIZE, num_clips=2).open(), 2)))
    assert isinstance(batch, FlowClip)
    assert batch.flow.shape == (2, 2, *SIZE)
    assert batch.valid.shape == (2, *SIZE)
    clip = render_clip(clip_seed(0, "train", 1), "source", SIZE, 2)
    assert np.array_equal(batch.flow[1].permute(1, 2, 0).numpy(), clip.flow[0])


def test_rendering_on_access_gives_the_clips_that_memory_holds() -> None:
    kept, rendered = (World(size=SIZE, num_clips=2, render_on_access=later).open() for later in (False, True))
    for one, other in zip(kept[1], rendered[1], strict=True):
        assert torch.equal(one, other)


def test_no_two_clips_of_any_seed_and_split_share_a_street() -> None:
    seeds = {
        clip_seed(seed, split, index) for seed in range(3) for split in ("train", "val") for index in (0, 1, 999_999)
    }
    assert len(seeds) == 18


def test_reading_past_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        World(size=SIZE, num_clips=1).open()[1]


@pytest.mark.parametrize("look", ["source", "abroad"])
def test_the_classes_of_synthia_tell_poles_and_riders_and_leave_out_what_it_does_not_know(look: str) -> None:
    config = World(look=look, size=SIZE, num_clips=24, classes="synthia")
    space = config.label_space
    assert space.num_classes == 12
    assert [space.names[train_id] for train_id in space.evaluated] == [name for name in space.names if name != "fence"]
    dataset = config.open()
    assert isinstance(dataset, LabelledWorld)
    seen = set()
    for index in range(len(dataset)):
        labels, kinds = dataset[index].labels, torch.from_numpy(dataset.clips[index].kinds)
        seen |= set(labels.flatten().tolist())
        for name in space.names:
            assert torch.equal(labels == space.names.index(name), kinds == Kind[name.upper()])
        assert torch.equal(dataset.native_labels(index), labels[-1])
    assert seen == {IGNORE, *range(12)}


def test_the_benchmarks_share_frames_and_what_both_call_by_one_name() -> None:
    viper = World(size=SIZE, num_clips=8).open()
    synthia = World(size=SIZE, num_clips=8, classes="synthia").open()
    for index in range(8):
        one, other = viper[index], synthia[index]
        assert torch.equal(one.frames, other.frames)
        for name in ("road", "sky", "car", "sign"):
            of_viper, of_synthia = (space.names.index(name) for space in LABEL_SPACES.values())
            assert torch.equal(one.labels == of_viper, other.labels == of_synthia)
        riders = other.labels == LABEL_SPACES["synthia"].names.index("rider")
        assert (one.labels[riders] == VIPER_TO_CITYSCAPES.names.index("person")).all()
        poles = other.labels == LABEL_SPACES["synthia"].names.index("pole")
        assert (one.labels[poles] == IGNORE).all()


def test_flow_has_the_classes_that_it_is_asked_for() -> None:
    assert WorldFlow(classes="synthia").label_space is LABEL_SPACES["synthia"]
    assert World().label_space is WorldFlow().label_space is VIPER_TO_CITYSCAPES


def test_an_unlabelled_view_has_frames_and_nothing_else() -> None:
    world = World(size=SIZE, num_clips=2).open()
    hidden = Unlabelled(world)
    assert len(hidden) == 2
    assert type(hidden[0]) is Clip
    assert torch.equal(hidden[0].frames, world[0].frames)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"look": "night"}, "no look 'night'"),
        ({"split": "test"}, "no split 'test'"),
        ({"size": (30, 64)}, "multiples of 4"),
        ({"num_clips": 0}, "num_clips is 0"),
        ({"classes": "gta"}, "no classes 'gta'"),
        ({"num_frames": 0}, "num_frames and frame_step must be"),
        ({"frame_step": 0}, "num_frames and frame_step must be"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        World(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_world_flow_is_about_pairs() -> None:
    with pytest.raises(ValueError, match="two frames"):
        WorldFlow(num_frames=3)


def test_every_data_set_of_the_table_is_a_hashable_value() -> None:
    assert set(DATASETS) == {"world", "world-flow", "viper", "cityscapes-seq", "synthia-seq", "video-folder"}
    assert World() == World()
    assert hash(WorldFlow()) == hash(WorldFlow())
