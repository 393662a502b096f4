"""The colour of what image points show: materials, patterns, world-anchored texture, light."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.world.camera import Pose
from training.data.world.look import Bond, Look, Patterns
from training.data.world.materials import NUM_MATERIALS, Kind, Material
from training.data.world.scene import Ground, Scene, Segments
from training.data.world.textures import fade, fractal_noise, look_up, sample_noise
from training.data.world.trace import FIRST_WALL, GROUND, SKY, Hits, ground_kinds, is_crossroads, segment_rows

SHADOW_CELL = 0.2  # metres of the shadow map
SHADOW_EXTENT = (14.0, 60.0)  # metres to either side and ahead that it covers


class Surface(NamedTuple):
    """What the colour of each image point is made from; all (h, w)."""

    material: NDArray[np.uint8]
    overlay: NDArray[np.uint8]  # a second material, such as windows in a wall
    mix: NDArray[np.float32]  # share of the overlay
    instance: NDArray[np.int32]  # row of the colour table
    u: NDArray[np.float32]  # metres, texture coordinates
    v: NDArray[np.float32]
    footprint: NDArray[np.float32]  # metres of surface between samples
    light: NDArray[np.float32]  # factor


def shade(
    scene: Scene, hits: Hits, pose: Pose, frame: int, look: Look, colors: NDArray[np.float32], sample_angle: float
) -> NDArray[np.float32]:
    """(h, w, 3) RGB colours 0..255 before camera effects.

    Args:
        colors: (instances, materials, 3) of `Look.color_table`.
        sample_angle: distance of two samples, in focal lengths.
    """
    surface = Surface(
        material=np.zeros(hits.depth.shape, np.uint8),
        overlay=np.zeros(hits.depth.shape, np.uint8),
        mix=np.zeros(hits.depth.shape, np.float32),
        instance=np.zeros(hits.depth.shape, np.int32),
        u=np.zeros(hits.depth.shape, np.float32),
        v=np.zeros(hits.depth.shape, np.float32),
        footprint=np.ones(hits.depth.shape, np.float32),
        light=np.ones(hits.depth.shape, np.float32),
    )
    points = hits.points(pose)
    _shade_ground(surface, scene, hits, points, pose, frame, look, sample_angle)
    _shade_walls(surface, scene, hits, points, pose, look, sample_angle)
    _shade_cards(surface, scene, hits, points, frame, look, sample_angle)
    _lay_bonds(surface, look.patterns.bonds)
    noise = _texture(surface, look)
    result = colors[surface.instance, surface.material]
    has_overlay = surface.mix > 0
    overlay = colors[surface.instance[has_overlay], surface.overlay[has_overlay]]
    result[has_overlay] += surface.mix[has_overlay, None] * (overlay - result[has_overlay])
    result *= (surface.light * np.clip(1 + noise, 0.25, 1.9))[..., None]
    _paint_sky(result, hits, colors[0], look)
    return result


def _lay_bonds(surface: Surface, bonds: Mapping[Material, Bond]) -> None:
    """Darkens the joints between bricks and stones, of which every second course is shifted by half a length."""
    for material, bond in bonds.items():
        is_laid = (surface.material == material) & (surface.mix < 0.5)
        u, v, footprint = surface.u[is_laid], surface.v[is_laid], surface.footprint[is_laid]
        course, up = np.divmod(v / bond.height, 1)
        along = np.remainder(u / bond.length + 0.5 * np.remainder(course, 2), 1)
        joint, mean = 0.18, 0.28  # of a course's height and of a brick's length; share of the surface
        is_joint = (up < joint) | (along < joint * bond.height / bond.length)
        clear = fade(bond.height, footprint)
        surface.light[is_laid] *= 1 - bond.depth * (clear * is_joint + (1 - clear) * mean)


def _texture(surface: Surface, look: Look) -> NDArray[np.float32]:
    """(h, w) relative change of the colour."""
    u, v, footprint = surface.u, surface.v, surface.footprint
    amplitudes = look.texture_table()[surface.material]
    if look.patterns.stretch:
        table = np.ones((NUM_MATERIALS, 2), np.float32)
        for material, factors in look.patterns.stretch.items():
            table[material] = factors
        stretch = table[surface.material]
        u, v, footprint = u / stretch[..., 0], v / stretch[..., 1], footprint / stretch.min(-1)
    return fractal_noise(u, v, footprint, amplitudes)


def _paint_sky(result: NDArray[np.float32], hits: Hits, colors: NDArray[np.float32], look: Look) -> None:
    """The sky is infinitely far: its colours depend on directions only."""
    is_sky = hits.surface == SKY
    if not is_sky.any():
        return
    rays = hits.rays[is_sky].astype(np.float32)
    slope = np.maximum(rays[:, 1] / np.hypot(rays[:, 0], rays[:, 2]), 0)
    height = np.minimum(slope / 0.45, 1)[:, None]
    horizon = 0.5 * colors[Material.SKY] + 0.5 * np.array(look.haze_color, np.float32)
    blue = horizon + height**0.7 * (colors[Material.SKY] - horizon)
    # a flat layer of clouds at height 1, seen from below
    u, v = (4 * rays[:, axis] / (rays[:, 1] + 0.12) for axis in (0, 2))
    cover = sum(amplitude * sample_noise(u, v, wave) for wave, amplitude in ((9.0, 0.5), (4.0, 0.3), (1.7, 0.2)))
    share = np.clip((cover - 0.1) * 0.9, 0, 0.9)[:, None] * np.minimum(slope * 12, 1)[:, None]
    result[is_sky] = blue + share * (colors[Material.CLOUD] - blue)


def _shade_ground(
    surface: Surface,
    scene: Scene,
    hits: Hits,
    points: NDArray[Any],
    pose: Pose,
    frame: int,
    look: Look,
    sample_angle: float,
) -> None:
    on_ground = hits.surface == GROUND
    x, z = points[on_ground][:, 0], points[on_ground][:, 2]
    depth = hits.depth[on_ground]
    footprint = sample_angle * depth * np.sqrt(1 + (depth / pose.position[1])) * 0.8
    material, light = _ground_pattern(scene.ground, x, z, footprint, look.patterns.slab)
    surface.material[on_ground] = material
    surface.u[on_ground], surface.v[on_ground] = x, z
    surface.footprint[on_ground] = footprint
    surface.light[on_ground] = light * (1 - look.shade * 1.6 * _shadows(scene, pose, frame, x, z))


def _ground_pattern(
    ground: Ground, x: NDArray[Any], z: NDArray[Any], footprint: NDArray[Any], slab: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Materials and light of ground points: paint on the road, kerbs, joints between slabs."""
    kinds = ground_kinds(ground, x, z)
    material = np.array([Material.ASPHALT, Material.PAVING, *[0] * 5, Material.GRASS], np.uint8)[kinds]
    light = np.ones(len(x), np.float32)
    crossing = is_crossroads(ground, z)
    on_road = (kinds == Kind.ROAD) & ~crossing
    is_dash = (np.abs(x) < 0.09) & (np.remainder(z, 2.5 * ground.dash_length) < ground.dash_length)
    is_edge = (np.abs(x - ground.road_left - 0.3) < 0.07) | (np.abs(x - ground.road_right + 0.3) < 0.07)
    before = np.isin(
        np.searchsorted(ground.crossroads.ravel() - 4.5, z), np.arange(1, 2 * len(ground.crossroads) + 1, 2)
    )
    is_zebra = before & ~crossing & is_crossroads(ground, z + 4.0) & ~is_crossroads(ground, z + 1.2)
    is_stripe = is_zebra & (np.remainder(x, 1.0) < 0.5)
    material[on_road & np.where(is_zebra, is_stripe, is_dash | is_edge)] = Material.MARKING
    paved = kinds == Kind.SIDEWALK
    edges = np.array([ground.bounds[3], ground.bounds[4], ground.bounds[5], ground.bounds[6]])
    is_curb = paved & (np.abs(x[:, None] - edges).min(1) < 0.16)
    material[is_curb] = Material.CURB
    is_joint = (np.remainder(x, slab) < 0.06) | (np.remainder(z, slab) < 0.06)
    light[paved & is_joint] = 0.75
    light += (paved & ~is_curb) * (0.96 - light) * (1 - fade(0.35, footprint))
    return material, light


