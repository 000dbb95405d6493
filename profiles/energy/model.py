"""Energy as the CBNet paper models it: a constant power times the time of an inference.

Nothing is measured here, and a power holds for the machine and the load that its source speaks
of, if for that.
"""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, ValidationError

from phoneward.errors import InvalidSpec, UnknownName
from phoneward.profiles.energy.schema import PredictedEnergy, Text, Watts
from phoneward.spec import Spec
from phoneward.toml import parse_toml

_FILE = "powers.toml"


class Power(Spec):
    """A power, what it is of, and who says so."""

    watts: Watts
    of: Text
    source: Text


class _Constant(Spec):
    name: Text
    kind: Literal["constant"]
    watts: Watts
    of: Text
    source: Text


class _Utilisation(Spec):
    name: Text
    kind: Literal["utilisation"]
    dynamic_watts: Watts
    idle_watts: Watts
    divisor: Annotated[FiniteFloat, Field(gt=0)]
    of: Text
    source: Text


_Entry = Annotated[_Constant | _Utilisation, Field(discriminator="kind")]


class _PowersFile(Spec):
    powers: tuple[_Entry, ...]


def power_names() -> tuple[str, ...]:
    """Return the names that `named_power` knows, in the order of the file."""
    return tuple(_entries())


def named_power(
    name: str, *, utilisation: float | None = None, exponent: float | None = None
) -> Power:
    """Return a power of `powers.toml`.

    Args:
        name: `k80`, `gci-cpu`, `raspberry-pi-4`.
        utilisation: busy share of the processors, 0 to 1, where the power is a function of it.
        exponent: of the utilisation there, above 0. The source of `gci-cpu` has 1 in one place
            and 0.75 in another, so that there is no default.

    Raises:
        UnknownName: no such power.
        InvalidSpec: one of the two is missing, out of range, or means nothing for this power.
    """
    entries = _entries()
    if name not in entries:
        raise UnknownName("power", name, entries)
    entry = entries[name]
    if isinstance(entry, _Constant):
        if utilisation is not None or exponent is not None:
            raise InvalidSpec(f"power '{name}' is constant: it takes no utilisation or exponent")
        return Power(watts=entry.watts, of=entry.of, source=entry.source)
    if utilisation is None or exponent is None:
        raise InvalidSpec(f"power '{name}' needs a utilisation and an exponent")
    if not 0 <= utilisation <= 1 or not 0 < exponent < math.inf:
        raise InvalidSpec(
            f"power '{name}': the utilisation must be from 0 to 1 and the exponent above 0, "
            f"got {utilisation:g} and {exponent:g}"
        )
    watts = (entry.dynamic_watts * utilisation**exponent + entry.idle_watts) / entry.divisor
    of = f"{entry.of}, busy to {100 * utilisation:g} % (exponent {exponent:g})"
    return Power(watts=watts, of=of, source=entry.source)


def predict(seconds: float, power: Power) -> PredictedEnergy:
    """Predict the energy of one inference as power times time.

    Args:
        seconds: of one inference, above 0.
        power: assumed for all of it, and nothing besides.

    Raises:
        InvalidSpec: the time is not a positive number.
    """
    joules = power.watts * seconds
    if not seconds > 0 or not math.isfinite(joules):
        raise InvalidSpec(f"an inference takes a positive number of seconds, not {seconds:g}")
    return PredictedEnergy(
        joules=joules,
        power_watts=power.watts,
        seconds=seconds,
        basis=f"{power.watts:.4g} W for {power.of}; {power.source}",
    )


@cache
def _entries() -> dict[str, _Constant | _Utilisation]:
    file = files("phoneward.profiles.energy") / _FILE
    try:
        found = _PowersFile.model_validate(parse_toml(_FILE, file.read_bytes())).powers
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{_FILE}: {where}: {first['msg']}") from error
    entries = {entry.name: entry for entry in found}
    if len(entries) < len(found):
        raise InvalidSpec(f"{_FILE}: a name is listed twice")
    return entries
