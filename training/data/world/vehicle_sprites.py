"""Drawings of cars, trucks, buses and two-wheelers."""

import numpy as np

from training.data.world.canvas import Canvas, Sprite
from training.data.world.materials import Material


def wheel(canvas: Canvas, x: float, radius: float) -> None:
    """A wheel on the ground, seen from the side."""
    canvas.disc(Material.RUBBER, x, radius, radius)
    canvas.disc(Material.PLATE, x, radius, 0.5 * radius)
    canvas.disc(Material.RUBBER, x, radius, 0.15 * radius)


def car_rear(_: int) -> Sprite:
    """A hatchback from behind."""
    c = Canvas(1.8, 1.48, 64)
    for left in (0.12, 1.38):
        c.box(Material.RUBBER, left, 0, left + 0.3, 0.4)
    c.polygon(
        Material.CAR_PAINT,
        (0.04, 0.24),
        (1.76, 0.24),
        (1.8, 0.86),
        (1.77, 0.98),
        (1.68, 1.46),
        (0.12, 1.46),
        (0.03, 0.98),
        (0, 0.86),
    )
    c.polygon(Material.GLASS, (0.2, 0.96), (1.6, 0.96), (1.52, 1.37), (0.28, 1.37))
    c.box(Material.RUBBER, 0.08, 0.24, 1.72, 0.38)
    c.box(Material.PLATE, 0.62, 0.52, 1.18, 0.66)
    for left in (0.05, 1.45):
        c.box(Material.TAIL_LAMP, left, 0.66, left + 0.3, 0.86)
    return c.sprite()


def car_front(_: int) -> Sprite:
    """The lower part of a car seen from the front, up to the edge of the bonnet."""
    c = Canvas(1.8, 0.92, 64)
    for left in (0.12, 1.38):
        c.box(Material.RUBBER, left, 0, left + 0.3, 0.4)
    c.polygon(Material.CAR_PAINT, (0.04, 0.22), (1.76, 0.22), (1.8, 0.72), (1.6, 0.9), (0.2, 0.9), (0, 0.72))
    c.box(Material.RUBBER, 0.5, 0.5, 1.3, 0.72)
    c.box(Material.RUBBER, 0.3, 0.24, 1.5, 0.38)
    c.box(Material.PLATE, 0.65, 0.38, 1.15, 0.5)
    for left in (0.08, 1.34):
        c.box(Material.HEADLAMP, left, 0.56, left + 0.38, 0.74)
    return c.sprite()


def car_cabin(_: int) -> Sprite:
    """Windscreen and roof above the bonnet; hidden below by `car_front`."""
    c = Canvas(1.8, 1.48, 64)
    c.polygon(Material.CAR_PAINT, (0.05, 0.1), (1.75, 0.1), (1.79, 0.94), (1.7, 1.46), (0.1, 1.46), (0.01, 0.94))
    c.polygon(Material.GLASS, (0.15, 0.97), (1.65, 0.97), (1.54, 1.38), (0.26, 1.38))
    return c.sprite()


def car_side(_: int) -> Sprite:
    """A hatchback from the side, rear on the left."""
    c = Canvas(4.2, 1.48, 48)
    c.polygon(
        Material.CAR_PAINT,
        *(
            (0.02, 0.3),
            (0, 0.86),
            (0.3, 1.4),
            (0.6, 1.47),
            (1.9, 1.47),
            (2.35, 1.38),
            (3.05, 0.96),
            (4.0, 0.84),
            (4.2, 0.6),
            (4.18, 0.28),
        ),
    )
    c.polygon(Material.GLASS, (0.42, 0.96), (0.56, 1.34), (1.32, 1.38), (1.32, 0.96))
    c.polygon(Material.GLASS, (1.42, 0.96), (1.42, 1.38), (1.95, 1.38), (2.3, 1.3), (2.85, 0.96))
    c.box(Material.TAIL_LAMP, 0, 0.68, 0.16, 0.86)
    c.box(Material.HEADLAMP, 4.0, 0.6, 4.2, 0.74)
    c.box(Material.RUBBER, 0.2, 0.22, 4.1, 0.32)
    wheel(c, 0.8, 0.34)
    wheel(c, 3.4, 0.34)
    return c.sprite()


