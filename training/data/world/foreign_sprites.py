"""Drawings of what else looks otherwise abroad: people in coats, signs, lights, palms, and clutter on the pavement."""

from collections.abc import Callable

import numpy as np

from training.data.world.canvas import Canvas, Sprite
from training.data.world.materials import Material


def person(variant: int) -> Sprite:
    """A pedestrian in a long coat; some carry an umbrella, some wear a wide hat."""
    c = Canvas(1.1, 2.1, 96)
    stride = (0.04, 0.12, 0.08, 0.15)[variant % 4]
    for side in (-1, 1):
        c.line(Material.TROUSERS, 0.12, (0.55 + 0.06 * side, 0.5), (0.55 + stride * side, 0.04))
    c.polygon(Material.TOP, (0.4, 1.45), (0.7, 1.45), (0.84, 0.35), (0.26, 0.35))
    c.line(Material.TOP, 0.11, (0.42, 1.36), (0.28, 0.95))
    c.line(Material.TOP, 0.11, (0.68, 1.36), (0.82, 1.15))
    c.disc(Material.SKIN, 0.55, 1.57, 0.1, 0.12)
    if variant % 2:
        c.line(Material.RUBBER, 0.03, (0.82, 1.1), (0.72, 2.0))
        c.polygon(Material.TOP, (0.3, 1.74), (1.1, 1.74), (0.96, 1.98), (0.7, 2.08), (0.44, 1.98))
    else:
        c.disc(Material.HAIR, 0.55, 1.68, 0.24, 0.05)
        c.disc(Material.HAIR, 0.55, 1.72, 0.12, 0.09)
    return c.sprite()


def sign(variant: int) -> Sprite:
    """A traffic sign: a board or a diamond on a pole, a blade between two, or an octagon."""
    c = Canvas(1.3, 3.0, 64)
    match variant % 4:
        case 0:
            c.box(Material.POLE, 0.61, 0, 0.69, 2.0)
            c.polygon(Material.SIGN, (0.65, 1.75), (1.2, 2.35), (0.65, 2.95), (0.1, 2.35))
            c.box(Material.RUBBER, 0.58, 2.05, 0.72, 2.65)
        case 1:
            for x in (0.15, 1.15):
                c.box(Material.POLE, x - 0.04, 0, x + 0.04, 2.9)
            c.box(Material.SIGN, 0, 1.9, 1.3, 2.9)
            for bottom in (2.1, 2.35, 2.6):
                c.box(Material.SIGN_MARK, 0.15, bottom, 1.0, bottom + 0.1)
        case 2:
            c.box(Material.POLE, 0.61, 0, 0.69, 2.9)
            for bottom in (2.0, 2.45):
                c.polygon(
                    Material.SIGN,
                    (0.05, bottom),
                    (1.05, bottom),
                    (1.28, bottom + 0.18),
                    (1.05, bottom + 0.36),
                    (0.05, bottom + 0.36),
                )
        case _:
            c.box(Material.POLE, 0.61, 0, 0.69, 2.0)
            angles = np.arange(8) * np.pi / 4 + np.pi / 8
            corners = ((0.65 + 0.5 * float(np.cos(a)), 2.35 + 0.5 * float(np.sin(a))) for a in angles)
            c.polygon(Material.SIGN, *corners)
            c.box(Material.SIGN_MARK, 0.3, 2.25, 1.0, 2.45)
    return c.sprite()


def traffic_light(variant: int) -> Sprite:
    """A traffic light that lies on its pole, one of the three lamps lit."""
    c = Canvas(1.8, 3.8, 64)
    c.box(Material.POLE, 0.84, 0, 0.96, 3.1)
    c.box(Material.LIGHT_BOX, 0.02, 3.02, 1.78, 3.78)
    for lamp in range(3):
        c.disc(Material.LAMP_ON if lamp == variant % 3 else Material.LAMP_OFF, 0.36 + 0.54 * lamp, 3.4, 0.22)
    return c.sprite()


def street_lamp(_: int) -> Sprite:
    """A lantern on a short, thick post: pole all over."""
    c = Canvas(1.6, 4.4, 32)
    c.box(Material.POLE, 0.1, 0, 0.34, 3.6)
    c.box(Material.POLE, 0.02, 0, 0.42, 0.6)
    c.polygon(Material.POLE, (0.02, 3.6), (0.42, 3.6), (0.5, 4.1), (0.22, 4.38), (0, 4.1))
    return c.sprite()


