"""Drawings of the vehicles abroad: vans, tankers, double-deckers, carrier bicycles and motor tricycles."""

from collections.abc import Callable

import numpy as np

from training.data.world.canvas import Canvas, Sprite
from training.data.world.materials import Material
from training.data.world.vehicle_sprites import wheel


def van_rear(_: int) -> Sprite:
    """A tall van from behind: two doors, small windows, a spare wheel."""
    c = Canvas(1.75, 1.95, 64)
    for left in (0.08, 1.42):
        c.box(Material.RUBBER, left, 0, left + 0.25, 0.4)
    c.polygon(Material.CAR_PAINT, (0, 0.22), (1.75, 0.22), (1.75, 1.6), (1.6, 1.95), (0.15, 1.95), (0, 1.6))
    for left in (0.2, 0.95):
        c.box(Material.GLASS, left, 1.3, left + 0.6, 1.66)
    c.line(Material.RUBBER, 0.04, (0.875, 0.3), (0.875, 1.85))
    c.disc(Material.RUBBER, 0.875, 0.82, 0.33)
    c.disc(Material.CAR_PAINT, 0.875, 0.82, 0.2)
    for left in (0.02, 1.57):
        c.box(Material.TAIL_LAMP, left, 0.6, left + 0.16, 1.2)
    return c.sprite()


def van_front(_: int) -> Sprite:
    """A tall van from the front: a flat nose with round lamps under a large screen."""
    c = Canvas(1.75, 1.95, 64)
    for left in (0.08, 1.42):
        c.box(Material.RUBBER, left, 0, left + 0.25, 0.4)
    c.polygon(Material.CAR_PAINT, (0, 0.22), (1.75, 0.22), (1.75, 1.2), (1.6, 1.95), (0.15, 1.95), (0, 1.2))
    c.polygon(Material.GLASS, (0.1, 1.12), (1.65, 1.12), (1.52, 1.72), (0.23, 1.72))
    c.box(Material.PLATE, 0.1, 0.28, 1.65, 0.42)
    for x in (0.3, 1.45):
        c.disc(Material.HEADLAMP, x, 0.72, 0.16)
    return c.sprite()


def van_side(_: int) -> Sprite:
    """A tall van from the side, rear on the left."""
    c = Canvas(4.0, 1.95, 48)
    c.polygon(Material.CAR_PAINT, (0, 0.3), (0, 1.7), (0.2, 1.95), (3.3, 1.95), (3.8, 1.15), (4.0, 0.9), (4.0, 0.3))
    c.polygon(Material.GLASS, (2.45, 1.15), (2.45, 1.72), (3.2, 1.72), (3.6, 1.15))
    c.box(Material.GLASS, 0.35, 1.35, 0.85, 1.7)
    c.line(Material.RUBBER, 0.04, (2.3, 0.35), (2.3, 1.8))
    c.box(Material.PLATE, 0.05, 0.95, 2.25, 1.05)
    c.box(Material.TAIL_LAMP, 0, 0.6, 0.12, 1.2)
    c.box(Material.HEADLAMP, 3.86, 0.62, 4.0, 0.82)
    wheel(c, 0.75, 0.33)
    wheel(c, 3.2, 0.33)
    return c.sprite()


def tanker_rear(_: int) -> Sprite:
    """A tanker from behind: a round tank on wheels, with a ladder."""
    c = Canvas(2.4, 3.0, 40)
    for left in (0.15, 1.65):
        c.box(Material.RUBBER, left, 0, left + 0.6, 0.9)
    c.box(Material.TRUCK_PAINT, 0.1, 0.7, 2.3, 1.05)
    c.disc(Material.CARGO, 1.2, 1.9, 1.15, 1.1)
    c.disc(Material.PLATE, 1.2, 1.9, 0.35)
    c.line(Material.TRUCK_PAINT, 0.1, (0.9, 0.9), (0.9, 2.9))
    for left in (0.1, 1.95):
        c.box(Material.TAIL_LAMP, left, 0.72, left + 0.35, 0.96)
    return c.sprite()