def _shadows(scene: Scene, pose: Pose, frame: int, x: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float32]:
    """How deep ground points lie in the soft shade under objects, 0..1."""
    half_width, length = SHADOW_EXTENT
    shape = int(length / SHADOW_CELL), int(2 * half_width / SHADOW_CELL)
    shadow_map = np.zeros(shape, np.float32)
    origin_x, origin_z = pose.position[0] - half_width, pose.position[2]
    for footprint in scene.footprints:
        ahead = [edge + footprint.velocity[1] * frame - origin_z for edge in footprint.z]
        if ahead[1] < 0 or ahead[0] > length:
            continue
        rows = [round(edge / SHADOW_CELL) for edge in ahead]
        columns = [round((edge + footprint.velocity[0] * frame - origin_x) / SHADOW_CELL) for edge in footprint.x]
        shadow_map[max(rows[0] - 1, 0) : rows[1] + 2, max(columns[0] - 1, 0) : max(columns[1] + 2, 0)] = 1
    shadow_map = np.asarray(cv2.GaussianBlur(shadow_map, (0, 0), 1.6), np.float32)
    column, row = (x - origin_x) / SHADOW_CELL, (z - origin_z) / SHADOW_CELL
    return look_up(shadow_map, column, row, cv2.BORDER_CONSTANT)


