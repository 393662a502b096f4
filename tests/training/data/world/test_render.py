import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.world import LOOKS, RenderedClip, render_clip
from training.data.world.camera import Intrinsics
from training.data.world.materials import Kind
from training.data.world.places import ABROAD, HOME, Place
from training.data.world.preview import color_flow
from training.data.world.render import build_scene, render_scene
from training.label_spaces import IGNORE

SIZE = (48, 96)


def warp(frame: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = np.indices(flow.shape[:2], dtype=np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    return np.asarray(cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), float)


def digest(clip: RenderedClip) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in clip)).hexdigest()


@pytest.fixture(scope="module")
def clips() -> list[RenderedClip]:
    return [render_clip(seed, "source", SIZE, 2) for seed in range(24)]


def test_a_clip_has_the_documented_shapes_and_types() -> None:
    clip = render_clip(0, "mid", SIZE, 3)
    assert clip.frames.shape == (3, *SIZE, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.labels.shape == (3, *SIZE)
    assert clip.labels.dtype == np.int8
    assert clip.flow.shape == (2, *SIZE, 2)
    assert clip.flow.dtype == np.float32
    assert clip.valid.shape == (2, *SIZE)
    assert clip.valid.dtype == np.bool_


@pytest.fixture(scope="module")
def clips_abroad() -> list[RenderedClip]:
    return [render_clip(seed, "abroad", SIZE, 2) for seed in range(24)]


@pytest.mark.parametrize("fixture", ["clips", "clips_abroad"])
def test_all_classes_appear_in_a_modest_number_of_clips(fixture: str, request: pytest.FixtureRequest) -> None:
    clips: list[RenderedClip] = request.getfixturevalue(fixture)
    assert set(range(-1, 15)) <= set(np.unique([clip.labels for clip in clips]).tolist())


def test_clutter_stands_abroad_and_is_not_trained(clips: list[RenderedClip], clips_abroad: list[RenderedClip]) -> None:
    assert not any((clip.kinds == Kind.STATIC).any() for clip in clips)
    assert 0.003 < np.mean([clip.kinds == Kind.STATIC for clip in clips_abroad]) < 0.1
    assert all((clip.labels[clip.kinds == Kind.STATIC] == IGNORE).all() for clip in clips_abroad)


def test_a_look_of_another_place_than_the_scene_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="look abroad is of the place abroad, the scene of home"):
        list(render_scene(build_scene(0, 1), "abroad", SIZE, [0]))


def test_another_place_has_other_streets_from_the_same_seed() -> None:
    home, abroad = (build_scene(5, 2, place) for place in (HOME, ABROAD))
    assert (home.place, abroad.place) == (HOME, ABROAD)
    assert not np.array_equal(home.ground.bounds, abroad.ground.bounds)
    assert home.poses[0].position[1] < 1.8 < 2.1 < abroad.poses[0].position[1]
    assert not np.array_equal(render_clip(5, "source", SIZE, 1).labels, render_clip(5, "abroad", SIZE, 1).labels)


@pytest.mark.parametrize(("look", "num_clips"), [("source", 12), ("abroad", 8)])
def test_warping_by_the_true_flow_leaves_far_less_error_than_not_warping(look: str, num_clips: int) -> None:
    warped, unwarped = [], []
    for seed in range(num_clips):
        clip = render_clip(seed, look, (96, 192), 2)
        current = clip.frames[1].astype(float)
        visible = clip.valid[0]
        warped.append(np.abs(warp(clip.frames[0], clip.flow[0]) - current)[visible].mean())
        unwarped.append(np.abs(clip.frames[0] - current)[visible].mean())
    assert np.mean(warped) < 0.45 * np.mean(unwarped)


def test_a_street_at_rest_and_one_that_goes_faster_have_their_true_flow() -> None:
    warped, unwarped = [], []
    for seed in range(8):
        rest, start, skip = list(render_scene(build_scene(seed, 3), "source", (96, 192), [0, 0, 2]))
        assert np.array_equal(rest.kinds, start.kinds)
        assert not np.array_equal(rest.frame, start.frame)  # the sensor's noise
        assert np.abs(start.flow).max() < 1e-3
        clip = render_clip(seed, "source", (96, 192), 3)
        assert np.array_equal(skip.kinds, clip.kinds[2])
        faster = render_clip(seed, "source", (96, 192), 2, frame_step=2)
        assert np.array_equal(faster.kinds, clip.kinds[::2])
        assert np.array_equal(faster.flow[0], skip.flow)
        current = skip.frame.astype(float)
        warped.append(np.abs(warp(start.frame, skip.flow) - current)[skip.valid].mean())
        unwarped.append(np.abs(start.frame - current)[skip.valid].mean())
    assert np.mean(warped) < 0.45 * np.mean(unwarped)


@pytest.mark.parametrize("fixture", ["clips", "clips_abroad"])
def test_labels_follow_the_flow_where_it_is_visible(fixture: str, request: pytest.FixtureRequest) -> None:
    agreeing = []
    for clip in request.getfixturevalue(fixture):
        rows, columns = np.indices(SIZE)
        x, y = (np.rint(grid + clip.flow[0][..., axis]).astype(int) for axis, grid in ((0, columns), (1, rows)))
        visible = clip.valid[0]
        agreeing.append((clip.kinds[0][y[visible], x[visible]] == clip.kinds[1][visible]).mean())
    assert np.mean(agreeing) > 0.97  # the rest are edges within a wall or between strips of the ground


