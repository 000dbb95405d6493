"""The curriculum: what is trained, in which order, for how long.

Pictures and copies of a mask first, then small motion, then everything; small frames before large
ones, and the trunk's own weights last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from phoneward.export.train.loop import Schedule
from phoneward.export.train.tam.batch import Sampling

EPOCH = 20
"""Steps between two checkpoints."""
TRUNK = "image_encoder.trunk."


@dataclass(frozen=True)
class Part:
    """One part of the curriculum.

    Attributes:
        name: of the part.
        sampling: the clips of a step.
        schedule: `epochs` of `EPOCH` steps each.
        trunk: share of the learning rate for the trunk; 0 leaves it as ImageNet made it.
        correct: share of the steps in which errors are clicked.
        focal: weight of the focal loss.
    """

    name: str
    sampling: Sampling
    schedule: Schedule
    trunk: float = 0.0
    correct: float = 0.3
    focal: float = 10.0

    @property
    def rates(self) -> dict[str, float]:
        """What `Phase` takes."""
        return {TRUNK: self.trunk}


def _schedule(steps: int, rate: float) -> Schedule:
    return Schedule(epochs=steps // EPOCH, batch=1, rate=rate, decay=0.02, clip=1.0)


CURRICULUM = (
    Part(
        "still",
        Sampling("still", 128, 2, clips=8, masks=0.8),
        _schedule(400, 1e-3),
        focal=3.0,
        correct=0.0,
    ),
    Part("slow", Sampling("slow", 128, 3, clips=8), _schedule(800, 1e-3)),
    Part("full", Sampling("full", 192, 4, clips=6, masks=0.6, stride=2), _schedule(1000, 6e-4)),
    Part(
        "large",
        Sampling("full", 256, 5, clips=4, masks=0.6, stride=2),
        _schedule(800, 3e-4),
        trunk=0.1,
    ),
)


def shortened(curriculum: tuple[Part, ...], share: float) -> tuple[Part, ...]:
    """The same parts for `share` of their steps, an epoch each at the least."""
    return tuple(
        replace(
            part,
            schedule=replace(part.schedule, epochs=max(1, round(share * part.schedule.epochs))),
        )
        for part in curriculum
    )
