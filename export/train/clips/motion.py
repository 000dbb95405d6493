"""Smooth random motion: of places, angles and sizes, and of the camera."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """Where something is in each of n frames.

    Attributes:
        centres: (n, 2), x and y in pixels of the frame.
        angles: (n,) in radians, clockwise as y points down.
        scales: (n, 2) along the thing's own axes, in pixels of the frame a pixel of its picture.
        shears: (n,) of its x by its y.
    """

    centres: Floats
    angles: Floats
    scales: Floats
    shears: Floats

    def matrices(self) -> Floats:
        """Return (n, 2, 2): offsets from the picture's middle to offsets in the frame."""
        cos, sin = np.cos(self.angles), np.sin(self.angles)
        turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        one, none = np.ones_like(self.shears), np.zeros_like(self.shears)
        shear = np.stack([np.stack([one, self.shears], -1), np.stack([none, one], -1)], -2)
        matrices: Floats = turn @ shear * self.scales[:, None, :]
        return matrices

    def attached(self, offset: Floats, swing: Floats) -> Path:
        """Return the path of a part whose middle is at `offset` (2,) in the picture.

        It turns about this thing's middle by `swing` (n,) radians.
        """
        cos, sin = np.cos(swing), np.sin(swing)
        x, y = offset
        arm = np.stack([cos * x - sin * y, sin * x + cos * y], -1)
        moved = self.centres + np.einsum("nij,nj->ni", self.matrices(), arm)
        return replace(self, centres=moved, angles=self.angles + swing)


def still(centre: tuple[float, float], frames: int) -> Path:
    """Return the path of what does not move."""
    return Path(
        np.tile(np.array(centre, float), (frames, 1)),
        np.zeros(frames),
        np.ones((frames, 2)),
        np.zeros(frames),
    )


def smooth(rng: np.random.Generator, frames: int, speed: float) -> Floats:
    """Draw a smooth walk (frames,) from 0 with that mean absolute step, steps at most twice it."""
    if frames < 2 or speed == 0:
        return np.zeros(frames)
    time = np.arange(frames - 1)
    steps = np.full(frames - 1, rng.normal(0, 1))
    for _ in range(3):
        period = rng.uniform(5, 60)
        steps += rng.normal(0, 1) * np.sin(2 * np.pi * (time / period + rng.random()))
    steps *= speed / max(float(np.abs(steps).mean()), 1e-9)
    return np.concatenate([[0.0], np.cumsum(np.clip(steps, -2 * speed, 2 * speed))])


def waver(rng: np.random.Generator, frames: int, height: float, fastest: float) -> Floats:
    """Draw an oscillation (frames,) of at most `height`, at most `fastest` a frame.

    It starts anywhere within its range.
    """
    if frames < 2 or height == 0 or fastest == 0:
        return np.zeros(frames)
    period = max(rng.uniform(8, 40), 2 * np.pi * height / fastest)
    wave: Floats = height * np.sin(2 * np.pi * (np.arange(frames) / period + rng.random()))
    return wave


def wander(rng: np.random.Generator, frames: int, speed: float) -> Floats:
    """Draw a smooth walk in the plane (frames, 2) from 0; `speed` is the mean step in pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    along = np.abs(smooth(rng, frames, speed)) if rng.random() < 0.6 else smooth(rng, frames, speed)
    across = smooth(rng, frames, speed * rng.uniform(0, 0.5))
    direction = np.array([np.cos(angle), np.sin(angle)])
    walk: Floats = along[:, None] * direction + across[:, None] * direction[::-1] * [-1, 1]
    return walk


def jumps(rng: np.random.Generator, frames: int, distance: float) -> Floats:
    """Draw one or two sudden moves (frames, 2), within two frames each, of about `distance`."""
    moves = np.zeros((frames, 2))
    for _ in range(int(rng.integers(1, 3))):
        start = int(rng.integers(1, max(frames, 2)))
        moves[start:] += rng.normal(0, distance, 2) / 2
        moves[start + 1 :] += rng.normal(0, distance, 2) / 2
    return moves


def folded(centres: Floats, low: Floats, high: Floats) -> Floats:
    """Reflect places (n, 2) at the sides of a box, so that they stay in it."""
    extent = np.maximum(high - low, 1e-6)
    phase = np.mod(centres - low, 2 * extent)
    inside: Floats = low + np.minimum(phase, 2 * extent - phase)
    return inside


def excursion(rng: np.random.Generator, frames: int, away: Floats, fastest: float) -> Floats | None:
    """Draw a way (frames, 2) from 0 to `away` and mostly back, or None if it takes too long.

    `fastest` is the longest step in pixels.
    """
    distance = float(np.hypot(*away))
    travel = int(np.ceil(1.5 * distance / fastest))  # a smooth start and end is 1.5 times as fast
    if travel + 1 > frames - 1:
        return None
    returns = 2 * travel + 1 <= frames - 1 and rng.random() < 0.85
    latest = frames - 1 - travel * (2 if returns else 1)
    leave = int(rng.integers(0, max(latest - 1, 0) + 1))
    longest = max(frames - 1 - leave - 2 * travel, 1)
    absent = int(rng.integers(1, longest + 1))
    time = np.arange(frames)
    out = _eased((time - leave) / travel)
    back = _eased((time - leave - travel - absent) / travel) if returns else np.zeros(frames)
    aside = rng.normal(0, 0.25 * distance, 2)
    way: Floats = (out - back)[:, None] * away + back[:, None] * aside
    return way


def _eased(t: Floats) -> Floats:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
