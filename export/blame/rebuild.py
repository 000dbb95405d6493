"""PyTorch's side of a bundle, built again: the very programs that its packages were made from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phoneward import __version__
from phoneward.bundle import Bundle
from phoneward.errors import BundleError, WeightsError
from phoneward.export.backends import About, Graph
from phoneward.export.models import find
from phoneward.export.models.family import AS_IS, Knobs
from phoneward.export.recipe import Recipe
from phoneward.export.rewrites import apply_all
from phoneward.export.weights import PRETRAINED, RANDOM, SEED, WeightsFile, load, resolve

if TYPE_CHECKING:
    from torch import nn

    from phoneward.bundle import Artifact
    from phoneward.export.models.family import Family, ModelCard


@dataclass
class Rebuilt:
    """A bundle's model; built when first needed. `weights` is a file that the bundle names."""

    bundle: Bundle
    weights: Path | None = None
    _modules: dict[str, nn.Module] = field(default_factory=dict)

    def program(self, artifact: Artifact) -> Any:
        """Return the torch.export program that a Core ML artifact was converted from.

        Raises:
            UnknownName: the zoo does not have the model any more.
            WeightsError, HubUnavailable: its weights are not to be had, or are others.
            BundleError: model or rewrites are not what they were when the bundle was written.
        """
        from phoneward.export.backends.coreml import exported_program

        card, family = self._card()
        module = copy.deepcopy(self._built(card, family)[artifact.stage])
        recipe = Recipe(artifact.format, artifact.precision, artifact.target)
        names = family.rewrites(card, recipe)
        places = apply_all(module, names)
        if (applied := tuple(name for name in names if places.get(name))) != artifact.rewrites:
            raise BundleError(
                f"the rewrites of {card.name} are {', '.join(applied) or 'none'} today, and were "
                f"{', '.join(artifact.rewrites) or 'none'} when the bundle was written"
            )
        labels = ("some",) if self.bundle.manifest.labels else None
        about = About(card.name, "", "", __version__, labels)
        return exported_program(Graph(module, self.bundle.stage(artifact.stage), about))[1]

    def _card(self) -> tuple[ModelCard, Family]:
        manifest = self.bundle.manifest
        plain, family = find(manifest.model)
        for knobs in self._knobs(family.constants(plain)):
            card = family.configure(plain, knobs)
            same_constants = family.constants(card) == manifest.constants
            if same_constants and card.stages == manifest.stages:
                return card, family
        raise BundleError(f"{manifest.model} has other stages than when the bundle was written")

    def _knobs(self, plain: Mapping[str, int | float | str]) -> Iterator[Knobs]:
        yield AS_IS
        constants = self.bundle.manifest.constants
        if "memory_slots" in constants:
            yield Knobs(
                memory_slots=int(constants["memory_slots"]),
                pooled_memory=constants.get("pooling") != plain.get("pooling"),
                object_pointers=constants.get("pointer_slots") != 0,
            )

    def _built(self, card: ModelCard, family: Family) -> dict[str, nn.Module]:
        if not self._modules:
            self._modules = family.build(card, load(self._found(card)))
        return self._modules

    def _found(self, card: ModelCard) -> WeightsFile:
        stated = self.bundle.manifest.weights
        if stated.kind == RANDOM:
            if self.weights is not None:
                raise WeightsError(f"the weights are random: leave {self.weights} out")
            if stated.seed != SEED:
                raise WeightsError(f"random weights of seed {stated.seed}; today's are of {SEED}")
            return resolve(RANDOM, card)
        if self.weights is not None:
            found = resolve(str(self.weights), card)
        elif stated.kind == "file":
            raise WeightsError(f"the weights are of a file, {stated.source}; give it as --weights")
        else:
            found = resolve(PRETRAINED, card)
        if found.record.sha256 != stated.sha256:
            raise WeightsError(f"{found.record.source}: not the weights that the bundle names")
        return found
