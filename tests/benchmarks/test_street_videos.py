import numpy as np
import pytest

from benchmarks.street_videos import KINDS, Kind, render_video
from training.data.world.dataset import clip_seed
from training.data.world.render import render_clip

SIZE = (32, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_video(kind: Kind) -> None:
    videos = [render_video(3, index, kind, "mid", SIZE, 40) for index in (0, 0, 1)]
    assert videos[0].frames.shape == (40, *SIZE, 3)
    assert videos[0].labels.shape == (40, *SIZE)
    assert np.array_equal(videos[0].frames, videos[1].frames)
    assert videos[0].cuts == videos[1].cuts
    assert not np.array_equal(videos[0].frames, videos[2].frames)


def test_a_steady_video_is_a_drive_of_the_held_out_world() -> None:
    video = render_video(3, 2, "steady", "mid", SIZE, 20)
    clip = render_clip(clip_seed(3, "val", 200), "mid", SIZE, 20)
    assert video.cuts == ()
    assert np.array_equal(video.frames, clip.frames)
    assert np.array_equal(video.labels, clip.labels)


def test_a_street_that_stops_has_the_labels_of_the_frame_before_and_noise_of_its_own() -> None:
    video = render_video(0, 0, "stop-and-go", "mid", SIZE, 120)
    rests = [place for place in range(1, 120) if np.array_equal(video.labels[place], video.labels[place - 1])]
    assert 10 <= len(rests) <= 100
    for place in rests:
        assert not np.array_equal(video.frames[place], video.frames[place - 1])


def test_scenes_are_as_long_as_they_are_said_to_be_and_differ() -> None:
    video = render_video(0, 0, "cuts", "mid", SIZE, 150)
    lengths = np.diff([0, *video.cuts, 150])
    assert len(video.cuts) >= 2
    assert all(15 <= length <= 60 for length in lengths[:-1])
    same = (video.labels[1:] == video.labels[:-1]).mean((1, 2))
    assert same[[cut - 1 for cut in video.cuts]].max() < np.median(same)


def test_videos_of_another_place_are_rendered_in_its_streets() -> None:
    home, abroad = (render_video(3, 0, "steady", look, SIZE, 2) for look in ("mid", "abroad"))
    assert (home.labels != abroad.labels).mean() > 0.1
