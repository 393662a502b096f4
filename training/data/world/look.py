"""What a look is: the palette of every material, its texture and patterns, the camera's effects, and the place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.world.materials import NUM_MATERIALS, Material
from training.data.world.places import HOME, Place, Range

Color = tuple[float, float, float]  # RGB, 0..255


@dataclass(frozen=True)
class CameraEffects:
    """What light, air, lens and sensor do to a clip's frames, in the order in which it is done."""

    haze: Range  # 1/m, what is at depth d keeps exp(-haze d) of its colour
    saturation: Range  # factor
    exposure: Range  # factor
    warmth: Range  # relative gain of red, and loss of blue
    contrast: Range  # factor around mid grey
    gamma: Range  # exponent of the values 0..1
    vignette: Range  # share of light that the corners lose
    blur: Range  # pixels at 192 columns, standard deviation
    noise: Range  # grey levels, standard deviation


class Bond(NamedTuple):
    """Joints between bricks or stones."""

    length: float  # metres
    height: float  # metres
    depth: float  # share of light that the joints lose


@dataclass(frozen=True)
class Patterns:
    """What is painted on surfaces beside the noise."""

    slab: float = 0.8  # metres, side of the slabs of the pavement
    plank: float = 0.24  # metres, width of the planks of a fence
    window: tuple[float, float] = (0.52, 0.26)  # height of the middle and half the height of windows, in storeys
    bonds: Mapping[Material, Bond] = field(default_factory=dict)
    # factors of the wavelengths of a material's texture along the surface and across it; 1 for all others
    stretch: Mapping[Material, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """The appearance of a place. Geometry, labels and flow depend on it by `place` alone."""

    name: str
    palettes: Mapping[Material, tuple[Color, ...]]  # each instance takes one colour; looks list them in the same order
    textures: Mapping[Material, tuple[float, float, float, float]]  # relative standard deviation of the octaves
    jitter: float  # relative standard deviation of an instance's colour
    shade: float  # share of light that surfaces turned from the sun, and the ground under objects, lose
    haze_color: Color
    effects: CameraEffects
    place: Place = HOME
    patterns: Patterns = Patterns()

    def color_table(self, rng: np.random.Generator, num_instances: int) -> NDArray[np.float32]:
        """(num_instances, materials, 3) colours, RGB 0..255. Looks spend equal random numbers."""
        choice = rng.random((num_instances, NUM_MATERIALS))
        jitter = 1 + self.jitter * rng.standard_normal((num_instances, NUM_MATERIALS, 1))
        tint = 1 + 0.4 * self.jitter * rng.standard_normal((num_instances, NUM_MATERIALS, 3))
        table = np.zeros((num_instances, NUM_MATERIALS, 3))
        for material, palette in self.palettes.items():
            table[:, material] = np.array(palette)[(choice[:, material] * len(palette)).astype(int)]
        return np.clip(table * jitter * tint, 0, 255).astype(np.float32)

    def texture_table(self) -> NDArray[np.float32]:
        """(materials, 4) relative standard deviations."""
        table = np.zeros((NUM_MATERIALS, 4), np.float32)
        for material, amplitudes in self.textures.items():
            table[material] = amplitudes
        return table