def tanker_front(_: int) -> Sprite:
    """The long-nosed cab of a tanker."""
    c = Canvas(2.4, 2.4, 40)
    for left in (0.1, 1.8):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.8)
    c.box(Material.TRUCK_PAINT, 0.05, 0.5, 2.35, 1.0)
    c.polygon(Material.TRUCK_PAINT, (0.5, 0.5), (1.9, 0.5), (1.8, 1.5), (0.6, 1.5))
    c.polygon(Material.TRUCK_PAINT, (0.3, 1.4), (2.1, 1.4), (1.95, 2.4), (0.45, 2.4))
    c.polygon(Material.GLASS, (0.45, 1.55), (1.95, 1.55), (1.85, 2.15), (0.55, 2.15))
    c.box(Material.PLATE, 0.75, 0.6, 1.65, 1.35)
    for x in (0.3, 2.1):
        c.disc(Material.HEADLAMP, x, 0.8, 0.18)
    return c.sprite()


def tanker_tank(_: int) -> Sprite:
    """The tank behind the cab, seen from the front."""
    c = Canvas(2.4, 3.0, 40)
    c.disc(Material.CARGO, 1.2, 1.9, 1.15, 1.1)
    return c.sprite()


def tanker_side(_: int) -> Sprite:
    """A tanker from the side, rear on the left."""
    c = Canvas(8.5, 3.0, 32)
    c.box(Material.RUBBER, 0.2, 0.6, 8.2, 0.8)
    c.polygon(
        Material.CARGO, (0, 1.3), (0.3, 0.8), (5.4, 0.8), (5.7, 1.3), (5.7, 2.5), (5.4, 3.0), (0.3, 3.0), (0, 2.5)
    )
    c.box(Material.TRUCK_PAINT, 0, 1.75, 5.7, 2.05)
    c.polygon(Material.TRUCK_PAINT, (5.9, 0.5), (8.5, 0.5), (8.5, 1.3), (7.4, 1.45), (7.2, 2.4), (5.9, 2.4))
    c.polygon(Material.GLASS, (6.1, 1.5), (7.2, 1.5), (7.08, 2.2), (6.1, 2.2))
    for x in (0.9, 2.0, 4.6, 7.5):
        wheel(c, x, 0.5)
    return c.sprite()


def decker_rear(_: int) -> Sprite:
    """A double-decker from behind."""
    c = Canvas(2.5, 4.2, 40)
    for left in (0.15, 1.85):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.6)
    c.polygon(Material.BUS_PAINT, (0, 0.3), (2.5, 0.3), (2.5, 4.0), (2.3, 4.2), (0.2, 4.2), (0, 4.0))
    c.box(Material.GLASS, 0.2, 2.9, 2.3, 3.6)
    c.box(Material.SIGN_MARK, 0.3, 1.0, 2.2, 2.2)
    c.box(Material.SIGN, 0.6, 1.2, 1.4, 2.0)
    for left in (0.06, 2.24):
        c.box(Material.TAIL_LAMP, left, 0.5, left + 0.2, 0.9)
    return c.sprite()


def decker_front(_: int) -> Sprite:
    """A double-decker from the front."""
    c = Canvas(2.5, 4.2, 40)
    for left in (0.15, 1.85):
        c.box(Material.RUBBER, left, 0, left + 0.5, 0.6)
    c.polygon(Material.BUS_PAINT, (0, 0.3), (2.5, 0.3), (2.5, 4.0), (2.3, 4.2), (0.2, 4.2), (0, 4.0))
    c.box(Material.GLASS, 0.15, 1.1, 2.35, 2.0)
    c.box(Material.SIGN_MARK, 0.6, 2.15, 1.9, 2.5)
    c.box(Material.GLASS, 0.15, 2.8, 2.35, 3.7)
    for x in (0.4, 2.1):
        c.disc(Material.HEADLAMP, x, 0.7, 0.18)
    return c.sprite()


def decker_side(_: int) -> Sprite:
    """A double-decker from the side, rear on the left."""
    c = Canvas(9.5, 4.2, 32)
    c.box(Material.BUS_PAINT, 0, 0.3, 9.5, 4.2)
    c.box(Material.GLASS, 0.3, 2.9, 9.3, 3.65)
    c.box(Material.GLASS, 1.8, 1.3, 7.6, 2.0)
    c.box(Material.GLASS, 8.0, 0.4, 9.0, 2.0)
    for x in np.arange(1.2, 9, 1.2):
        c.line(Material.BUS_PAINT, 0.1, (float(x), 1.2), (float(x), 3.8))
    c.box(Material.SIGN_MARK, 1.5, 2.2, 8.0, 2.75)
    for x in (2.0, 7.0):
        wheel(c, x, 0.5)
    return c.sprite()


