"""Which surface each image point shows, and how far away it is: a z-buffer over ground, walls and cards."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.world.camera import Intrinsics, Pose
from training.data.world.materials import Kind, kind_table
from training.data.world.scene import Card, Ground, Scene, Wall

NEAR = 0.3  # metres; what is nearer is not seen
FAR = 200.0  # metres; the ground ends here
LEAST_HEIGHT = 3.0  # pixels; cards that look lower are left out
SKY, GROUND, FIRST_WALL = 0, 1, 2  # surface numbers; cards follow the walls
CITY_GROUND_HALF_WIDTH = 60.0  # metres of road to either side at crossroads


class Hits(NamedTuple):
    """What image points of a regular grid show."""

    rays: NDArray[Any]  # (h, w, 3) world axes, of depth 1
    depth: NDArray[Any]  # (h, w) metres along the camera's axis, inf for the sky
    surface: NDArray[np.int16]  # (h, w) surface number: one per plane, so no surface can hide a part of itself
    material: NDArray[np.uint8]  # (h, w) `Material` drawn on the card that is hit, 0 elsewhere

    def window(self, rows: slice, columns: slice) -> "Hits":
        """A view of a part of the grid."""
        return Hits(
            self.rays[rows, columns],
            self.depth[rows, columns],
            self.surface[rows, columns],
            self.material[rows, columns],
        )

    def points(self, pose: Pose) -> NDArray[Any]:
        """(h, w, 3) world coordinates in metres; meaningless for the sky."""
        depth = np.where(np.isfinite(self.depth), self.depth, 1)[..., None]
        return np.asarray(pose.position.astype(self.rays.dtype) + depth * self.rays)


def trace(scene: Scene, pose: Pose, intrinsics: Intrinsics, frame: int, x: NDArray[Any], y: NDArray[Any]) -> Hits:
    """Looks at a scene through the grid of image columns `x` and rows `y` (pixels, ascending)."""
    grid_x, grid_y = np.meshgrid(x, y)
    rays = intrinsics.directions(grid_x, grid_y) @ pose.rotation.T.astype(x.dtype)
    hits = Hits(
        rays=rays,
        depth=np.full(grid_x.shape, np.inf, x.dtype),
        surface=np.zeros(grid_x.shape, np.int16),
        material=np.zeros(grid_x.shape, np.uint8),
    )
    _trace_ground(hits, pose)
    for number, wall in enumerate(scene.walls, FIRST_WALL):
        _trace_wall(hits, wall, pose, number)
    # from near to far: what is hidden already need not be drawn
    for box in _bounding_boxes(scene.cards, pose, intrinsics, frame, x, y):
        depth = hits.depth[box.rows, box.columns]
        if depth.max() > box.nearest:
            window = hits.window(box.rows, box.columns)
            _trace_card(window, scene.cards[box.card], pose, frame, FIRST_WALL + len(scene.walls) + box.card)
    return hits


def _trace_ground(hits: Hits, pose: Pose) -> None:
    with np.errstate(divide="ignore"):
        depth = hits.rays.dtype.type(-pose.position[1]) / hits.rays[..., 1]
    is_hit = (depth > 0) & (depth < FAR)
    np.copyto(hits.depth, depth, where=is_hit)
    np.copyto(hits.surface, np.int16(GROUND), where=is_hit)


def _trace_wall(hits: Hits, wall: Wall, pose: Pose, number: int) -> None:
    towards = hits.rays[..., 0] * np.sign(wall.x - pose.position[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(towards > 1e-6, abs(wall.x - pose.position[0]) / towards, FAR)
    depth = np.minimum(depth, FAR).astype(hits.depth.dtype)
    z = pose.position[2] + depth * hits.rays[..., 2]
    index = ((z - wall.start) / wall.step).astype(np.int32)
    np.clip(index, 0, len(wall.heights) - 1, out=index)
    elevation = pose.position[1] + depth * hits.rays[..., 1]
    is_hit = (
        (elevation < wall.heights[index]) & (elevation >= 0) & (depth < hits.depth) & (depth > NEAR) & (depth < FAR)
    )
    np.copyto(hits.depth, depth, where=is_hit)
    np.copyto(hits.surface, np.int16(number), where=is_hit)


def _trace_card(hits: Hits, card: Card, pose: Pose, frame: int, number: int) -> None:
    normal, along = (2, 0) if card.faces_street else (0, 2)
    origin = card.origin_at(frame)
    # plain floats, so that the grid's precision decides
    distance = float(origin[normal] - pose.position[normal])
    start_along, start_up = float(pose.position[along] - origin[along]), float(pose.position[1] - origin[1])
    towards = hits.rays[..., normal]
    depth = distance / (towards if card.faces_street else np.where(towards == 0, 1e-6, towards))
    drawing = card.sprite.materials
    rows, columns = drawing.shape
    # from metres to pixels of the drawing, whose outermost ones are transparent: clipping to them is missing the card
    per_metre = (columns - 2) / card.width * (-1 if card.is_mirrored else 1)
    first_column = columns - 1 if card.is_mirrored else 1
    column = depth * (hits.rays[..., along] * per_metre) + (first_column + start_along * per_metre)
    down = -(rows - 2) / card.height
    row = depth * (hits.rays[..., 1] * down) + (rows - 1 + start_up * down)
    np.minimum(np.maximum(column, 0, out=column), columns - 1, out=column)
    np.minimum(np.maximum(row, 0, out=row), rows - 1, out=row)
    material = drawing[row.astype(np.int32), column.astype(np.int32)]
    is_hit = (material != 0) & (depth > NEAR) & (depth < hits.depth)
    np.copyto(hits.depth, depth, where=is_hit)
    np.copyto(hits.surface, np.int16(number), where=is_hit)
    np.copyto(hits.material, material, where=is_hit)


class Box(NamedTuple):
    """The part of the grid that can show a card."""

    card: int  # place in `Scene.cards`
    nearest: float  # metres, least depth
    rows: slice
    columns: slice


def _bounding_boxes(
    cards: Sequence[Card], pose: Pose, intrinsics: Intrinsics, frame: int, x: NDArray[Any], y: NDArray[Any]
) -> list[Box]:
    """Boxes of the cards that may be in view, the nearest first."""
    first = np.array([card.origin_at(frame) for card in cards])
    last = first + np.array([card.extent for card in cards])
    corners = np.stack([first, last, first, last], 1)
    corners[:, 2:, 1] = np.stack([last[:, 1], first[:, 1]], 1)
    points = (corners - pose.position) @ pose.rotation
    nearest, farthest = points[..., 2].min(1), points[..., 2].max(1)
    is_cut = nearest < NEAR  # reaches behind the camera: projections of its corners do not bound it
    points[..., 2] = np.maximum(points[..., 2], NEAR)
    image_x, image_y = intrinsics.project(points)
    columns = np.searchsorted(x, np.stack([image_x.min(1) - 0.01, image_x.max(1) + 0.01], 1))
    rows = np.searchsorted(y, np.stack([image_y.min(1) - 0.01, image_y.max(1) + 0.01], 1))
    columns[is_cut], rows[is_cut] = (0, len(x)), (0, len(y))
    is_seen = (farthest > NEAR) & (nearest < FAR) & (rows[:, 0] < rows[:, 1]) & (columns[:, 0] < columns[:, 1])
    is_seen &= np.array([card.height for card in cards]) * intrinsics.focal > LEAST_HEIGHT * nearest
    order = [int(card) for card in np.argsort(nearest, kind="stable") if is_seen[card]]
    return [Box(card, float(nearest[card]), slice(*rows[card]), slice(*columns[card])) for card in order]


def ground_kinds(ground: Ground, x: NDArray[Any], z: NDArray[Any]) -> NDArray[np.int8]:
    """The `Kind` of ground points."""
    kinds = ground.kinds[np.searchsorted(ground.bounds, x)]
    kinds[is_crossroads(ground, z) & (np.abs(x) < CITY_GROUND_HALF_WIDTH)] = Kind.ROAD
    return kinds


def is_crossroads(ground: Ground, z: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether ground points lie where another street crosses."""
    # begins and ends alternate, so points between a begin and its end have an odd rank
    return np.asarray(np.searchsorted(ground.crossroads.ravel(), z) % 2 == 1)


def classify(scene: Scene, hits: Hits, pose: Pose) -> NDArray[np.int8]:
    """(h, w) `Kind` of what is hit."""
    kinds = np.full(hits.depth.shape, Kind.SKY, np.int8)
    points = hits.points(pose)
    on_ground = hits.surface == GROUND
    kinds[on_ground] = ground_kinds(scene.ground, points[on_ground][:, 0], points[on_ground][:, 2])
    for number, wall in enumerate(scene.walls, FIRST_WALL):
        on_wall = hits.surface == number
        kinds[on_wall] = scene.segments.kind[segment_rows(wall, points[on_wall][:, 2])]
    on_card = hits.surface >= FIRST_WALL + len(scene.walls)
    card_kinds = np.array([card.kind for card in scene.cards], np.int8)
    cards = hits.surface[on_card] - (FIRST_WALL + len(scene.walls))
    kinds[on_card] = kind_table()[card_kinds[cards], hits.material[on_card]]
    return kinds


def segment_rows(wall: Wall, z: NDArray[Any]) -> NDArray[np.int32]:
    """Rows of `Segments` at positions along a wall."""
    index = np.clip(((z - wall.start) / wall.step).astype(np.int32), 0, len(wall.segments) - 1)
    return wall.segments[index]
