"""A street as geometry: ground strips, walls, flat cards that may move, and the path of the camera.

World axes: x to the right, y upwards, z along the street, in metres; the ground is y = 0 and time counts frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from training.data.world.camera import Pose
from training.data.world.canvas import Sprite
from training.data.world.materials import Kind
from training.data.world.places import Place


class Stream(IntEnum):
    """Independent random streams of one clip: what is drawn from one does not shift the others."""

    STREET = 0
    WALLS = 1
    CAMERA = 2
    OBJECTS = 3
    COLORS = 4
    EFFECTS = 5
    SENSOR = 6
    CLUTTER = 7


def generator(seed: int, stream: Stream, *parts: int) -> np.random.Generator:
    """The random numbers of one stream of a clip."""
    return np.random.default_rng(np.random.SeedSequence([seed, int(stream), *parts]))


def pick(rng: np.random.Generator, shares: Sequence[float]) -> int:
    """An index, drawn with these probabilities; much faster than numpy's `choice`."""
    value, index = rng.random(), 0
    while index < len(shares) - 1 and value >= shares[index]:
        value -= shares[index]
        index += 1
    return index


@dataclass(frozen=True)
class Ground:
    """Strips along the street, interrupted by crossroads."""

    bounds: NDArray[np.float64]  # (n - 1,) metres, ascending x where a strip ends and the next begins
    kinds: NDArray[np.int8]  # (n,) `Kind` of the strips, left to right
    road_left: float  # metres, x of the road's edges
    road_right: float
    crossroads: NDArray[np.float64]  # (m, 2) metres, z where they begin and end
    dash_length: float  # metres of paint, and as much gap times 1.5, of the centre line


@dataclass(frozen=True)
class Wall:
    """A vertical plane along the street, cut out by a height profile."""

    x: float  # metres
    start: float  # metres, z of the first sample
    step: float  # metres between samples
    heights: NDArray[np.float64]  # (n,) metres above the ground, 0 where there is a gap
    segments: NDArray[np.int32]  # (n,) row in `Segments`


@dataclass(frozen=True)
class Segments:
    """What the walls are made of, one row per house, hedge or fence."""

    kind: NDArray[np.int8]  # (n,) `Kind`
    instance: NDArray[np.int32]  # (n,) row in the colour table
    start: NDArray[np.float32]  # (n,) metres, z where it begins
    height: NDArray[np.float32]  # (n,) metres, without gable
    storey: NDArray[np.float32]  # (n,) metres from floor to floor
    window_period: NDArray[np.float32]  # (n,) metres from window to window
    window_width: NDArray[np.float32]  # (n,) share of the period
    has_shop: NDArray[np.bool_]  # (n,) a shop window on the ground floor


@dataclass(frozen=True)
class Card:
    """An upright flat picture, facing along the street or across it, that may move without turning."""

    sprite: Sprite
    kind: Kind
    instance: int  # row in the colour table
    faces_street: bool  # True: spans x at constant z; False: spans z at constant x
    origin: tuple[float, float, float]  # metres, lower corner of least x (or z) at frame 0
    width: float  # metres
    height: float  # metres
    velocity: tuple[float, float] = (0.0, 0.0)  # metres per frame along x and z
    is_mirrored: bool = False

    @property
    def extent(self) -> tuple[float, float, float]:
        """From the lower corner to the opposite upper one."""
        return (self.width, self.height, 0.0) if self.faces_street else (0.0, self.height, self.width)

    def origin_at(self, frame: int) -> tuple[float, float, float]:
        """The lower corner at a frame."""
        x, y, z = self.origin
        return x + self.velocity[0] * frame, y, z + self.velocity[1] * frame


@dataclass(frozen=True)
class Footprint:
    """Where an object shades the ground."""

    x: tuple[float, float]  # metres
    z: tuple[float, float]  # metres
    velocity: tuple[float, float]  # metres per frame along x and z


@dataclass(frozen=True)
class Scene:
    """All geometry of a clip. Of a look, only the place matters here."""

    seed: int
    place: Place
    ground: Ground
    walls: tuple[Wall, ...]
    segments: Segments
    cards: tuple[Card, ...]
    footprints: tuple[Footprint, ...]
    num_instances: int  # instance 0 is the street itself: ground and sky
    poses: tuple[Pose, ...]  # of the camera, one per frame
    sun_from_left: bool
