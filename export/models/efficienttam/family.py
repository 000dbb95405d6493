"""EfficientTAM in the zoo: its cards, its weights, its stages, its rewrites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from phoneward.export.models.efficienttam.specs import image_spec, stages
from phoneward.export.models.efficienttam.variants import PARAMETERS, VARIANTS, Variant
from phoneward.export.models.family import ModelCard

if TYPE_CHECKING:
    from torch import Tensor, nn

    from phoneward.export.recipe import Recipe

HUB = "yunyangx/efficient-track-anything"

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EfficientTAMFamily:
    """Video object segmentation with memory: stages encode, prompt, propagate and memorize."""

    def cards(self) -> Iterable[ModelCard]:
        """Return the eight official variants."""
        return [card_of(variant) for variant in VARIANTS.values()]

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
            "encode": Normalized(graphs.Encode(model), _MEAN, _STD, variant.image).eval(),
            "prompt": graphs.Prompt(model).eval(),
            "propagate": graphs.Propagate(model).eval(),
            "memorize": graphs.Memorize(model).eval(),
        }

    def rewrites(self, card: ModelCard, recipe: Recipe) -> tuple[str, ...]:
        """Return the rewrites of a recipe, in order."""
        return ()

    def labels(self, card: ModelCard) -> None:
        """It does not classify."""
        return


def card_of(variant: Variant) -> ModelCard:
    """Return the card of a variant, official or not."""
    return ModelCard(
        name=variant.name,
        family="efficienttam",
        architecture="efficienttam",
        stages=stages(variant),
        image=image_spec(variant),
        parameters=PARAMETERS[variant.name],
        licence="apache-2.0",
        hub=HUB,
        hub_file=f"{variant.name}.pt",
    )


def variant_of(card: ModelCard) -> Variant:
    """Return the variant that a card describes."""
    return VARIANTS[card.name]


EFFICIENTTAM = EfficientTAMFamily()
