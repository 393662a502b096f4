"""Renders clips: frames, labels, exact flow and what of it is visible."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.world.camera import Intrinsics, Pose, drive
from training.data.world.look import CameraEffects, Look
from training.data.world.looks import LOOKS
from training.data.world.materials import TRAIN_ID_OF_KIND
from training.data.world.places import HOME, Place
from training.data.world.scene import Scene, Stream, generator
from training.data.world.shade import shade
from training.data.world.street import WallBuilder, draw_street
from training.data.world.trace import FIRST_WALL, SKY, Hits, classify, trace
from training.data.world.traffic import Traffic

VIEW = 170.0  # metres of street beyond the drive
STRETCH = 30  # frames; all drives of up to this many see the same street


class RenderedClip(NamedTuple):
    """Consecutive frames of one drive with all that is known about them."""

    frames: NDArray[np.uint8]  # (T, H, W, 3) RGB
    labels: NDArray[np.int8]  # (T, H, W) train ids of VIPER -> Cityscapes, or IGNORE
    flow: NDArray[np.float32]  # (T - 1, H, W, 2) of frames 1...: to the frame before, (x, y) in pixels
    valid: NDArray[np.bool_]  # (T - 1, H, W) True where the pixel is visible in the frame before
    kinds: NDArray[np.int8]  # (T, H, W) `Kind`: labels that also tell poles and riders


class RenderedFrame(NamedTuple):
    """One frame of a drive; flow and visibility are those to the frame before, and empty for the first."""

    frame: NDArray[np.uint8]  # (H, W, 3)
    flow: NDArray[np.float32]  # (H, W, 2)
    valid: NDArray[np.bool_]  # (H, W)
    kinds: NDArray[np.int8]  # (H, W)


def render_clip(
    seed: int, look: Look | str, size: tuple[int, int], num_frames: int, frame_step: int = 1
) -> RenderedClip:
    """Renders a clip of a street.

    The same arguments give the same bits in every process; another look of the same place gives other frames of the
    same geometry, and a clip of more frames (up to 30) begins with those of a shorter one.

    Args:
        seed: chooses the street, what is in it, and its colours; not negative.
        look: a look, or the name of one in `LOOKS`.
        size: (height, width) in pixels.
        num_frames: T, at least 1.
        frame_step: frames of the drive from one frame of the clip to the next; all motion is as many times as fast.
    """
    rendered = list(render_frames(seed, look, size, num_frames, frame_step))
    kinds = np.stack([frame.kinds for frame in rendered])
    later = rendered[1:]
    return RenderedClip(
        frames=np.stack([frame.frame for frame in rendered]),
        labels=TRAIN_ID_OF_KIND[kinds],
        flow=np.stack([frame.flow for frame in later]) if later else np.zeros((0, *size, 2), np.float32),
        valid=np.stack([frame.valid for frame in later]) if later else np.zeros((0, *size), bool),
        kinds=kinds,
    )


def render_frames(
    seed: int, look: Look | str, size: tuple[int, int], num_frames: int, frame_step: int = 1
) -> Iterator[RenderedFrame]:
    """The frames of `render_clip` one by one, for clips that do not fit in memory."""
    look = LOOKS[look] if isinstance(look, str) else look
    moments = range(0, num_frames * frame_step, frame_step)
    return render_scene(build_scene(seed, moments[-1] + 1, look.place), look, size, moments)


def render_scene(
    scene: Scene, look: Look | str, size: tuple[int, int], moments: Iterable[int]
) -> Iterator[RenderedFrame]:
    """A frame for each of the moments, counted in frames of the scene's drive.

    A moment that repeats is a street at rest, with the noise of the sensor alone; one that is left out makes all go
    faster.

    Raises:
        ValueError: if the look is of another place than the scene.
    """
    look = LOOKS[look] if isinstance(look, str) else look
    if look.place != scene.place:
        raise ValueError(
            f"the look {look.name} is of the place {look.place.name}, the scene of {scene.place.name}: build the scene"
            " with the place of the look"
        )
    seed = scene.seed
    colors = look.color_table(generator(seed, Stream.COLORS), scene.num_instances)
    effects = _draw_effects(look.effects, generator(seed, Stream.EFFECTS))
    intrinsics = Intrinsics(*size, scene.place.focal_length, scene.place.horizon)
    pixel_x, pixel_y = np.arange(size[1], dtype=np.float64), np.arange(size[0], dtype=np.float64)
    before: tuple[Hits, int] | None = None
    for index, moment in enumerate(moments):
        pose = scene.poses[moment]
        hits = trace(scene, pose, intrinsics, moment, pixel_x, pixel_y)
        if before is None:
            flow, valid = np.zeros((*size, 2), np.float32), np.zeros(size, bool)
        else:
            flow, valid = _flow_to_previous(scene, hits, *before, moment, intrinsics)
        color, depth = _supersample(scene, pose, moment, look, colors, intrinsics)
        sensor_rng = generator(seed, Stream.SENSOR, index)
        frame = _expose(color, depth, look, effects, sensor_rng)
        yield RenderedFrame(frame, flow, valid, classify(scene, hits, pose))
        before = hits, moment


def build_scene(seed: int, num_frames: int, place: Place = HOME) -> Scene:
    """The geometry of a clip, which its looks share."""
    stretches = -(-num_frames // STRETCH)
    length = VIEW + 1.6 * STRETCH * stretches
    street = draw_street(seed, place, length)
    poses = drive(generator(seed, Stream.CAMERA), place, street.right.lane / 2, max(num_frames, 2))
    builder = WallBuilder(first_instance=1)
    walls = tuple(
        builder.add_wall(generator(seed, Stream.WALLS, number), street, x, is_outer, length)
        for number, (x, is_outer) in enumerate(
            (
                (-street.left.inner_wall, False),
                (-street.left.outer_wall, True),
                (street.right.inner_wall, False),
                (street.right.outer_wall, True),
            )
        )
    )
    speed = float(poses[1].position[2] - poses[0].position[2])
    traffic = Traffic(street, float(poses[0].position[0]), speed, num_instances=1 + len(builder.rows))
    traffic.furnish(seed, length)
    return Scene(
        seed=seed,
        place=place,
        ground=street.ground,
        walls=walls,
        segments=builder.segments(),
        cards=(*builder.end_walls, *traffic.cards),
        footprints=tuple(traffic.footprints),
        num_instances=traffic.num_instances,
        poses=poses[:num_frames],
        sun_from_left=bool(generator(seed, Stream.STREET, 1).random() < 0.5),
    )


def _flow_to_previous(
    scene: Scene, hits: Hits, before: Hits, moment_before: int, moment: int, intrinsics: Intrinsics
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Exact displacement of each pixel to the frame before, and whether it is visible there."""
    pose, previous = scene.poses[moment], scene.poses[moment_before]
    velocities = np.zeros((FIRST_WALL + len(scene.walls) + len(scene.cards), 3))
    for number, card in enumerate(scene.cards, FIRST_WALL + len(scene.walls)):
        velocities[number, [0, 2]] = card.velocity
    points = hits.points(pose) - (moment - moment_before) * velocities[hits.surface]
    in_camera = (points - previous.position) @ previous.rotation
    is_sky = hits.surface == SKY
    in_camera[is_sky] = hits.rays[is_sky] @ previous.rotation  # infinitely far: only the rotation counts
    is_ahead = in_camera[..., 2] > 1e-3
    in_camera[..., 2] = np.where(is_ahead, in_camera[..., 2], 1)
    x, y = intrinsics.project(in_camera)
    height, width = hits.depth.shape
    grid_y, grid_x = np.indices((height, width))
    flow = np.where(is_ahead[..., None], np.stack([x - grid_x, y - grid_y], -1), 0)
    is_inside = is_ahead & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    column = np.clip(np.rint(x), 0, width - 1).astype(np.int64)
    row = np.clip(np.rint(y), 0, height - 1).astype(np.int64)
    # A plane cannot hide itself, so the pixel is visible where the frame before shows the same plane.
    return flow.astype(np.float32), is_inside & (before.surface[row, column] == hits.surface)


