"""What a user asks `export` for, turned into a checked list of artifacts to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phoneward.errors import InvalidSpec
from phoneward.export.backends import BACKENDS
from phoneward.export.models import find
from phoneward.export.models.family import ModelCard
from phoneward.export.recipe import Recipe
from phoneward.names import Precision
from phoneward.profiles.device import load_device


@dataclass(frozen=True)
class ExportRequest:
    """A checked request: a model, whose weights, and one recipe an artifact to make."""

    model: ModelCard
    weights: str
    devices: tuple[str, ...]
    recipes: tuple[Recipe, ...]


def make_request(
    model: str,
    weights: str,
    devices: Sequence[str] = (),
    formats: Sequence[str] = (),
    precisions: Sequence[Precision] = (),
) -> ExportRequest:
    """Check every name and decide the artifacts.

    Devices name their formats and precisions; `formats` and `precisions` then narrow those down.
    Without a device, every format is made at every precision given (fp32 unless given).

    Raises:
        UnknownName: no such model, device or format.
        InvalidSpec: nothing to make, or a format has no such precision.
    """
    card, _ = find(model)
    for name in formats:
        BACKENDS.entry(name)
    wanted = _of_devices(devices) if devices else _of_formats(formats, precisions)
    recipes = [
        recipe
        for recipe in wanted
        if (not formats or recipe.format in formats)
        and (not precisions or recipe.precision in precisions)
    ]
    if not recipes:
        raise InvalidSpec(_nothing(devices, wanted))
    return ExportRequest(card, weights, tuple(devices), _merged(recipes))


def _of_devices(names: Sequence[str]) -> list[Recipe]:
    recipes = []
    for name in names:
        device = load_device(name)
        for export in device.exports:
            target = device.deployment_target if export.format == "coreml" else None
            recipes.append(Recipe(export.format, export.precision, target))
    return recipes


def _of_formats(formats: Sequence[str], precisions: Sequence[Precision]) -> list[Recipe]:
    if not formats:
        raise InvalidSpec("nothing to export: name at least one --device or --format")
    recipes = []
    for name in formats:
        backend = BACKENDS.get(name)
        for precision in precisions or (Precision.FP32,):
            if precision not in backend.precisions:
                known = ", ".join(str(p) for p in backend.precisions)
                raise InvalidSpec(f"format {name} has no precision '{precision}'; known: {known}")
            recipes.append(Recipe(name, precision, next(iter(backend.targets), None)))
    return recipes


def _merged(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """One recipe a (format, precision): of several targets the oldest runs on all devices."""
    merged: dict[tuple[str, Precision], Recipe] = {}
    for recipe in recipes:
        key = (recipe.format, recipe.precision)
        other = merged.get(key)
        if other is None or (recipe.target or "") < (other.target or ""):
            merged[key] = recipe
    return tuple(merged.values())


def _nothing(devices: Sequence[str], wanted: Sequence[Recipe]) -> str:
    offered = ", ".join(str(recipe) for recipe in _merged(wanted))
    return f"nothing to export: {', '.join(devices)} takes {offered}"
