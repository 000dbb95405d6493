"""What a clip is asked to be, and what it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoneward.errors import InvalidSpec, UnknownName

_SIDES = (32, 2048)
MOST_OBJECTS = 8


@dataclass(frozen=True)
class Level:
    """How hard a clip is. Speeds are shares of the frame's side a frame.

    Attributes:
        slowest: lower bound of the mean speed of what moves.
        fastest: its upper bound; single steps can be twice that.
        pan: upper bound of the camera's mean speed at a pace of 1; clips have up to 1.4.
        turn: upper bound of the mean rotation in degrees a frame at that pace.
        bend: largest amplitude of deformation as a share of an object's size.
        flicker: whether light and noise differ between frames.
        events: whether objects jump, leave and return, and are covered by what passes.
    """

    slowest: float
    fastest: float
    pan: float
    turn: float
    bend: float
    flicker: bool
    events: bool


LEVELS: dict[str, Level] = {
    "image": Level(0, 0, 0, 0, 0, flicker=False, events=False),
    "still": Level(0, 0, 0, 0, 0, flicker=True, events=False),
    "slow": Level(0.001, 0.012, 0.006, 1.0, 0.03, flicker=True, events=False),
    "full": Level(0.002, 0.06, 0.03, 4.0, 0.09, flicker=True, events=True),
}
"""The levels by name, in the order of a curriculum."""


@dataclass(frozen=True)
class ClipRecipe:
    """What to generate.

    Attributes:
        size: side of a square frame in pixels, or (width, height).
        frames: number of frames, at least 1.
        level: a name of `LEVELS`.
        objects: the least and the most objects a scene is drawn with. One that turns out to be
            hidden in frame 0 is not annotated, so that a clip can have fewer, never none.
    """

    size: int | tuple[int, int] = 256
    frames: int = 24
    level: str = "full"
    objects: tuple[int, int] = (1, 4)

    def __post_init__(self) -> None:
        """Raise `UnknownName` or `InvalidSpec` unless every field is in its range."""
        if self.level not in LEVELS:
            raise UnknownName("level", self.level, LEVELS)
        if not all(_SIDES[0] <= side <= _SIDES[1] for side in (self.width, self.height)):
            raise InvalidSpec(f"size {self.size} is not within {_SIDES[0]} to {_SIDES[1]} pixels")
        if self.frames < 1:
            raise InvalidSpec(f"a clip of {self.frames} frames")
        least, most = self.objects
        if not 1 <= least <= most <= MOST_OBJECTS:
            raise InvalidSpec(f"objects {self.objects} are not within 1 to {MOST_OBJECTS}")

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def side(self) -> float:
        """The side of a square of the frame's area, in pixels: the unit of speeds."""
        return float(np.sqrt(self.width * self.height))


@dataclass(frozen=True)
class Clip:
    """A video clip with a mask for each of its objects.

    Attributes:
        frames: (n, H, W, 3) uint8, RGB.
        masks: (n, H, W) uint8: 0 the background, 1 to `objects` the object that is seen there.
        objects: number of objects; each is seen in frame 0.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    objects: int