def _supersample(
    scene: Scene, pose: Pose, frame: int, look: Look, colors: NDArray[np.float32], intrinsics: Intrinsics
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours before haze (2H, 2W, 3) and depths (2H, 2W) of four samples per pixel."""
    x = (np.arange(2 * intrinsics.width, dtype=np.float32) - 0.5) / 2
    y = (np.arange(2 * intrinsics.height, dtype=np.float32) - 0.5) / 2
    hits = trace(scene, pose, intrinsics, frame, x, y)
    return shade(scene, hits, pose, frame, look, colors, 0.5 / intrinsics.focal), hits.depth


def _draw_effects(effects: CameraEffects, rng: np.random.Generator) -> dict[str, float]:
    return {name: low + rng.random() * (high - low) for name, (low, high) in vars(effects).items()}


def _expose(
    color: NDArray[np.float32],
    depth: NDArray[np.float32],
    look: Look,
    effects: dict[str, float],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """What air, lens and sensor make of the colours of (2H, 2W) samples: a frame (H, W, 3)."""
    haze_color = np.array(look.haze_color, np.float32)
    # the sky has its haze painted in; a little more makes the far end of the street meet it
    clear = np.where(np.isfinite(depth), np.exp(-effects["haze"] * np.minimum(depth, 1e4)), 0.9).astype(np.float32)
    image = haze_color + clear[..., None] * (color - haze_color)
    height, width = depth.shape[0] // 2, depth.shape[1] // 2
    image = np.float32(0.25) * (image[0::2, 0::2] + image[0::2, 1::2] + image[1::2, 0::2] + image[1::2, 1::2])
    if (sigma := effects["blur"] * width / 192) > 0.15:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
    image = grey[..., None] + np.float32(effects["saturation"]) * (image - grey[..., None])
    gain = np.array([1 + effects["warmth"], 1, 1 - effects["warmth"]]) * effects["exposure"]
    image = (image * gain.astype(np.float32) - 128) * np.float32(effects["contrast"]) + 128
    exposed = np.clip(image / 255, 0, 1) ** np.float32(effects["gamma"]) * np.float32(255)
    exposed *= _vignette(height, width, effects["vignette"])[..., None]
    exposed += np.float32(effects["noise"]) * rng.standard_normal(exposed.shape, np.float32)
    return np.asarray(np.clip(np.rint(exposed), 0, 255), np.uint8)


def _vignette(height: int, width: int, loss: float) -> NDArray[Any]:
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    return np.asarray(1 - np.float32(loss) * (y[:, None] ** 2 + x[None] ** 2) / 2)
