"""Where a street lies: what of its geometry, its objects and its camera differs from one part of the world to another.

Places that differ share no clip: each number here changes what is drawn from the same seed. Colours and textures are
those of a look (`looks`), which is of one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from training.data.world.materials import Kind

Range = tuple[float, float]  # a value is drawn, uniformly
Shares = tuple[float, float, float]


@dataclass(frozen=True)
class Vehicle:
    """Measures of a vehicle, and its drawings with the metres that they stand back from the end that is seen."""

    size: tuple[float, float, float]  # metres: width, height, length
    rear: tuple[tuple[str, float], ...]  # what a driver behind it sees
    front: tuple[tuple[str, float], ...]  # what a driver sees that it comes towards
    side: str


@dataclass(frozen=True)
class Place:
    """A part of the world. Probabilities of town, suburb and park stand in that order."""

    name: str
    style: str  # of the drawings, a key of `sprites.STYLES`
    vehicles: Mapping[Kind, Vehicle]
    # camera
    camera_height: Range  # metres
    camera_pitch: float  # radians upwards, mean over clips
    focal_length: float  # image widths
    horizon: float  # image heights from the top, of a level camera
    # profile across the street
    characters: Shares  # of town, suburb and park
    lane: Range  # metres
    parking: float  # probability that a side has a lane for it
    second_lane: float  # probability that a side has one
    verge: Shares  # probability of green between road and pavement
    pavement: Range  # metres of width
    garden: Shares  # probability of a strip before the houses
    # walls: shares of building, vegetation and gap in the outer ones, and of fence, hedge and gap in the inner ones
    walls: tuple[tuple[Shares, Shares], ...]
    storeys: tuple[int, int]  # least number, and one more than the greatest
    storey: Range  # metres
    fence: Range  # metres of height
    gables: float  # probability that a house has one
    window_period: Range  # metres
    window_width: Range  # share of the period
    # what stands and moves
    parked: float  # probability that a parking space is taken
    parked_kinds: Shares  # of car, truck and bus
    oncoming: float  # probability that a place in the other lane is taken
    oncoming_kinds: Shares  # of car, truck and bus
    trees: Shares  # probability of each of four places in 40 m
    people: float  # mean number in 40 m of pavement
    left_two_wheelers: float  # mean number in 40 m of pavement
    moving_two_wheelers: float  # mean number in 40 m of road
    clutter: float  # mean number of stalls, crates and bins in 40 m of pavement
    garlands: float  # mean number across 40 m of street


HOME = Place(
    name="home",
    style="home",
    vehicles={
        Kind.CAR: Vehicle((1.8, 1.48, 4.2), (("car_rear", 0.0),), (("car_front", 0.0), ("car_cabin", 1.2)), "car_side"),
        Kind.TRUCK: Vehicle(
            (2.4, 3.4, 8.0), (("truck_rear", 0.0),), (("truck_front", 0.0), ("truck_cargo", 1.9)), "truck_side"
        ),
        Kind.BUS: Vehicle((2.5, 3.0, 11.0), (("bus_rear", 0.0),), (("bus_front", 0.0),), "bus_side"),
    },
    camera_height=(1.35, 1.75),
    camera_pitch=0.0,
    focal_length=1.0,
    horizon=0.46,
    characters=(0.45, 0.35, 0.2),
    lane=(3.1, 3.8),
    parking=0.6,
    second_lane=0.15,
    verge=(0.2, 0.45, 0.6),
    pavement=(1.6, 4.0),
    garden=(0.35, 0.75, 0.85),
    walls=(
        ((0.86, 0.06, 0.08), (0.35, 0.25, 0.40)),
        ((0.55, 0.27, 0.18), (0.50, 0.28, 0.22)),
        ((0.20, 0.60, 0.20), (0.35, 0.35, 0.30)),
    ),
    storeys=(2, 6),
    storey=(2.7, 3.4),
    fence=(0.9, 2.0),
    gables=0.35,
    window_period=(1.9, 3.4),
    window_width=(0.4, 0.62),
    parked=0.55,
    parked_kinds=(0.78, 0.14, 0.08),
    oncoming=0.42,
    oncoming_kinds=(0.74, 0.13, 0.13),
    trees=(0.25, 0.4, 0.7),
    people=4.0,
    left_two_wheelers=1.8,
    moving_two_wheelers=1.5,
    clutter=0.0,
    garlands=0.0,
)

# Narrow, high and crowded: vans, tankers, double-deckers, tricycles, palms and poplars, walls instead of fences, stalls
# on the pavement and garlands above the road, seen through a wide lens from the roof of a van.
ABROAD = Place(
    name="abroad",
    style="abroad",
    vehicles={
        Kind.CAR: Vehicle((1.75, 1.95, 4.0), (("van_rear", 0.0),), (("van_front", 0.0),), "van_side"),
        Kind.TRUCK: Vehicle(
            (2.4, 3.0, 8.5), (("tanker_rear", 0.0),), (("tanker_front", 0.0), ("tanker_tank", 2.6)), "tanker_side"
        ),
        Kind.BUS: Vehicle((2.5, 4.2, 9.5), (("decker_rear", 0.0),), (("decker_front", 0.0),), "decker_side"),
    },
    camera_height=(2.2, 2.8),
    camera_pitch=-0.03,
    focal_length=0.9,
    horizon=0.42,
    characters=(0.5, 0.3, 0.2),
    lane=(2.8, 3.3),
    parking=0.5,
    second_lane=0.05,
    verge=(0.3, 0.5, 0.6),
    pavement=(1.4, 3.0),
    garden=(0.45, 0.75, 0.85),
    walls=(
        ((0.80, 0.10, 0.10), (0.45, 0.15, 0.40)),
        ((0.50, 0.25, 0.25), (0.55, 0.20, 0.25)),
        ((0.25, 0.50, 0.25), (0.45, 0.25, 0.30)),
    ),
    storeys=(1, 9),
    storey=(3.2, 4.2),
    fence=(1.2, 2.4),
    gables=0.05,
    window_period=(1.1, 2.0),
    window_width=(0.3, 0.5),
    parked=0.7,
    parked_kinds=(0.70, 0.18, 0.12),
    oncoming=0.5,
    oncoming_kinds=(0.64, 0.18, 0.18),
    trees=(0.3, 0.4, 0.6),
    people=8.0,
    left_two_wheelers=3.0,
    moving_two_wheelers=3.5,
    clutter=2.5,
    garlands=0.4,
)