def _shade_walls(
    surface: Surface,
    scene: Scene,
    hits: Hits,
    points: NDArray[Any],
    pose: Pose,
    look: Look,
    sample_angle: float,
) -> None:
    for number, wall in enumerate(scene.walls, FIRST_WALL):
        on_wall = hits.surface == number
        z, y = points[on_wall][:, 2], points[on_wall][:, 1]
        depth = hits.depth[on_wall]
        distance = abs(wall.x - pose.position[0])
        footprint = sample_angle * depth * np.sqrt(1 + depth / distance) * 0.8
        rows = segment_rows(wall, z)
        material, overlay, mix, light = _wall_pattern(scene.segments, rows, z, y, footprint, look.patterns)
        is_sunny = scene.sun_from_left == (wall.x > 0)
        surface.material[on_wall], surface.overlay[on_wall], surface.mix[on_wall] = material, overlay, mix
        surface.instance[on_wall] = scene.segments.instance[rows]
        surface.u[on_wall], surface.v[on_wall] = z + 31 * number, y
        surface.footprint[on_wall] = footprint
        surface.light[on_wall] = light * (1.04 if is_sunny else 1 - look.shade)


def _wall_pattern(
    segments: Segments,
    rows: NDArray[np.int32],
    z: NDArray[Any],
    y: NDArray[Any],
    footprint: NDArray[Any],
    patterns: Patterns,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Material, overlay, its share, and light of points on walls: windows, shops, eaves, planks, dark hedge feet."""
    kind, height = segments.kind[rows], segments.height[rows]
    along = z - segments.start[rows]
    period, width = segments.window_period[rows], segments.window_width[rows]
    storey, level = np.divmod(y / segments.storey[rows], 1)
    house = kind == Kind.BUILDING
    in_shop = house & segments.has_shop[rows] & (storey == 0)
    bay = np.abs(np.remainder(along / period, 1) - 0.5)
    middle, half = patterns.window
    has_window = house & (y < height - 0.5) & ~in_shop
    is_window = has_window & (bay < width / 2) & (np.abs(level - middle) < half)
    is_shop = in_shop & (np.abs(np.remainder(along / (2 * period), 1) - 0.5) < 0.44) & (np.abs(level - 0.4) < 0.36)
    clear = fade(2.0, footprint)  # too far away to tell windows apart, a wall takes their mean colour
    mean = np.where(has_window, 2 * half * width, np.where(in_shop, 0.6, 0))
    mix = (clear * (is_window | is_shop) + (1 - clear) * mean).astype(np.float32)
    material = np.array([0, 0, Material.FACADE, Material.FENCE, 0, 0, Material.FOLIAGE], np.uint8)[kind]
    is_eaves = house & (y > height - 0.3)
    material[is_eaves] = Material.ROOF
    mix[is_eaves] = 0
    overlay = np.where(in_shop, Material.SHOP, Material.WINDOW).astype(np.uint8)
    light = np.ones(len(y), np.float32)
    fence = kind == Kind.FENCE
    is_gap = (
        (np.remainder(z, patterns.plank) < 0.05)
        & (np.abs(y - 0.75 * height) > 0.07)
        & (np.abs(y - 0.25 * height) > 0.07)
    )
    plank = fade(patterns.plank, footprint)
    light[fence] = (1 - 0.5 * plank * is_gap - 0.1 * (1 - plank))[fence]
    hedge = kind == Kind.VEGETATION
    light[hedge] = (0.66 + 0.4 * np.minimum(y / np.maximum(height, 0.5), 1))[hedge]
    return material, overlay, mix, light


def _shade_cards(
    surface: Surface, scene: Scene, hits: Hits, points: NDArray[Any], frame: int, look: Look, sample_angle: float
) -> None:
    first = FIRST_WALL + len(scene.walls)
    on_card = hits.surface >= first
    if not on_card.any():
        return
    number = hits.surface[on_card] - first
    origins = np.array([card.origin_at(frame) for card in scene.cards], np.float32)
    faces_street = np.array([card.faces_street for card in scene.cards])
    instances = np.array([card.instance for card in scene.cards], np.int32)
    heights = np.array([card.height for card in scene.cards], np.float32)
    is_leafy = np.array([card.kind == Kind.VEGETATION for card in scene.cards])
    point, origin = points[on_card].astype(np.float32), origins[number]
    offset = point - origin
    up = np.clip(offset[:, 1] / heights[number], 0, 1)
    surface.material[on_card] = hits.material[on_card]
    surface.instance[on_card] = instances[number]
    surface.u[on_card] = np.where(faces_street[number], offset[:, 0], offset[:, 2]) + 13.7 * number
    surface.v[on_card] = offset[:, 1]
    surface.footprint[on_card] = sample_angle * hits.depth[on_card]
    side_light = np.where(faces_street[number], 1.0, 1 - 0.6 * look.shade)
    surface.light[on_card] = side_light * np.where(is_leafy[number], 0.62 + 0.5 * up, 0.86 + 0.2 * up)
