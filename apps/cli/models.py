"""`phoneward models`: the zoo."""

from __future__ import annotations

from phoneward.apps.cli.output import JsonFlag, print_json, print_table

EXAMPLE = "Example: phoneward models"


def command(json_output: JsonFlag = False) -> None:
    """List the models that can be exported."""
    from phoneward.export.models import cards

    known = cards().values()
    if json_output:
        print_json(
            [
                {
                    "name": card.name,
                    "family": card.family,
                    "architecture": card.architecture,
                    "pixels": card.image.height,
                    "parameters": card.parameters,
                    "top1_percent": card.top1_percent,
                    "licence": card.licence,
                    "hub": card.hub,
                    "package": card.package,
                    "stages": [stage.name for stage in card.stages],
                }
                for card in known
            ]
        )
        return
    rows = [
        (
            card.name,
            f"{card.image.width}x{card.image.height}",
            _millions(card.parameters),
            card.top1_percent or "",
            card.licence,
            card.package or card.hub or card.training or "",
        )
        for card in known
    ]
    columns = ("model", "pixels", "parameters", "top-1 %", "weights' licence", "weights from")
    print_table("Models", columns, rows)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters / 1e6:.3f} M"
