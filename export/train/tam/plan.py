"""The curriculum: what is trained, in which order, for how long.

Single pictures first, then small motion, then everything; small frames before large ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from phoneward.export.train.loop import Schedule
from phoneward.export.train.tam.batch import Sampling
from phoneward.export.train.tam.losses import LossWeights

EPOCH = 20
"""Steps between two checkpoints."""
TRUNK = "image_encoder.trunk."
# what several parts are trained on
_PICTURES = Sampling("image", 256, 1, clips=8, objects=3, masks=0.15, reuse=4)
_CLIPS = Sampling("full", 256, 8, clips=3, objects=3, masks=0.5, stride=3, reuse=4)
_SLOW = Sampling("slow", 256, 3, clips=6, objects=3, masks=0.6, stride=2, reuse=4)
_PLAIN = LossWeights(focal=10.0, outline=0.0)
_OUTLINED = LossWeights(focal=10.0, outline=0.5)


@dataclass(frozen=True)
class Part:
    """One part of the curriculum.

    Attributes:
        name: of the part.
        samplings: the clips of a step, in turn; all of one size.
        schedule: `epochs` of `EPOCH` steps each.
        trunk: share of the learning rate for the trunk; 0 leaves it as ImageNet made it.
        correct: share of the steps in which errors are clicked.
        weights: of the losses.
        mean_with: the earlier part with whose weights its own are averaged in the end, or "".
        average: as `Phase` has it.
    """

    name: str
    samplings: tuple[Sampling, ...]
    schedule: Schedule
    trunk: float = 0.0
    correct: float = 0.3
    weights: LossWeights = _PLAIN
    mean_with: str = ""
    average: float = 0.0

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self.samplings[0].size

    @property
    def frames(self) -> int:
        """Frames of the longest clips."""
        return max(each.frames for each in self.samplings)

    @property
    def rates(self) -> dict[str, float]:
        """What `Phase` takes."""
        return {TRUNK: self.trunk}


def _schedule(steps: int, rate: float, end: float) -> Schedule:
    """From one rate to another; how much a step sees is up to `Sampling`."""
    epochs = steps // EPOCH
    return Schedule(epochs=epochs, batch=1, rate=rate, decay=0.02, clip=1.0, end=end / rate)


def _alike(sampling: Sampling) -> Sampling:
    """Let things look alike, in any colour."""
    return replace(sampling, alike=0.6, recolour=0.5)


CURRICULUM = (
    Part(
        "image",
        (Sampling("image", 128, 1, clips=16, objects=2, masks=0.25, reuse=4),),
        _schedule(1600, 4e-3, 2e-3),
        correct=0.2,
        weights=LossWeights(focal=3.0, outline=0.0),
    ),
    Part(
        "slow",
        (Sampling("slow", 128, 3, clips=8, objects=3, masks=0.4, stride=2, reuse=4),),
        _schedule(800, 2e-3, 1.5e-3),
        correct=0.2,
        weights=LossWeights(focal=5.0, outline=0.0),
    ),
    Part(
        "full",
        (Sampling("full", 128, 5, clips=8, objects=3, stride=3, reuse=4),),
        _schedule(1000, 1.5e-3, 1e-3),
    ),
    Part(
        "large",
        (Sampling("full", 256, 5, clips=4, objects=3, masks=0.6, stride=4, reuse=4),),
        _schedule(500, 1e-3, 6e-4),
    ),
    # as many frames as the memory bank holds, and one
    Part(
        "long",
        (Sampling("full", 256, 8, clips=3, objects=3, masks=0.6, stride=3, reuse=4),),
        _schedule(500, 6e-4, 2e-5),
    ),
    # from here on the trunk learns too
    Part(
        "prompts",
        (_PICTURES,),
        _schedule(400, 1e-3, 1e-3),
        trunk=0.3,
    ),
    Part(
        "tuned",
        (Sampling("full", 256, 5, clips=4, objects=3, masks=0.5, stride=4, reuse=4),),
        _schedule(300, 1e-3, 8e-4),
        trunk=0.3,
    ),
    Part(
        "eight",
        (_CLIPS,),
        _schedule(700, 8e-4, 2e-5),
        trunk=0.3,
    ),
    # from here on outlines count: masks had lost a sixth of their IoU in a copy of the same frame
    Part(
        "outlines",
        (_PICTURES,),
        _schedule(300, 1e-3, 1e-3),
        trunk=0.3,
        weights=_OUTLINED,
    ),
    Part(
        "copies",
        (Sampling("slow", 256, 3, clips=6, objects=4, masks=0.6, stride=2, reuse=4),),
        _schedule(300, 1e-3, 8e-4),
        trunk=0.3,
        correct=0.1,
        weights=_OUTLINED,
    ),
    Part(
        "last",
        (_CLIPS,),
        _schedule(500, 8e-4, 2e-5),
        trunk=0.3,
        weights=_OUTLINED,
        mean_with="eight",
    ),
    # all that was trained apart, in turn
    Part(
        "mixed",
        (_CLIPS, _PICTURES, _CLIPS, _SLOW),
        _schedule(1000, 6e-4, 1e-4),
        trunk=0.3,
        weights=_OUTLINED,
        mean_with="last",
        average=0.995,
    ),
    # the same of things that look alike and in any colour: such clips had been followed worst
    Part(
        "alike",
        tuple(map(_alike, (_CLIPS, _PICTURES, _CLIPS, replace(_SLOW, masks=0.4)))),
        _schedule(2000, 8e-4, 2e-5),
        trunk=0.3,
        weights=_OUTLINED,
        average=0.995,
    ),
)


def shortened(curriculum: tuple[Part, ...], share: float) -> tuple[Part, ...]:
    """The same parts for `share` of their steps, an epoch each at the least.

    Means over steps reach as far back in each part as they did.
    """
    return tuple(_for(part, max(1, round(share * part.schedule.epochs))) for part in curriculum)


def _for(part: Part, epochs: int) -> Part:
    schedule = replace(part.schedule, epochs=epochs)
    average = part.average ** (part.schedule.epochs / epochs)
    return replace(part, schedule=schedule, average=average)
