"""What a user asks `export` for, turned into a checked list of artifacts to make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phoneward.errors import InvalidSpec, WeightsError
from phoneward.export.backends import BACKENDS
from phoneward.export.models import FAMILIES, cards, find
from phoneward.export.models.family import AS_IS, Knobs, ModelCard
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
    knobs: Knobs = AS_IS,
    batch: int = 1,
) -> ExportRequest:
    """Check every name and decide the artifacts.

    Devices name their formats and precisions; `formats` and `precisions` then narrow those down.
    Without a device, every format is made at every precision given (fp32 unless given).
    A weights file that bears another model's name is refused: models that differ in size or in
    the memory's pooling alone have the same keys and shapes, so that loading would not notice.

    Raises:
        UnknownName: no such model, device or format.
        InvalidSpec: a device or format named would get no artifact, or there is none to make; or
            the model has no such knob, or no graphs for that many images at a time (`batch`).
        WeightsError: the weights file is named after another model.
        MissingExtra: a package that the model or a format needs is not installed.
    """
    card, family = find(model)
    card = family.configure(card, knobs)
    _check_name(weights, card.name)
    if (path := Path(weights)).is_file():
        card = family.fitted(card, path)
    card = family.batched(card, batch)
    for name in formats:
        BACKENDS.entry(name)
    if devices:
        recipes = _of_devices(devices, formats, precisions)
    else:
        recipes = _of_formats(formats, precisions)
    FAMILIES.require(card.family)
    for recipe in recipes:
        BACKENDS.require(recipe.format)
    return ExportRequest(card, weights, tuple(devices), _merged(recipes))


def keep_in_float(request: ExportRequest, names: Sequence[str]) -> ExportRequest:
    """Ask for ops, modules or `AUTO` to stay in single precision in Core ML's half precision.

    Raises `InvalidSpec` if no half-precision Core ML package is to be made.
    """
    if not names:
        return request
    recipes = tuple(
        replace(recipe, keep_fp32=tuple(dict.fromkeys(names))) if _halves(recipe) else recipe
        for recipe in request.recipes
    )
    if recipes == request.recipes:
        raise InvalidSpec(
            f"nothing to keep in fp32: only coreml-fp16 can, and this is {_listed(recipes)}"
        )
    return replace(request, recipes=recipes)


def _halves(recipe: Recipe) -> bool:
    return recipe.format == "coreml" and recipe.precision is Precision.FP16


def _check_name(weights: str, model: str) -> None:
    named = Path(weights).stem
    if named != model and named in cards():
        raise WeightsError(
            f"weights '{weights}' bear the name of {named}, not of {model}: "
            f"export {named}, or rename the file"
        )


def _of_devices(
    names: Sequence[str], formats: Sequence[str], precisions: Sequence[Precision]
) -> list[Recipe]:
    recipes: list[Recipe] = []
    for name in names:
        offered = _of_device(name)
        kept = [
            recipe
            for recipe in offered
            if (not formats or recipe.format in formats)
            and (not precisions or recipe.precision in precisions)
        ]
        if not kept:
            raise InvalidSpec(f"nothing to export for {name}: it takes {_listed(offered)}")
        recipes += kept
    made = {recipe.format for recipe in recipes} | {recipe.precision for recipe in recipes}
    for named in (*formats, *precisions):
        if named not in made:
            raise InvalidSpec(
                f"nothing to export as {named}: {', '.join(names)} would get {_listed(recipes)}"
            )
    return recipes


def _of_device(name: str) -> list[Recipe]:
    device = load_device(name)
    return [
        Recipe(
            export.format,
            export.precision,
            device.deployment_target if export.format == "coreml" else None,
        )
        for export in device.exports
    ]


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


def _listed(recipes: Sequence[Recipe]) -> str:
    return ", ".join(str(recipe) for recipe in _merged(recipes))
