"""Draws what does not move: the strips of the ground, and the houses, hedges and fences along them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.world.materials import Kind
from training.data.world.places import Place
from training.data.world.scene import Card, Ground, Segments, Stream, Wall, generator, pick
from training.data.world.sprites import draw

BEGIN = -24.0  # metres, z where the street begins
STEP = 0.25  # metres between samples of a wall's profile
END_WALL_DEPTH = 12.0  # metres
GAP = 2


@dataclass(frozen=True)
class Side:
    """The profile across one side of the street, in metres from its middle."""

    lane: float
    road: float  # where the road ends
    has_parking: bool  # the last 2.3 m of the road are for parking
    pavement: tuple[float, float]  # where the pavement begins and ends
    inner_wall: float
    outer_wall: float
    verge: Kind  # of what lies between road and pavement
    garden: Kind  # of what lies between the walls


@dataclass(frozen=True)
class Street:
    """The frame that objects are placed in."""

    place: Place
    left: Side
    right: Side
    ground: Ground
    character: int  # 0 town, 1 suburb, 2 park


def draw_street(seed: int, place: Place, length: float) -> Street:
    """The profile across the street and its crossroads up to z = `length` metres."""
    rng = generator(seed, Stream.STREET)
    character = pick(rng, place.characters)
    lane = rng.uniform(*place.lane)
    left, right = (_draw_side(rng, place, lane, character) for _ in range(2))
    bounds = [-s for s in (left.outer_wall, left.inner_wall, left.pavement[1], left.pavement[0], left.road)]
    bounds += [right.road, *right.pavement, right.inner_wall, right.outer_wall]
    kinds = [left.garden, left.garden, left.garden, Kind.SIDEWALK, left.verge, Kind.ROAD]
    kinds += [right.verge, Kind.SIDEWALK, right.garden, right.garden, right.garden]
    dash = rng.uniform(1.8, 4.0)
    crossroads = []
    z = rng.uniform(-10, 70)
    while z < length:
        width = rng.uniform(8, 13)
        crossroads.append((z, z + width))
        z += width + rng.uniform(45, 110)
    ground = Ground(
        np.array(bounds),
        np.array(kinds, np.int8),
        -left.road,
        right.road,
        np.array(crossroads).reshape(-1, 2),
        dash_length=dash,
    )
    return Street(place, left, right, ground, character)


def _draw_side(rng: np.random.Generator, place: Place, lane: float, character: int) -> Side:
    has_parking = bool(rng.random() < place.parking)
    road = lane + (2.3 if has_parking else 0.0) + (lane if rng.random() < place.second_lane else 0.0)
    verge = rng.uniform(0.8, 3.0) if rng.random() < place.verge[character] else 0.0
    begin = road + verge
    end = begin + rng.uniform(*place.pavement)
    has_garden = rng.random() < place.garden[character]
    garden = Kind.TERRAIN if rng.random() < (0.6, 0.9, 0.95)[character] else Kind.SIDEWALK
    border = rng.uniform(0.5, 3.5) if has_garden and rng.random() < 0.5 else 0.15
    inner = end + border
    outer = inner + (rng.uniform(2.5, 8.0) if has_garden else 0.3)
    return Side(lane, road, has_parking, (begin, end), inner, outer, Kind.TERRAIN, garden)


class WallBuilder:
    """Collects the rows of `Segments` while walls are drawn."""

    def __init__(self, first_instance: int) -> None:
        """Begins with no segment; instances count from `first_instance`."""
        self.first_instance = first_instance
        self.rows: list[tuple[Kind, float, float, float, float, float, bool]] = []
        self.end_walls: list[Card] = []

    def segments(self) -> Segments:
        """All rows so far."""
        kind, start, height, storey, period, width, shop = zip(*self.rows, strict=True)
        return Segments(
            kind=np.array(kind, np.int8),
            instance=np.arange(self.first_instance, self.first_instance + len(kind), dtype=np.int32),
            start=np.array(start, np.float32),
            height=np.array(height, np.float32),
            storey=np.array(storey, np.float32),
            window_period=np.array(period, np.float32),
            window_width=np.array(width, np.float32),
            has_shop=np.array(shop, bool),
        )

    def add_wall(self, rng: np.random.Generator, street: Street, x: float, is_outer: bool, length: float) -> Wall:
        """Draws a wall at x from the beginning of the street to z = `length`."""
        count = int((length - BEGIN) / STEP)
        heights, segments = np.zeros(count), np.zeros(count, np.int32)
        shares = street.place.walls[street.character][0 if is_outer else 1]
        kinds = (Kind.BUILDING, Kind.VEGETATION) if is_outer else (Kind.FENCE, Kind.VEGETATION)
        first = 0
        while first < count:
            choice = pick(rng, shares)
            last = first + round((rng.uniform(2, 7) if choice == GAP else rng.uniform(7, 20)) / STEP)
            if choice != GAP:
                height = self._add_segment(rng, street.place, kinds[choice], BEGIN + first * STEP, is_outer)
                heights[first:last] = _profile(rng, street.place, kinds[choice], height, last - first)[: count - first]
                segments[first:last] = len(self.rows) - 1
            first = last
        for begin, end in street.ground.crossroads:
            corners = [max(round((z - BEGIN) / STEP), 0) for z in (begin - 1.5, end + 1.5)]
            heights[slice(*corners)] = 0
        self._add_end_walls(x, heights, segments)
        return Wall(x, BEGIN, STEP, heights, segments)

    def _add_segment(self, rng: np.random.Generator, place: Place, kind: Kind, start: float, is_outer: bool) -> float:
        storey = rng.uniform(*place.storey)
        if kind is Kind.BUILDING:
            height = storey * int(rng.integers(*place.storeys)) + 0.5
        elif kind is Kind.FENCE:
            height = rng.uniform(*place.fence)
        else:
            height = rng.uniform(4, 9) if is_outer else rng.uniform(0.8, 2.2)
        has_shop = bool(rng.random() < 0.4)
        period, width = rng.uniform(*place.window_period), rng.uniform(*place.window_width)
        self.rows.append((kind, start, height, storey, period, width, has_shop))
        return float(height)

    def _add_end_walls(self, x: float, heights: NDArray[np.float64], segments: NDArray[np.int32]) -> None:
        """Closes the houses that rise above what stands before them."""
        for first in np.flatnonzero(np.diff(heights, prepend=0) > 1):
            segment = int(segments[first])
            if self.rows[segment][0] is Kind.BUILDING:
                origin = (x if x > 0 else x - END_WALL_DEPTH, 0.0, BEGIN + int(first) * STEP)
                instance, height = self.first_instance + segment, float(heights[first])
                self.end_walls.append(
                    Card(draw("end_wall"), Kind.BUILDING, instance, True, origin, END_WALL_DEPTH, height)
                )


def _profile(rng: np.random.Generator, place: Place, kind: Kind, height: float, count: int) -> NDArray[np.float64]:
    """The top of a house, fence or hedge, sample by sample."""
    along = np.arange(count) / max(count - 1, 1)
    if kind is Kind.FENCE:
        return np.full(count, height)
    if kind is Kind.BUILDING:
        gable = rng.uniform(1.5, 3.0) if rng.random() < place.gables else 0.0
        return np.asarray(height + gable * np.minimum(1.0, 3 * np.minimum(along, 1 - along)))
    frequency = np.array([[1.0], [2.0], [4.0], [7.0]])  # waves in seven metres
    amplitude, phase = rng.uniform(0.3, 1.0, (4, 1)) / frequency, rng.random((4, 1))
    waves = amplitude * np.sin(2 * np.pi * (frequency * along * count * STEP / 7 + phase))
    return np.asarray(height * (0.85 + 0.11 * waves.sum(0)))
