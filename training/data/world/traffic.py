"""Draws what stands or moves in the street: vehicles, people, two-wheelers, signs, lights, lamps and trees."""

from dataclasses import dataclass, field

import numpy as np

from training.data.world.canvas import Sprite
from training.data.world.materials import Kind
from training.data.world.places import Place
from training.data.world.scene import Card, Footprint, Stream, generator, pick
from training.data.world.sprites import draw
from training.data.world.street import Side, Street

CHUNK = 40.0  # metres of street that are furnished from one random stream
VEHICLES = (Kind.CAR, Kind.TRUCK, Kind.BUS)


@dataclass
class Traffic:
    """Collects the cards of all objects; `camera_x` decides which side of a vehicle is seen."""

    street: Street
    camera_x: float
    camera_speed: float  # metres per frame
    num_instances: int
    cards: list[Card] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """Where the street lies."""
        return self.street.place

    def add_vehicle(self, kind: Kind, x: float, z: float, size: float, is_oncoming: bool, velocity: float) -> None:
        """A vehicle along the street with its middle at x and its near end at z metres."""
        vehicle = self.place.vehicles[kind]
        width, _, length = (size * metres for metres in vehicle.size)
        motion = (0.0, velocity)
        for name, depth in vehicle.front if is_oncoming else vehicle.rear:
            sprite = self._draw(name)
            self._add(sprite, kind, True, (x - width / 2, 0, z + size * depth), size, motion)
        if abs(x - self.camera_x) > width / 2:
            side = x - width / 2 if x > self.camera_x else x + width / 2
            self._add(self._draw(vehicle.side), kind, False, (side, 0, z), size, motion, is_mirrored=is_oncoming)
        self._finish((x - width / 2, x + width / 2), (z, z + length), motion)

    def add_crossing_vehicle(self, kind: Kind, x: float, z: float, velocity: float) -> None:
        """A vehicle that crosses the street; we see its side."""
        vehicle = self.place.vehicles[kind]
        sprite = self._draw(vehicle.side)
        motion = (velocity, 0.0)
        self._add(sprite, kind, True, (x, 0, z), 1.0, motion, is_mirrored=velocity < 0)
        self._finish((x, x + sprite.width), (z, z + vehicle.size[0]), motion)

    def add_figure(
        self,
        sprite: Sprite,
        kind: Kind,
        x: float,
        z: float,
        size: float,
        motion: tuple[float, float],
        shade: float = 0.3,
    ) -> None:
        """Anything flat that faces the driver, with its middle at x."""
        half = size * sprite.width / 2
        self._add(sprite, kind, True, (x - half, 0, z), size, motion, is_mirrored=motion[0] < 0)
        self._finish((x - shade, x + shade), (z - shade / 2, z + shade), motion)

    def _draw(self, name: str, variant: int = 0) -> Sprite:
        return draw(name, variant, self.place.style)

    def _add(
        self,
        sprite: Sprite,
        kind: Kind,
        faces_street: bool,
        origin: tuple[float, float, float],
        size: float,
        motion: tuple[float, float],
        is_mirrored: bool = False,
    ) -> None:
        self.cards.append(
            Card(
                sprite,
                kind,
                self.num_instances,
                faces_street,
                origin,
                size * sprite.width,
                size * sprite.height,
                motion,
                is_mirrored,
            )
        )

    def _finish(self, x: tuple[float, float], z: tuple[float, float], motion: tuple[float, float]) -> None:
        self.footprints.append(Footprint(x, z, motion))
        self.num_instances += 1

    def furnish(self, seed: int, length: float) -> None:
        """Places everything up to z = `length` metres."""
        for chunk in range(-1, int(length // CHUNK)):
            rng = generator(seed, Stream.OBJECTS, chunk + 1)
            begin = chunk * CHUNK
            for side, sign in ((self.street.left, -1), (self.street.right, 1)):
                self._park(rng, side, sign, begin)
                self._line_with_posts(rng, side, sign, begin)
                self._people(rng, side, sign, begin)
            self._moving(rng, begin)
            self._clutter(generator(seed, Stream.CLUTTER, chunk + 1), begin)
        for index, (begin, end) in enumerate(self.street.ground.crossroads):
            self._crossroads(generator(seed, Stream.OBJECTS, 1000 + index), float(begin), float(end))

    def _is_free(self, z: float, extent: float) -> bool:
        return all(z + extent < begin - 1 or z > end + 1 for begin, end in self.street.ground.crossroads)

    def _park(self, rng: np.random.Generator, side: Side, sign: int, begin: float) -> None:
        z = begin + rng.uniform(0, 5)
        while z < begin + CHUNK - 4:
            kind = VEHICLES[pick(rng, self.place.parked_kinds)]
            size, gap, occupied = rng.uniform(0.93, 1.08), rng.uniform(1, 9), rng.random() < self.place.parked
            is_oncoming = bool(rng.random() < (0.85 if sign < 0 else 0.1))
            length = self.place.vehicles[kind].size[2] * size
            if side.has_parking and occupied and self._is_free(z, length) and z > 4:
                self.add_vehicle(kind, sign * (side.road - 1.15), z, size, is_oncoming, 0.0)
            z += length + gap

    def _line_with_posts(self, rng: np.random.Generator, side: Side, sign: int, begin: float) -> None:
        edge, back = side.pavement
        lamp_z = begin + rng.uniform(0, 10)
        if self._is_free(lamp_z, 0) and rng.random() < 0.7:
            x = sign * (edge + 0.2)
            sprite = self._draw("street_lamp")
            # the arm reaches over the road
            self._add(
                sprite, Kind.POLE, True, (x if sign < 0 else x - 1.6, 0, lamp_z), 1.0, (0, 0), is_mirrored=sign > 0
            )
            self.num_instances += 1
        for _ in range(int(rng.integers(0, 3))):
            sprite, size, z = (
                self._draw("sign", int(rng.integers(4))),
                rng.uniform(1.1, 1.5),
                begin + rng.uniform(0, CHUNK),
            )
            self.add_figure(sprite, Kind.SIGN, sign * (edge + rng.uniform(0.2, 0.5)), z, size, (0, 0), shade=0.1)
        if rng.random() < 0.4:
            sprite, z = self._draw("traffic_light", int(rng.integers(3))), begin + rng.uniform(0, CHUNK)
            self.add_figure(sprite, Kind.LIGHT, sign * (edge + 0.35), z, rng.uniform(1.1, 1.4), (0, 0), shade=0.1)
        likely = self.place.trees[self.street.character]
        verge, garden = edge - side.road, side.outer_wall - side.inner_wall
        for place, room in ((edge - 0.5 if verge > 1 else back - 0.3, 1.0), (side.outer_wall - 1.5, garden - 2)):
            for _ in range(4):
                name, variant = ("tree", int(rng.integers(8))) if rng.random() < 0.7 else ("bush", int(rng.integers(4)))
                z, size, wanted = begin + rng.uniform(0, CHUNK), rng.uniform(0.7, 1.2), rng.random() < likely
                if wanted and room > 0.5 and self._is_free(z, 1):
                    self.add_figure(
                        self._draw(name, variant), Kind.VEGETATION, sign * place, z, size, (0, 0), shade=0.6
                    )

    def _people(self, rng: np.random.Generator, side: Side, sign: int, begin: float) -> None:
        edge, back = side.pavement
        for _ in range(int(rng.poisson(self.place.people))):
            sprite, size = self._draw("person", int(rng.integers(4))), rng.uniform(0.85, 1.15)
            walk = _sign(rng) * rng.uniform(0.04, 0.13) if rng.random() < 0.75 else 0.0
            x, z = sign * rng.uniform(edge + 0.3, back), begin + rng.uniform(0, CHUNK)
            if z > 3:
                self.add_figure(sprite, Kind.PERSON, x, z, size, (0, walk))
        for _ in range(int(rng.poisson(self.place.left_two_wheelers))):  # left on the pavement, or leaning on something
            name, kind = (("bicycle", Kind.BICYCLE), ("motorcycle", Kind.MOTORCYCLE))[int(rng.integers(2))]
            x, z, size = sign * rng.uniform(edge + 0.6, back), begin + rng.uniform(0, CHUNK), rng.uniform(1.0, 1.2)
            if z > 5:
                self.add_figure(self._draw(name), kind, x, z, size, (0, 0), shade=0.5)

    def _clutter(self, rng: np.random.Generator, begin: float) -> None:
        for side, sign in ((self.street.left, -1), (self.street.right, 1)):
            for _ in range(int(rng.poisson(self.place.clutter))):
                name, variant = ("stall", "crates", "bin")[pick(rng, (0.4, 0.3, 0.3))], int(rng.integers(4))
                x, z = sign * rng.uniform(side.pavement[0] + 0.5, side.inner_wall), begin + rng.uniform(0, CHUNK)
                size = rng.uniform(0.8, 1.2)
                if z > 4 and self._is_free(z, 1):
                    self.add_figure(self._draw(name, variant), Kind.STATIC, x, z, size, (0, 0), shade=0.6)
        for _ in range(int(rng.poisson(self.place.garlands))):
            left, right, z = -self.street.left.inner_wall, self.street.right.inner_wall, begin + rng.uniform(0, CHUNK)
            sprite, height = self._draw("garland"), rng.uniform(5.0, 6.5)
            if z > 6:
                size = (right - left) / sprite.width
                self._add(sprite, Kind.STATIC, True, (left, height, z), size, (0, 0))
                self.num_instances += 1

    def _moving(self, rng: np.random.Generator, begin: float) -> None:
        lane = self.street.right.lane
        z = begin + rng.uniform(6, 14)
        while z < begin + CHUNK:  # towards us
            kind, speed = VEHICLES[pick(rng, self.place.oncoming_kinds)], rng.uniform(0.3, 1.3)
            if rng.random() < self.place.oncoming and z > 5:
                self.add_vehicle(kind, -lane / 2, z, rng.uniform(0.94, 1.06), True, -speed)
            z += rng.uniform(16, 26)
        ahead = begin + rng.uniform(9, 24)
        if 8 < ahead < 130 and rng.random() < 0.5:  # ahead of us, about as fast as we are
            kind = VEHICLES[pick(rng, (0.66, 0.17, 0.17))]
            speed = max(self.camera_speed + rng.uniform(-0.05, 0.35), 0.0)
            self.add_vehicle(kind, lane / 2 + rng.normal(0, 0.25), ahead, rng.uniform(0.94, 1.06), False, speed)
        for _ in range(int(rng.poisson(self.place.moving_two_wheelers))):  # two-wheelers along the edge of the lane
            name, kind = (("bicycle", Kind.BICYCLE), ("motorcycle_rear", Kind.MOTORCYCLE))[int(rng.integers(2))]
            speed, where = rng.uniform(0.15, 0.5), begin + rng.uniform(0, CHUNK)
            if where > 7:
                self.add_figure(
                    self._draw(name, 1), kind, lane - rng.uniform(0, 0.5), where, 1.1, (0, speed), shade=0.4
                )
        if rng.random() < 0.4:  # people in the road
            direction = _sign(rng)
            where, x, speed = begin + rng.uniform(0, CHUNK), rng.uniform(-5, 5), rng.uniform(0.05, 0.13)
            sprite = self._draw("person", int(rng.integers(4)))
            if where > 8:
                self.add_figure(sprite, Kind.PERSON, x, where, 1.0, (direction * speed, 0))

    def _crossroads(self, rng: np.random.Generator, begin: float, end: float) -> None:
        for side, sign in ((self.street.left, -1), (self.street.right, 1)):
            sprite = self._draw("traffic_light", int(rng.integers(3)))
            if begin > 4:
                self.add_figure(sprite, Kind.LIGHT, sign * (side.road + 0.5), begin - 1.2, 1.25, (0, 0), shade=0.1)
        if begin > 12:
            for _ in range(int(rng.integers(0, 3))):
                kind = VEHICLES[pick(rng, (0.7, 0.15, 0.15))]
                direction = _sign(rng)
                z = begin + 1.5 if direction > 0 else end - 3
                self.add_crossing_vehicle(kind, rng.uniform(-30, 25), z, direction * rng.uniform(0.2, 0.8))
            if rng.random() < 0.6:
                name, kind = (("bicycle", Kind.BICYCLE), ("motorcycle", Kind.MOTORCYCLE))[int(rng.integers(2))]
                x, velocity = rng.uniform(-8, 8), _sign(rng) * rng.uniform(0.15, 0.4)
                self.add_figure(self._draw(name, 1), kind, x, (begin + end) / 2, 1.0, (velocity, 0), shade=0.5)


def _sign(rng: np.random.Generator) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0
