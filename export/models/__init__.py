"""The zoo: which models there are, by name, and the family that builds each."""

from __future__ import annotations

from phoneward.errors import UnknownName
from phoneward.export.models.family import Family, ModelCard
from phoneward.registry import Entry, Registry

FAMILIES: Registry[Family] = Registry(
    "model family",
    {
        "efficienttam": Entry(
            "phoneward.export.models.efficienttam.family:EFFICIENTTAM",
            "export",
            ("torch", "timm"),
        ),
        "hybrids": Entry("phoneward.export.models.hybrids:HYBRIDS", "export", ("torch", "timm")),
        "cbnet": Entry("phoneward.export.models.cbnet.family:CBNET", "export", ("torch", "timm")),
    },
)


def cards() -> dict[str, ModelCard]:
    """Return every model of the zoo by name; imports no torch."""
    return {card.name: card for family in FAMILIES for card in FAMILIES.get(family).cards()}


def find(name: str) -> tuple[ModelCard, Family]:
    """Return a model's card and its family; hyphens count as underscores.

    Raises:
        UnknownName: there is no such model; it has all known names.
    """
    known, key = cards(), name.replace("-", "_")
    if key not in known:
        raise UnknownName("model", name, known)
    return known[key], FAMILIES.get(known[key].family)
