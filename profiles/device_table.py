"""The known devices as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable

from phoneward.profiles.device import Device

_HEADER = ("Name", "Device", "SoC", "Runs", "Exports, the preferred first", "Facts")


def device_table(devices: Iterable[Device]) -> str:
    """Return one row a device, in the order given; every line ends with a newline.

    The last column counts the facts and, in brackets, those on which sources disagree.
    """
    rows = [_HEADER, tuple("---" for _ in _HEADER), *map(_row, devices)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(device: Device) -> tuple[str, ...]:
    runs: str = device.os
    if device.deployment_target is not None:
        runs = f"{device.os}, {device.deployment_target} and later"
    exports = ", ".join(f"{export.format} {export.precision}" for export in device.exports)
    facts = str(len(device.facts))
    disputed = sum(fact.confidence == "conflict" for fact in device.facts.values())
    if disputed:
        facts += f" ({disputed} disputed)"
    return (f"`{device.name}`", device.title, device.soc, runs, exports, facts)