@pytest.mark.parametrize(("look", "place"), [("source", HOME), ("abroad", ABROAD)])
def test_the_flow_of_the_road_is_the_homography_of_the_ground_plane(look: str, place: Place) -> None:
    for seed in range(6):
        clip, poses = render_clip(seed, look, SIZE, 2), build_scene(seed, 2, place).poses
        camera = Intrinsics(*SIZE, place.focal_length, place.horizon)
        # H = K R1^T (I - t n^T / d) R2 K^-1 with axes (right, up, forward), normal n upwards, distance d to the ground
        (center_x, center_y), focal = camera.center, camera.focal
        intrinsics = np.array([[focal, 0, center_x], [0, -focal, center_y], [0, 0, 1]])
        before, now = poses
        travel = now.position - before.position
        plane = np.eye(3) - np.outer(travel, [0, 1, 0]) / now.position[1]
        homography = intrinsics @ before.rotation.T @ plane @ now.rotation @ np.linalg.inv(intrinsics)
        rows, columns = np.indices(SIZE)
        mapped = np.stack([columns, rows, np.ones(SIZE)], -1) @ homography.T
        expected = mapped[..., :2] / mapped[..., 2:] - np.stack([columns, rows], -1)
        road = clip.labels[1] == Kind.ROAD
        assert np.allclose(clip.flow[0][road], expected[road], atol=1e-3)


def test_a_standing_camera_sees_a_street_that_stands_still_and_traffic_that_does_not() -> None:
    standing = [seed for seed in range(100) if np.ptp([p.position[2] for p in build_scene(seed, 2).poses]) == 0]
    assert len(standing) > 1
    longest = []
    for seed in standing:
        clip = render_clip(seed, "source", SIZE, 2)
        length = np.hypot(clip.flow[0][..., 0], clip.flow[0][..., 1])
        assert length[clip.labels[1] == Kind.ROAD].max() < 1  # the camera nods a little
        longest.append(length[np.isin(clip.labels[1], (Kind.PERSON, Kind.CAR, Kind.TRUCK, Kind.BUS))].max(initial=0))
    assert max(longest) > 1.5


def test_the_sky_moves_by_the_turn_of_the_camera_only(clips: list[RenderedClip]) -> None:
    for seed, clip in enumerate(clips):
        before, now = build_scene(seed, 2).poses
        if (sky := clip.labels[1] == Kind.SKY).any():
            turn = before.rotation.T @ now.rotation
            shift = SIZE[1] * turn[0, 2] / turn[2, 2]  # of the image's centre, in pixels
            assert abs(np.median(clip.flow[0][sky][:, 0]) - shift) < 0.2 + 0.15 * abs(shift)


def test_what_leaves_the_image_is_not_visible(clips: list[RenderedClip]) -> None:
    for clip in clips:
        rows, columns = np.indices(SIZE)
        x, y = columns + clip.flow[0][..., 0], rows + clip.flow[0][..., 1]
        outside = (x < 0) | (x > SIZE[1] - 1) | (y < 0) | (y > SIZE[0] - 1)
        assert not (clip.valid[0] & outside).any()
    assert 0.85 < np.mean([clip.valid.mean() for clip in clips]) < 0.99


def test_looks_of_one_place_differ_in_nothing_but_the_frames() -> None:
    clips = [render_clip(5, look, SIZE, 2) for look in LOOKS.values() if look.place is HOME]
    assert len(clips) == 3
    for other in clips[1:]:
        assert np.array_equal(other.labels, clips[0].labels)
        assert np.array_equal(other.flow, clips[0].flow)
        assert np.array_equal(other.valid, clips[0].valid)
        assert np.abs(other.frames.astype(int) - clips[0].frames).mean() > 15


def test_a_longer_clip_begins_like_a_shorter_one() -> None:
    short, long = (render_clip(3, "source", SIZE, num_frames) for num_frames in (2, 4))
    assert np.array_equal(long.frames[:2], short.frames)
    assert np.array_equal(long.flow[:1], short.flow)


def test_another_process_renders_the_same_bits() -> None:
    code = (
        "import hashlib, numpy as np\n"
        "from training.data.world import render_clip\n"
        f"clip = render_clip(7, 'mid', {SIZE}, 2)\n"
        "import sys; sys.stdout.write(hashlib.sha256("
        "b''.join(np.ascontiguousarray(array).tobytes() for array in clip)).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout == digest(render_clip(7, "mid", SIZE, 2))


def test_flow_to_the_left_is_drawn_in_cyan_and_to_the_right_in_red() -> None:
    colors = color_flow(np.array([[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]]))
    right, left, none = colors[0].tolist()
    assert right[0] == 255
    assert max(right[1:]) < 30
    assert left[0] < 60
    assert min(left[1:]) > 150
    assert none == [255, 255, 255]
