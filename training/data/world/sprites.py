"""The drawings of everything that stands in the street, by name, drawn once."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from training.data.world import foreign_sprites, foreign_vehicle_sprites, vehicle_sprites
from training.data.world.canvas import Canvas, Sprite
from training.data.world.materials import Material


def person(variant: int) -> Sprite:
    """A pedestrian in one of four poses."""
    c = Canvas(0.8, 1.76, 96)
    stride = (0.07, 0.2, 0.13, 0.26)[variant % 4]
    swing = (0.05, 0.16, -0.1, 0.22)[variant % 4]
    for side in (-1, 1):
        c.line(
            Material.TROUSERS,
            0.15,
            (0.4 + 0.05 * side, 0.85),
            (0.4 + stride * side * 0.8, 0.45),
            (0.4 + stride * side, 0.06),
        )
        c.box(Material.RUBBER, 0.4 + stride * side - 0.06, 0, 0.4 + stride * side + 0.1, 0.08)
        c.line(Material.TOP, 0.1, (0.4 + 0.16 * side, 1.4), (0.4 + side * (0.2 + swing * 0.3), 1.12))
        c.line(Material.SKIN, 0.08, (0.4 + side * (0.2 + swing * 0.3), 1.12), (0.4 + side * (0.16 + swing * 0.6), 0.86))
    c.polygon(Material.TOP, (0.22, 1.45), (0.58, 1.45), (0.53, 0.8), (0.27, 0.8))
    c.box(Material.SKIN, 0.36, 1.42, 0.44, 1.54)
    c.disc(Material.HAIR, 0.4, 1.64, 0.115, 0.12)
    c.disc(Material.SKIN, 0.4 + (0.03 if variant % 2 else 0.0), 1.6, 0.085, 0.1)
    return c.sprite()


def sign(variant: int) -> Sprite:
    """A traffic sign on its pole: no entry, direction, warning or board."""
    c = Canvas(0.9, 3.0, 64)
    c.box(Material.POLE, 0.41, 0, 0.49, 2.4)
    match variant % 4:
        case 0:
            c.disc(Material.SIGN, 0.45, 2.5, 0.44)
            c.box(Material.SIGN_MARK, 0.15, 2.42, 0.75, 2.58)
        case 1:
            c.disc(Material.SIGN, 0.45, 2.5, 0.44)
            c.polygon(
                Material.SIGN_MARK,
                (0.4, 2.2),
                (0.5, 2.2),
                (0.5, 2.55),
                (0.62, 2.55),
                (0.45, 2.8),
                (0.28, 2.55),
                (0.4, 2.55),
            )
        case 2:
            c.polygon(Material.SIGN, (0.0, 2.15), (0.9, 2.15), (0.45, 2.97))
            c.polygon(Material.SIGN_MARK, (0.17, 2.25), (0.73, 2.25), (0.45, 2.76))
        case _:
            c.box(Material.SIGN, 0.02, 2.1, 0.88, 2.95)
            c.box(Material.SIGN_MARK, 0.15, 2.3, 0.75, 2.42)
            c.box(Material.SIGN_MARK, 0.15, 2.6, 0.75, 2.72)
    return c.sprite()


def traffic_light(variant: int) -> Sprite:
    """A traffic light on its pole, one of the three lamps lit."""
    c = Canvas(0.6, 3.7, 64)
    c.box(Material.POLE, 0.25, 0, 0.35, 2.4)
    c.box(Material.LIGHT_BOX, 0.04, 2.3, 0.56, 3.68)
    for lamp in range(3):
        c.disc(Material.LAMP_ON if lamp == variant % 3 else Material.LAMP_OFF, 0.3, 3.44 - 0.43 * lamp, 0.17)
    return c.sprite()


def street_lamp(_: int) -> Sprite:
    """A lamp post: pole all over."""
    c = Canvas(1.6, 6.5, 24)
    c.box(Material.POLE, 0.06, 0, 0.22, 6.2)
    c.line(Material.POLE, 0.1, (0.14, 6.1), (0.6, 6.42), (1.5, 6.42))
    c.box(Material.POLE, 1.0, 6.32, 1.56, 6.46)
    return c.sprite()


def tree(variant: int) -> Sprite:
    """A broad-leaved tree, or a conifer every fourth variant."""
    c = Canvas(5, 7, 32)
    c.polygon(Material.TRUNK, (2.32, 0), (2.68, 0), (2.58, 3.5), (2.42, 3.5))
    if variant % 4 == 3:
        for level in range(4):
            half, bottom = 1.9 - 0.4 * level, 1.1 + 1.3 * level
            c.polygon(Material.FOLIAGE, (2.5 - half, bottom), (2.5 + half, bottom), (2.5, bottom + 2.0))
        return c.sprite()
    rng = np.random.default_rng(variant)  # the drawing is fixed: only where it stands depends on the clip's seed
    c.disc(Material.FOLIAGE, 2.5, 4.6, 1.55, 1.5)
    for angle in np.arange(0, 2 * np.pi, 0.7):
        radius = rng.uniform(0.6, 0.95)
        c.disc(Material.FOLIAGE, 2.5 + 1.45 * float(np.cos(angle)), 4.6 + 1.35 * float(np.sin(angle)), float(radius))
    return c.sprite()


def bush(variant: int) -> Sprite:
    """A bush."""
    c = Canvas(2.2, 1.5, 48)
    rng = np.random.default_rng(variant)
    for x in np.linspace(0.45, 1.75, 5):
        c.disc(Material.FOLIAGE, float(x), 0.5, 0.45, float(rng.uniform(0.5, 0.95)))
    c.box(Material.FOLIAGE, 0.3, 0, 1.9, 0.5)
    return c.sprite()


def end_wall(_: int) -> Sprite:
    """The windowless side of a building, seen along the street through a gap."""
    c = Canvas(1, 1, 16)
    c.box(Material.FACADE, 0, 0, 1, 0.93)
    c.box(Material.ROOF, 0, 0.93, 1, 1)
    return c.sprite()


DRAWINGS: dict[str, Callable[[int], Sprite]] = {
    "car_rear": vehicle_sprites.car_rear,
    "car_front": vehicle_sprites.car_front,
    "car_cabin": vehicle_sprites.car_cabin,
    "car_side": vehicle_sprites.car_side,
    "truck_rear": vehicle_sprites.truck_rear,
    "truck_front": vehicle_sprites.truck_front,
    "truck_cargo": vehicle_sprites.truck_cargo,
    "truck_side": vehicle_sprites.truck_side,
    "bus_rear": vehicle_sprites.bus_rear,
    "bus_front": vehicle_sprites.bus_front,
    "bus_side": vehicle_sprites.bus_side,
    "person": person,
    "bicycle": vehicle_sprites.bicycle,
    "motorcycle": vehicle_sprites.motorcycle,
    "motorcycle_rear": vehicle_sprites.motorcycle_rear,
    "sign": sign,
    "traffic_light": traffic_light,
    "street_lamp": street_lamp,
    "tree": tree,
    "bush": bush,
    "end_wall": end_wall,
}


STYLES = {
    "home": DRAWINGS,
    "abroad": DRAWINGS | foreign_vehicle_sprites.DRAWINGS | foreign_sprites.DRAWINGS,
}


@lru_cache(maxsize=256)
def draw(name: str, variant: int = 0, style: str = "home") -> Sprite:
    """The drawing of this name in one of the `STYLES`."""
    return STYLES[style][name](variant)