def tree(variant: int) -> Sprite:
    """A palm, a poplar or an umbrella pine."""
    c = Canvas(5, 8, 32)
    if variant % 3 == 0:
        c.polygon(Material.TRUNK, (2.3, 0), (2.7, 0), (2.75, 6.2), (2.55, 6.2))
        for angle in np.linspace(-0.5, np.pi + 0.5, 9):
            x, y = 2.65 + 1.2 * float(np.cos(angle)), 6.3 + 0.9 * float(np.sin(angle))
            tip = (2.65 + 2.2 * float(np.cos(angle)), 5.9 + 1.0 * float(np.sin(angle)))
            c.line(Material.FOLIAGE, 0.45, (2.65, 6.2), (x, y))
            c.line(Material.FOLIAGE, 0.35, (x, y), tip)
    elif variant % 3 == 1:
        c.box(Material.TRUNK, 2.38, 0, 2.62, 1.2)
        c.disc(Material.FOLIAGE, 2.5, 4.2, 0.85, 3.6)
    else:
        c.line(Material.TRUNK, 0.3, (2.4, 0), (2.6, 2.4), (2.45, 4.6))
        c.line(Material.TRUNK, 0.2, (2.5, 3.4), (3.6, 4.8))
        c.disc(Material.FOLIAGE, 2.5, 5.0, 2.4, 0.75)
        c.disc(Material.FOLIAGE, 2.9, 5.5, 1.5, 0.6)
    return c.sprite()


def bush(variant: int) -> Sprite:
    """A clipped bush: a box or a cone in a tub."""
    c = Canvas(1.4, 1.8, 48)
    c.polygon(Material.TRUNK, (0.3, 0), (1.1, 0), (1.2, 0.5), (0.2, 0.5))
    if variant % 2:
        c.box(Material.FOLIAGE, 0.1, 0.45, 1.3, 1.4)
    else:
        c.polygon(Material.FOLIAGE, (0.1, 0.45), (1.3, 0.45), (0.7, 1.8))
    return c.sprite()


def stall(variant: int) -> Sprite:
    """A market stall under an awning."""
    c = Canvas(2.4, 2.5, 48)
    for x in (0.15, 2.25):
        c.box(Material.TRUNK, x - 0.05, 0, x + 0.05, 2.0)
    c.box(Material.CARGO, 0.1, 0, 2.3, 0.85)
    for number in range(5):
        c.disc(Material.TOP if (number + variant) % 2 else Material.BICYCLE_PAINT, 0.35 + 0.42 * number, 0.95, 0.2)
    c.polygon(Material.TOP, (0, 1.95), (2.4, 1.95), (2.15, 2.5), (0.25, 2.5))
    for left in np.arange(0.0, 2.4, 0.8):
        c.box(Material.SIGN_MARK, float(left), 1.85, float(left) + 0.4, 2.1)
    return c.sprite()


def crates(variant: int) -> Sprite:
    """Piled crates."""
    c = Canvas(1.5, 1.6, 48)
    for left, bottom in ((0.0, 0.0), (0.75, 0.0), (0.3 if variant % 2 else 0.7, 0.75)):
        c.box(Material.CARGO, left, bottom, left + 0.7, bottom + 0.7)
        c.line(Material.TRUNK, 0.07, (left, bottom + 0.35), (left + 0.7, bottom + 0.35))
    return c.sprite()


def bin_(_: int) -> Sprite:
    """A rubbish bin."""
    c = Canvas(0.7, 1.1, 64)
    c.polygon(Material.LIGHT_BOX, (0.08, 0), (0.62, 0), (0.7, 0.9), (0, 0.9))
    c.box(Material.SIGN, 0, 0.9, 0.7, 1.08)
    return c.sprite()


def garland(_: int) -> Sprite:
    """A rope with pennants across the street."""
    c = Canvas(12, 1.6, 24)
    x = np.linspace(0, 12, 17)
    y = 0.8 + 0.7 * ((x - 6) / 6) ** 2
    c.line(Material.RUBBER, 0.08, *((float(a), float(b)) for a, b in zip(x, y, strict=True)))
    for number in range(1, 16):
        a, b = float(x[number]), float(y[number])
        c.polygon(Material.TOP if number % 2 else Material.SIGN_MARK, (a - 0.28, b), (a + 0.28, b), (a, b - 0.7))
    return c.sprite()


DRAWINGS: dict[str, Callable[[int], Sprite]] = {
    "person": person,
    "sign": sign,
    "traffic_light": traffic_light,
    "street_lamp": street_lamp,
    "tree": tree,
    "bush": bush,
    "stall": stall,
    "crates": crates,
    "bin": bin_,
    "garland": garland,
}