def truck_rear(_: int) -> Sprite:
    """A box truck from behind."""
    c = Canvas(2.4, 3.4, 40)
    for left in (0.15, 1.65):
        c.box(Material.RUBBER, left, 0, left + 0.6, 0.85)
    c.box(Material.TRUCK_PAINT, 0.05, 0.55, 2.35, 0.95)
    c.box(Material.CARGO, 0, 0.95, 2.4, 3.4)
    c.line(Material.RUBBER, 0.05, (1.2, 1.05), (1.2, 3.3))
    c.line(Material.RUBBER, 0.06, (0.06, 1.0), (0.06, 3.34), (2.34, 3.34), (2.34, 1.0), (0.06, 1.0))
    for left in (0.1, 1.95):
        c.box(Material.TAIL_LAMP, left, 0.62, left + 0.35, 0.86)
    c.box(Material.PLATE, 0.95, 0.66, 1.45, 0.82)
    return c.sprite()


def truck_front(_: int) -> Sprite:
    """The cab of a truck."""
    c = Canvas(2.4, 2.75, 40)
    for left in (0.15, 1.75):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.6)
    c.polygon(Material.TRUCK_PAINT, (0, 0.35), (2.4, 0.35), (2.4, 1.5), (2.25, 2.7), (0.15, 2.7), (0, 1.5))
    c.polygon(Material.GLASS, (0.15, 1.5), (2.25, 1.5), (2.12, 2.4), (0.28, 2.4))
    c.box(Material.RUBBER, 0.45, 0.75, 1.95, 1.25)
    for left in (0.08, 1.82):
        c.box(Material.HEADLAMP, left, 0.5, left + 0.5, 0.72)
    return c.sprite()


def truck_cargo(_: int) -> Sprite:
    """The cargo box above the cab, seen from the front."""
    c = Canvas(2.4, 3.4, 40)
    c.box(Material.CARGO, 0, 0.9, 2.4, 3.4)
    return c.sprite()


def truck_side(_: int) -> Sprite:
    """A box truck from the side, rear on the left."""
    c = Canvas(8, 3.4, 32)
    c.box(Material.RUBBER, 0.3, 0.55, 7.6, 0.8)
    c.box(Material.CARGO, 0, 0.9, 6, 3.4)
    for x in (1.5, 3, 4.5):
        c.line(Material.RUBBER, 0.04, (x, 1), (x, 3.3))
    c.polygon(Material.TRUCK_PAINT, (6.1, 0.4), (8, 0.4), (8, 1.5), (7.75, 2.7), (6.1, 2.7))
    c.polygon(Material.GLASS, (6.5, 1.5), (7.92, 1.5), (7.72, 2.4), (6.5, 2.4))
    for x in (1.2, 2.2, 7.0):
        wheel(c, x, 0.48)
    return c.sprite()


def bus_rear(_: int) -> Sprite:
    """A city bus from behind."""
    c = Canvas(2.5, 3.0, 40)
    for left in (0.15, 1.85):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.6)
    c.polygon(Material.BUS_PAINT, (0, 0.3), (2.5, 0.3), (2.5, 2.8), (2.35, 3), (0.15, 3), (0, 2.8))
    c.box(Material.GLASS, 0.25, 1.6, 2.25, 2.45)
    c.box(Material.PLATE, 0.5, 2.6, 2.0, 2.85)
    c.box(Material.RUBBER, 0.5, 0.75, 2.0, 1.2)
    for left in (0.08, 2.17):
        c.box(Material.TAIL_LAMP, left, 0.6, left + 0.25, 1.3)
    return c.sprite()


def bus_front(_: int) -> Sprite:
    """A city bus from the front, with its destination on top."""
    c = Canvas(2.5, 3.0, 40)
    for left in (0.15, 1.85):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.6)
    c.polygon(Material.BUS_PAINT, (0, 0.3), (2.5, 0.3), (2.5, 2.8), (2.35, 3), (0.15, 3), (0, 2.8))
    c.box(Material.GLASS, 0.15, 1.1, 2.35, 2.5)
    c.line(Material.BUS_PAINT, 0.06, (1.25, 1.1), (1.25, 2.5))
    c.box(Material.SIGN_MARK, 0.5, 2.6, 2.0, 2.88)
    for left in (0.1, 1.85):
        c.box(Material.HEADLAMP, left, 0.55, left + 0.55, 0.8)
    return c.sprite()


