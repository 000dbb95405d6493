"""What a clip shows, as data: a ground, layers over it from back to front, and the light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from phoneward.export.train.clips.camera import Ground
from phoneward.export.train.clips.light import Light
from phoneward.export.train.clips.motion import Floats, Path
from phoneward.export.train.clips.sprites import Sprite
from phoneward.export.train.clips.warp import Waves


@dataclass(frozen=True)
class Shadow:
    """What a layer darkens below it; no part of its mask.

    Attributes:
        offset: x and y in pixels.
        strength: from 0 to 1.
        blur: radius in pixels.
    """

    offset: tuple[int, int]
    strength: float
    blur: int


@dataclass(frozen=True)
class Layer:
    """A sprite on its way.

    Attributes:
        owner: the object, from 1, that it is or is a part of; 0: none.
        shutter: share of a frame's time in which light comes in.
    """

    sprite: Sprite
    owner: int
    path: Path
    waves: Waves | None = None
    shutter: float = 0.0
    shadow: Shadow | None = None

    @cached_property
    def matrices(self) -> Floats:
        """The path's matrices, (n, 2, 2)."""
        return self.path.matrices()

    def velocity(self, time: int) -> Floats:
        """Return the move (2,) from the frame before, in pixels; of frame 0 that to the next."""
        centres = self.path.centres
        if len(centres) < 2:
            return np.zeros(2)
        step: Floats = centres[max(time, 1)] - centres[max(time, 1) - 1]
        return step


@dataclass(frozen=True)
class Scene:
    """A whole clip before it is rendered.

    Attributes:
        size: width and height in pixels.
        shutter: as a layer's, of the ground.
        objects: the owners are 1 to this.
    """

    size: tuple[int, int]
    ground: Ground
    layers: tuple[Layer, ...]
    light: Light
    objects: int
    shutter: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether anything but the light changes between frames."""
        paths = [layer.path for layer in self.layers]
        over_time = [self.ground.corners]
        over_time += [each for path in paths for each in (path.centres, path.angles)]
        over_time += [each for path in paths for each in (path.scales, path.shears)]
        wavering = any(layer.waves for layer in self.layers)
        return wavering or any((each != each[0]).any() for each in over_time)

    def tracking(self, owners: list[int]) -> Scene:
        """Return the scene with only these objects, renumbered from 1; the others are nobody's."""
        number = {owner: place + 1 for place, owner in enumerate(owners)}
        layers = tuple(replace(each, owner=number.get(each.owner, 0)) for each in self.layers)
        return replace(self, layers=layers, objects=len(owners))
