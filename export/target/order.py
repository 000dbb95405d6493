"""In which order choices are tried: the most capable first. All of it is data.

Variants count before memory, memory before the device's own order of formats and precisions,
because half precision passes the same gate as single precision while a smaller model or a shorter
memory sees less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phoneward.errors import InvalidSpec
from phoneward.export.models import cards, find
from phoneward.export.models.efficienttam.variants import POOLED, WHOLE
from phoneward.export.models.family import AS_IS, Knobs, ModelCard

ORDER = ("variant", "memory", "format and precision as the device lists them")

# EfficientTAM by J&F on SA-V test (arXiv 2411.18933, tables 1, 4 and 5): S 74.5, S/1 74.0, S/2
# 73.9, S at 512 pixels 71.5, Ti/2 70.8, Ti 70.7; of Ti/1 and Ti at 512 pixels nothing is published
TRACKERS = (
    "efficienttam_s",
    "efficienttam_s_1",
    "efficienttam_s_2",
    "efficienttam_s_512x512",
    "efficienttam_ti_2",
    "efficienttam_ti",
    "efficienttam_ti_1",
    "efficienttam_ti_512x512",
)

# Pooling costs 0.5 of J&F on SA-V test, object pointers are worth 2.4 (same paper, tables 4 and 6);
# of fewer slots nothing is published, so they come between.
MEMORY = (
    Knobs(),
    Knobs(pooled_memory=True),
    Knobs(memory_slots=4),
    Knobs(memory_slots=4, pooled_memory=True),
    Knobs(memory_slots=2),
    Knobs(memory_slots=2, pooled_memory=True),
    Knobs(memory_slots=1),
    Knobs(memory_slots=1, object_pointers=False),
    Knobs(memory_slots=2, pooled_memory=True, object_pointers=False),
)


@dataclass(frozen=True)
class Fixed:
    """Knobs that the user turned: those stay. None: to be chosen."""

    memory_slots: int | None = None
    pooled_memory: bool | None = None
    object_pointers: bool | None = None

    def knobs(self) -> Knobs:
        """What is given, and of the rest what the model has."""
        return self.hold(AS_IS)

    def hold(self, knobs: Knobs) -> Knobs:
        """Put what is given in the place of what was to be tried."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(knobs, **given)


def variants_of(model: str) -> tuple[ModelCard, ...]:
    """Return the models of the same architecture, the most capable first.

    Trackers go by `TRACKERS`, classifiers by published accuracy, and those without any by size.
    """
    known = cards()
    alike = [card for card in known.values() if card.architecture == known[model].architecture]
    return tuple(sorted(alike, key=_rank))


def smallest(cards: Sequence[ModelCard]) -> ModelCard:
    """Return the card whose frames read least of their memory: of one model, the fastest."""
    return min(cards, key=_memory)


def _memory(card: ModelCard) -> tuple[float, int]:
    has = find(card.name)[1].constants(card)
    slots = float(has.get("memory_slots", 0))
    pooling = has.get("pooling", "none")
    if pooling == "none" or slots == 1:
        whole = slots
    else:
        whole = min(slots, WHOLE) if pooling == "older" else 0
    return whole + (slots - whole) / POOLED, int(has.get("pointer_slots", 0))


def _rank(card: ModelCard) -> tuple[float, float]:
    if card.name in TRACKERS:
        return float(TRACKERS.index(card.name)), 0.0
    return -(card.top1_percent or 0.0), -float(card.parameters)


def memories_of(card: ModelCard, fixed: Fixed) -> Iterator[ModelCard]:
    """Yield the card with one setting of its memory after the other, what is fixed kept.

    Raises `InvalidSpec` for fixed knobs that the model cannot have at all.
    """
    family = find(card.name)[1]
    tried: list[Knobs] = []
    refused: InvalidSpec | None = None
    for knobs in dict.fromkeys(fixed.hold(rung) for rung in MEMORY):
        try:
            turned = family.configure(card, knobs)
        except InvalidSpec as error:
            refused = refused or error
            continue
        if turned.knobs not in tried:
            tried.append(turned.knobs)
            yield turned
    if not tried and refused is not None:
        raise refused
