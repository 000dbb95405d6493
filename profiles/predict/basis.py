"""On which measurements a prediction rests, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phoneward.profiles.predict.features import identity
from phoneward.profiles.predict.parameters import shipped_rows
from phoneward.profiles.predict.ratios import KIND

if TYPE_CHECKING:
    from phoneward.profiles.predict.calibrate import Calibration
    from phoneward.profiles.predict.group import Group
    from phoneward.profiles.predict.targets import Target


def basis_of(
    group: Group, target: Target, identities: Sequence[str], calibration: Calibration | None
) -> str:
    """Say how many rows of this very group there are, of its chip, and of this very graph."""
    observed = shipped_rows()
    names = set(observed.features)
    known = {identity(observed.features[name]): name for name in names}
    of_graph = [
        row for row in observed.rows if row.kind != KIND and known.get(identities[0]) == row.model
    ]
    where = f"{group.runtime} on {group.unit}, {_numeric(group)}"
    rows = [row for row in observed.rows if row.kind != KIND]
    same = sum(row.group == group for row in rows)
    chip = sum(row.group.soc == group.soc and row.group.unit == group.unit for row in rows)
    parts = [f"{where}: {same} published latencies of {group.device}"]
    if calibration is not None:
        parts = [f"{where}: {len(calibration.anchors)} own measurements of {target.device}"]
    elif not same:
        parts = [f"{where}: never published for {target.device}"]
        if chip:
            parts.append(f"{chip} latencies of its {group.soc} by other runtimes or precisions")
        else:
            unit = sum(row.group.unit == group.unit for row in rows)
            parts.append(f"no latency of its {group.soc}: prior of {unit} on other chips")
        ratios = {row.source[0] for row in observed.rows if row.kind == KIND and row.group == group}
        parts += [f"published {ratio}" for ratio in sorted(ratios)]
    if of_graph:
        parts.append(f"this graph was measured on {len({r.group for r in of_graph})} set-ups")
    elif len(identities) == 1:
        parts.append("this graph was never measured")
    return "; ".join(parts)


def _numeric(group: Group) -> str:
    threads = f", {group.threads} cores" if group.threads else ""
    return f"{'float' if group.numeric == 'fp' else group.numeric}{threads}"
