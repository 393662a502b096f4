"""The pinhole camera on the car: rays, projection, and its path along the street."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.world.places import HOME, Place


@dataclass(frozen=True)
class Pose:
    """Where the camera is and where it looks."""

    position: NDArray[np.float64]  # (3,) metres
    rotation: NDArray[np.float64]  # (3, 3), camera axes (right, up, forward) to world axes


@dataclass(frozen=True)
class Intrinsics:
    """From pixels to rays. Pixel centres have integer coordinates."""

    height: int  # pixels
    width: int  # pixels
    focal_length: float = HOME.focal_length  # image widths
    horizon: float = HOME.horizon  # image heights from the top, of a level camera

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.focal_length * self.width

    @property
    def center(self) -> tuple[float, float]:
        """Principal point (x, y) in pixels."""
        return (self.width - 1) / 2, self.horizon * self.height - 0.5

    def directions(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """(..., 3) rays in camera axes through image points, of depth 1."""
        center_x, center_y = self.center
        return np.stack([(x - center_x) / self.focal, (center_y - y) / self.focal, np.ones_like(x)], -1)

    def project(self, points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Image coordinates x and y of (..., 3) points in camera axes with positive depth."""
        center_x, center_y = self.center
        scale = self.focal / points[..., 2]
        return center_x + points[..., 0] * scale, center_y - points[..., 1] * scale


def rotation(yaw: float, pitch: float) -> NDArray[np.float64]:
    """(3, 3) camera to world; yaw turns to the right, pitch upwards, in radians."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    tilt = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return np.asarray(turn @ tilt)


def drive(rng: np.random.Generator, place: Place, lane: float, num_frames: int) -> tuple[Pose, ...]:
    """A drive along the street in the lane around x = `lane` metres.

    The heading drifts by N(0, 0.012) rad per frame, in every eighth clip by N(0, 0.035), and is pulled back to the
    street. Numbers are drawn frame by frame: a longer drive begins like a shorter one.
    """
    height = rng.uniform(*place.camera_height)
    speed = 0.0 if rng.random() < 0.06 else rng.uniform(0.5, 1.6)  # metres per frame
    unrest = 0.035 if rng.random() < 0.125 else 0.012
    x, z, yaw = lane + rng.normal(0, 0.25), 0.0, rng.normal(0, 0.03)
    base_pitch = rng.normal(place.camera_pitch, 0.008)
    poses = []
    for _ in range(num_frames):
        pitch = base_pitch + rng.normal(0, 0.0015)
        poses.append(Pose(np.array([x, height, z]), rotation(yaw, pitch)))
        if speed:
            z += speed
            x += 0.1 * (lane - x)
            yaw = 0.88 * yaw + rng.normal(0, unrest)
    return tuple(poses)