def bus_side(_: int) -> Sprite:
    """A city bus from the side, rear on the left."""
    c = Canvas(11, 3.0, 32)
    c.box(Material.BUS_PAINT, 0, 0.3, 11, 3)
    for left in np.arange(0.4, 10, 1.75):
        c.box(Material.GLASS, float(left), 1.5, float(left) + 1.5, 2.5)
    for left in (4.0, 9.3):
        c.box(Material.GLASS, left, 0.4, left + 1.1, 2.5)
        c.line(Material.BUS_PAINT, 0.06, (left + 0.55, 0.4), (left + 0.55, 2.5))
    c.box(Material.PLATE, 0, 1.15, 11, 1.25)
    for x in (2.2, 8.3):
        wheel(c, x, 0.5)
    return c.sprite()


def _two_wheeler(c: Canvas, paint: Material) -> None:
    for x in (0.36, 1.44):
        c.disc(Material.RUBBER, x, 0.33, 0.33)
        c.disc(paint if paint is Material.MOTORCYCLE_PAINT else Material.NOTHING, x, 0.33, 0.2)
    if paint is Material.BICYCLE_PAINT:
        frame = ((0.36, 0.33), (0.66, 0.8), (1.28, 0.8), (0.84, 0.3), (0.66, 0.8), (0.84, 0.3), (0.36, 0.33))
        c.line(paint, 0.08, *frame)
        c.line(paint, 0.08, (1.44, 0.33), (1.26, 0.98), (1.1, 1.04))
        c.box(Material.RUBBER, 0.5, 0.86, 0.8, 0.95)
    else:
        c.polygon(paint, (0.1, 0.62), (0.5, 0.42), (1.2, 0.36), (1.5, 0.7), (1.3, 0.98), (1.05, 0.84), (0.4, 0.84))
        c.line(Material.RUBBER, 0.1, (1.44, 0.33), (1.22, 1.05), (1.06, 1.08))
        c.box(Material.RUBBER, 0.3, 0.8, 0.95, 0.9)
        c.disc(Material.HEADLAMP, 1.42, 0.86, 0.09)


def _rider(c: Canvas) -> None:
    c.line(Material.TROUSERS, 0.17, (0.68, 0.95), (1.02, 0.78), (0.9, 0.35))
    c.polygon(Material.TOP, (0.52, 0.92), (0.82, 0.92), (1.05, 1.42), (0.76, 1.5))
    c.line(Material.TOP, 0.1, (0.92, 1.36), (1.16, 1.08))
    c.disc(Material.HAIR, 0.98, 1.64, 0.13, 0.14)
    c.disc(Material.SKIN, 1.03, 1.59, 0.08, 0.09)


def bicycle(variant: int) -> Sprite:
    """A bicycle from the side; odd variants carry a rider."""
    c = Canvas(1.8, 1.8, 64)
    _two_wheeler(c, Material.BICYCLE_PAINT)
    if variant % 2:
        _rider(c)
    return c.sprite()


def motorcycle(variant: int) -> Sprite:
    """A motorcycle from the side; odd variants carry a rider."""
    c = Canvas(1.8, 1.8, 64)
    _two_wheeler(c, Material.MOTORCYCLE_PAINT)
    if variant % 2:
        _rider(c)
    return c.sprite()


def motorcycle_rear(variant: int) -> Sprite:
    """A motorcycle seen along the road; odd variants carry a rider."""
    c = Canvas(0.9, 1.75, 64)
    c.box(Material.RUBBER, 0.36, 0, 0.54, 0.6)
    c.polygon(Material.MOTORCYCLE_PAINT, (0.24, 0.45), (0.66, 0.45), (0.72, 0.85), (0.6, 1.0), (0.3, 1.0), (0.18, 0.85))
    c.box(Material.TAIL_LAMP, 0.36, 0.66, 0.54, 0.78)
    c.line(Material.RUBBER, 0.07, (0.05, 1.08), (0.3, 0.98), (0.6, 0.98), (0.85, 1.08))
    if variant % 2:
        for side in (-1, 1):
            c.line(
                Material.TROUSERS,
                0.14,
                (0.45 + 0.1 * side, 0.95),
                (0.45 + 0.26 * side, 0.7),
                (0.45 + 0.24 * side, 0.35),
            )
            c.line(Material.TOP, 0.1, (0.45 + 0.18 * side, 1.4), (0.45 + 0.38 * side, 1.1))
        c.polygon(Material.TOP, (0.26, 0.9), (0.64, 0.9), (0.66, 1.44), (0.24, 1.44))
        c.disc(Material.HAIR, 0.45, 1.6, 0.13, 0.14)
    return c.sprite()
