"""Numbers as readers get them: three significant digits, with their unit."""

from __future__ import annotations

from phoneward.bundle import Delegation, Parity
from phoneward.profiles.report.schema import Emulated


def ms(nanoseconds: float | None) -> str:
    """Nanoseconds as milliseconds, without the unit; empty of None."""
    return "" if nanoseconds is None else number(nanoseconds / 1e6)


def number(value: float | None) -> str:
    """A number with three significant digits, never in powers of ten below a million."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 1e15:
        return f"{value:.2e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if abs(value) < 10 else 1
    return f"{value:.{digits}f}" if abs(value) >= 0.1 else f"{value:.3g}"


def megabytes(size: float | None) -> str:
    """Bytes as megabytes (1e6) with the unit; empty of None."""
    return "" if size is None else f"{number(size / 1e6)} MB"


def count(value: float) -> str:
    """A count as millions where it has that many."""
    return f"{number(value / 1e6)} M" if value >= 1e6 else f"{value:,.0f}"


def share(value: float) -> str:
    """A part of a whole in percent."""
    return f"{100 * value:.1f} %"


def worst_error(parity: Parity | None) -> str:
    """The largest error of all outputs, of the output's range."""
    if parity is None or not parity.outputs:
        return ""
    return f"{max(output.relative_error for output in parity.outputs):.1e}"


def least_snr(parity: Parity | None) -> str:
    """The least signal-to-noise ratio of all outputs."""
    known = [one.snr_db for one in parity.outputs if one.snr_db is not None] if parity else []
    return f"{min(known):.0f} dB" if known else ""


def fallback(delegation: Delegation | None) -> str:
    """The ops that the delegate left, or that it left none."""
    if delegation is None:
        return ""
    ops = ", ".join(f"{times} {name}" for name, times in sorted(delegation.fallback.items()))
    return ops or "none"


def classes(emulated: Emulated) -> str:
    """The classes of instructions as shares, the largest first, without those that round to 0."""
    shares = {name: times / emulated.instructions for name, times in emulated.by_class.items()}
    ordered = sorted(shares.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(
        f"{name}\u00a0{100 * part:.1f}\u00a0%" for name, part in ordered if part >= 5e-4
    )
