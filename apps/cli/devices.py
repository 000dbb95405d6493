"""`phoneward devices`: the phones and boards that can be named."""

from __future__ import annotations

from typing import Annotated

import typer

from phoneward.apps.cli.output import JsonFlag, print_json, print_table

EXAMPLE = "Example: phoneward devices pixel-8"


def command(
    name: Annotated[str | None, typer.Argument(help="Show every fact of one device.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """List the target devices, or every known fact of one, each with its source."""
    from phoneward.profiles.device import device_names, load_device

    devices = [load_device(known) for known in ([name] if name else device_names())]
    if json_output:
        print_json([device.model_dump(mode="json") for device in devices])
        return
    rows = [
        (
            device.name,
            device.title,
            device.soc,
            device.deployment_target or device.os,
            ", ".join(f"{e.format}-{e.precision}" for e in device.exports),
        )
        for device in devices
    ]
    print_table("Devices", ("device", "title", "chip", "runs", "gets"), rows)
    if name:
        facts = [
            (fact_name, fact.value, fact.unit or "", fact.confidence, fact.source)
            for fact_name, fact in devices[0].facts.items()
        ]
        print_table("Facts", ("fact", "value", "unit", "confidence", "source"), facts)
