"""One thing that could be exported, and what it would take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from phoneward.export.clip import tracks
from phoneward.export.kernels.names import kernels_of_stage
from phoneward.export.models.family import ModelCard
from phoneward.export.recipe import Recipe
from phoneward.profiles.kernels import StageKernels
from phoneward.profiles.predict.predictor import Target
from phoneward.profiles.report.schema import Predicted

Predict = Callable[[Sequence[StageKernels], Target], Predicted]
"""Prices graphs that run one after another."""

# a tracker runs `prompt` on prompted frames alone
_NOT_ON_EVERY_FRAME = ("prompt",)
# the only stage that reads the memory bank: the others are the same whatever its knobs
_READS_MEMORY = ("propagate",)


@dataclass(frozen=True)
class Choice:
    """A variant with its memory as `card` has it, made by one recipe."""

    card: ModelCard
    recipe: Recipe

    def __str__(self) -> str:
        """Return the model, its format and precision, and knobs that are turned."""
        knobs = self.card.knobs
        slots = knobs.memory_slots
        turned = [
            f"{slots} memory slot{'s' if slots != 1 else ''}" if slots else "",
            "pooled memory" if knobs.pooled_memory else "",
            "" if knobs.object_pointers else "no object pointers",
        ]
        return ", ".join([f"{self.card.name} as {self.recipe}", *filter(None, turned)])


@dataclass(frozen=True)
class Priced:
    """A choice with the prediction of a frame, and of each of its stages."""

    choice: Choice
    frame: Predicted
    stages: tuple[tuple[str, Predicted], ...]

    @property
    def slowest(self) -> tuple[str, Predicted]:
        """The stage that takes longest."""
        return max(self.stages, key=lambda stage: stage[1].latency_ms)


def frame_of(choice: Choice) -> tuple[StageKernels, ...]:
    """Return the kernels of the stages that every frame runs, in order."""
    card = choice.card
    skipped = _NOT_ON_EVERY_FRAME if tracks(card) else ()
    return tuple(_kernels(choice, stage.name) for stage in card.stages if stage.name not in skipped)


def _kernels(choice: Choice, stage: str) -> StageKernels:
    from phoneward.export.models import find

    card = choice.card
    if tracks(card) and stage not in _READS_MEMORY:
        card = find(card.name)[0]
    return kernels_of_stage(card, stage, choice.recipe)


def target_of(device: str, recipe: Recipe) -> Target:
    """Return what a recipe's artifact would run on."""
    return Target(device=device, runtime=recipe.format, precision=recipe.precision)


def price(choice: Choice, device: str, predict: Predict) -> Priced:
    """Predict a frame of a choice and each stage alone; raises as `predict` does."""
    target, frame = target_of(device, choice.recipe), frame_of(choice)
    stages = tuple((stage.stage, predict([stage], target)) for stage in frame)
    whole = stages[0][1] if len(stages) == 1 else predict(frame, target)
    return Priced(choice, whole, stages)
