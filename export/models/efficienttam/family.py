"""EfficientTAM in the zoo: its cards, its weights, its stages, its rewrites."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from phoneward.errors import InvalidSpec
from phoneward.export.models.efficienttam.specs import image_spec, stages
from phoneward.export.models.efficienttam.variants import (
    MOST_SLOTS,
    NANO,
    PARAMETERS,
    POINT_SLOTS,
    POINTER_SLOTS,
    VARIANTS,
    Trunk,
    Variant,
)
from phoneward.export.models.family import Examples, Knobs, ModelCard

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.export.recipe import Recipe

_FOLDED = ("tam_windows", "tam_memory", "tam_memory_encoder")
REWRITES = {
    "*": _FOLDED,
    "executorch": (*_FOLDED, "linear_norm"),
    "executorch-fp16": (*_FOLDED, "linear_norm", "half_activations"),
}
HUB = "yunyangx/efficient-track-anything"

# of the photographs that each trunk was trained on
NORMS: Mapping[Trunk, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "vit": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "lite0": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
TRAINING = "phoneward train efficienttam-nano"


class EfficientTAMFamily:
    """Video object segmentation with memory: stages encode, prompt, propagate and memorize."""

    def cards(self) -> Iterable[ModelCard]:
        """Return the eight official variants, and the small one that Phoneward trained."""
        return [card_of(variant) for variant in VARIANTS.values()]

    def configure(self, card: ModelCard, knobs: Knobs) -> ModelCard:
        """Return the card with another bank: its slots, its pooling, its pointers.

        Raises:
            InvalidSpec: slots out of range, or pooling where it is done already or never would be.
        """
        official = VARIANTS[card.name]
        slots = knobs.memory_slots
        if slots is not None and not 1 <= slots <= MOST_SLOTS:
            raise InvalidSpec(f"{card.name}: memory slots must be 1 to {MOST_SLOTS}, not {slots}")
        if knobs.pooled_memory and official.pooling is not None:
            raise InvalidSpec(f"{card.name} pools its memory already")
        if knobs.pooled_memory and slots == 1:
            raise InvalidSpec(f"{card.name}: the only memory of a bank is never pooled")
        if slots == official.slots:
            knobs = dataclasses.replace(knobs, memory_slots=None)
        turned = dataclasses.replace(card, knobs=knobs)
        return dataclasses.replace(turned, stages=stages(variant_of(turned)))

    def fitted(self, card: ModelCard, weights: Path) -> ModelCard:
        """Return the card: the name says all of a variant."""
        return card

    def batched(self, card: ModelCard, batch: int) -> ModelCard:
        """Return the card; its graphs take one frame, so others raise `InvalidSpec`."""
        if batch != 1:
            raise InvalidSpec(f"{card.name}: its graphs take one frame at a time, not {batch}")
        return card

    def constants(self, card: ModelCard) -> dict[str, int | float | str]:
        """Return the sizes of a host's arrays, and how the memory is pooled."""
        variant = variant_of(card)
        return {
            "image_size": variant.image,
            "memory_slots": variant.slots,
            "pointer_slots": POINTER_SLOTS if variant.pointers else 0,
            "point_slots": POINT_SLOTS,
            "memory_channels": variant.widths.memory,
            "pooling": variant.pooling or "none",
        }

    def examples(self, card: ModelCard, modules: Mapping[str, nn.Module]) -> Mapping[str, Examples]:
        """Return inputs made by the stages themselves from two photographs."""
        from phoneward.export.models.efficienttam.examples import examples

        return examples(card, modules)

    def build(self, card: ModelCard, state: Mapping[str, Tensor] | None) -> dict[str, nn.Module]:
        """Build the model, load an official state dict strictly, and cut it into stages."""
        from phoneward.export.models.efficienttam import stages as graphs
        from phoneward.export.models.efficienttam.model import EfficientTAM
        from phoneward.export.models.normalize import Normalized
        from phoneward.export.weights import SEED, load_strictly

        variant = variant_of(card)
        model = EfficientTAM(variant).eval()
        if state is None:
            model.randomise(SEED)
        else:
            load_strictly(model, state, card.name)
        model.requires_grad_(False)
        return {
            "encode": Normalized(graphs.Encode(model), *NORMS[variant.trunk], variant.image).eval(),
            "prompt": graphs.Prompt(model).eval(),
            "propagate": graphs.Propagate(model).eval(),
            "memorize": graphs.Memorize(model).eval(),
        }

    def rewrites(self, card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
        """Return the rewrites of a recipe, in order."""
        names = REWRITES.get(str(recipe), REWRITES.get(recipe.format, REWRITES["*"]))
        if VARIANTS[card.name].trunk == "vit":
            return names
        return tuple(name for name in names if name != "tam_windows")

    def labels(self, card: ModelCard) -> None:
        """It does not classify."""
        return


def card_of(variant: Variant) -> ModelCard:
    """Return the card of a variant, official or not."""
    ours = variant.name == NANO.name
    return ModelCard(
        name=variant.name,
        family="efficienttam",
        # of its own: no target of latency trades an official model for it
        architecture=variant.name if ours else "efficienttam",
        stages=stages(variant),
        image=image_spec(variant),
        parameters=PARAMETERS[variant.name],
        licence="apache-2.0",
        hub=None if ours else HUB,
        hub_file=f"{variant.name}.pt",
        shipped=f"{variant.name}.safetensors" if ours else None,
        training=TRAINING if ours else None,
    )


def variant_of(card: ModelCard) -> Variant:
    """Return the variant that a card describes, its knobs applied."""
    official, knobs = VARIANTS[card.name], card.knobs
    return dataclasses.replace(
        official,
        slots=knobs.memory_slots or official.slots,
        pooling="logits" if knobs.pooled_memory else official.pooling,
        pointers=knobs.object_pointers,
    )


EFFICIENTTAM = EfficientTAMFamily()