def _driver(c: Canvas, x: float, seat: float) -> None:
    """Head, chest and one leg above the seat, all in metres."""
    c.line(Material.TROUSERS, 0.2, (x, seat + 0.05), (x + 0.36, seat), (x + 0.3, seat - 0.5))
    c.polygon(Material.TOP, (x - 0.18, seat), (x + 0.18, seat), (x + 0.26, seat + 0.6), (x - 0.12, seat + 0.62))
    c.line(Material.TOP, 0.12, (x + 0.12, seat + 0.5), (x + 0.5, seat + 0.25))
    c.disc(Material.HAIR, x + 0.1, seat + 0.78, 0.15, 0.15)
    c.disc(Material.SKIN, x + 0.16, seat + 0.73, 0.1, 0.11)


def bicycle(variant: int) -> Sprite:
    """A carrier bicycle from the side, its box in front; odd variants carry a rider."""
    c = Canvas(2.4, 1.8, 64)
    c.disc(Material.RUBBER, 0.4, 0.4, 0.4)
    c.disc(Material.PLATE, 0.4, 0.4, 0.28)
    c.disc(Material.RUBBER, 2.0, 0.28, 0.28)
    c.polygon(Material.BICYCLE_PAINT, (1.15, 0.35), (2.25, 0.35), (2.4, 1.0), (1.05, 1.0))
    c.line(Material.BICYCLE_PAINT, 0.12, (0.4, 0.4), (0.75, 0.8), (1.2, 0.45))
    c.line(Material.BICYCLE_PAINT, 0.12, (0.4, 0.4), (1.2, 0.45))
    c.box(Material.RUBBER, 0.5, 0.8, 0.9, 0.92)
    if variant % 2:
        _driver(c, 0.7, 0.92)
    return c.sprite()


def motorcycle(variant: int) -> Sprite:
    """A motor tricycle with a roof, from the side; odd variants carry a driver."""
    c = Canvas(2.4, 1.8, 64)
    for x in (0.45, 2.0):
        c.disc(Material.RUBBER, x, 0.27, 0.27)
    c.polygon(Material.MOTORCYCLE_PAINT, (0, 0.25), (0, 0.85), (1.1, 0.85), (1.25, 0.4), (1.75, 0.4), (1.75, 0.25))
    c.polygon(Material.MOTORCYCLE_PAINT, (1.65, 0.3), (2.3, 0.4), (2.3, 0.7), (1.95, 1.0), (1.75, 1.0))
    c.polygon(Material.CARGO, (0, 1.45), (0, 1.75), (1.7, 1.8), (1.9, 1.6), (1.9, 1.45))
    c.box(Material.CARGO, 0, 0.85, 0.35, 1.5)
    c.line(Material.MOTORCYCLE_PAINT, 0.07, (1.85, 0.95), (1.8, 1.5))
    c.disc(Material.HEADLAMP, 2.25, 0.62, 0.1)
    if variant % 2:
        _driver(c, 1.1, 0.68)
    return c.sprite()


def motorcycle_rear(variant: int) -> Sprite:
    """A motor tricycle with a roof, from behind; odd variants carry a driver."""
    c = Canvas(1.3, 1.8, 64)
    for left in (0.05, 1.05):
        c.box(Material.RUBBER, left, 0, left + 0.2, 0.5)
    c.box(Material.MOTORCYCLE_PAINT, 0, 0.3, 1.3, 0.95)
    for left in (0.0, 1.2):
        c.box(Material.CARGO, left, 0.95, left + 0.1, 1.6)
    if variant % 2:
        c.polygon(Material.TOP, (0.4, 0.95), (0.9, 0.95), (0.86, 1.38), (0.44, 1.38))
        c.disc(Material.HAIR, 0.65, 1.45, 0.13, 0.13)
    c.polygon(Material.CARGO, (0, 1.52), (1.3, 1.52), (1.2, 1.8), (0.1, 1.8))
    for left in (0.05, 1.07):
        c.box(Material.TAIL_LAMP, left, 0.6, left + 0.18, 0.78)
    c.box(Material.PLATE, 0.45, 0.4, 0.85, 0.55)
    return c.sprite()


DRAWINGS: dict[str, Callable[[int], Sprite]] = {
    "van_rear": van_rear,
    "van_front": van_front,
    "van_side": van_side,
    "tanker_rear": tanker_rear,
    "tanker_front": tanker_front,
    "tanker_tank": tanker_tank,
    "tanker_side": tanker_side,
    "decker_rear": decker_rear,
    "decker_front": decker_front,
    "decker_side": decker_side,
    "bicycle": bicycle,
    "motorcycle": motorcycle,
    "motorcycle_rear": motorcycle_rear,
}
