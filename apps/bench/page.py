"""The results as a Markdown page: machine, medians, ratios, and who is to blame for a miss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from phoneward.apps.bench.records import (
    EAGER,
    Agreement,
    Conversion,
    Machine,
    Profile,
    Results,
    Subject,
)
from phoneward.apps.bench.stats import Series, fastest_naive, paired_ratio, series
from phoneward.names import Precision
from phoneward.runtime.parity import THRESHOLDS

TARGET = 1.25
# a ratio that is quoted as 1.00 is no difference
_TWIN = 1.005
_TOP = 8
_WRONG = THRESHOLDS[Precision.FP32].relative_error

_INTRODUCTION = """\
# Exported hybrids against naive conversions

For every model and engine, Phoneward's artifact and the naive conversion of the same timm model \
with the same random weights take turns. Every measurement is a process of its own with one engine \
in it; it warms up until two windows of five runs agree within 3 %, then times {runs} runs on \
{threads} threads, copies of input and output included. Rounds: {rounds}. All files are fp32.

`best` is the lowest median of a round, `typical` the median of all rounds' medians, both in \
milliseconds. `ours / naive` is formed within rounds, and the middle one is quoted; below 1 ours \
is faster. `ours / fastest naive` is the ratio of the best times. Our graphs take RGB 0 to 255 and \
normalise it themselves; the naive ones are fed normalised tensors and are not charged for it.

The targets: each of our artifacts takes no longer than its naive twin, and at most {target} \
times the fastest naive engine of its model. An artifact whose answer to a photograph is further \
than {wrong:.0e} of PyTorch's range from PyTorch's answer counts as wrong and reaches nothing.
"""


def render(results: Results) -> str:
    """Write the whole page."""
    table = series(results.measurements)
    parts = [
        _INTRODUCTION.format(
            runs=results.runs,
            threads=results.threads,
            rounds=results.rounds,
            target=TARGET,
            wrong=_WRONG,
        ),
        provenance(results.machine, results.date, results.command),
        "## Latency\n\n" + _latency(results, table),
        "## Targets\n\n" + _targets(results, table),
        "## Conversion\n\n" + _conversions(results),
    ]
    if results.profiles:
        parts.append("## Operators\n\n" + "\n".join(map(_profile, results.profiles)))
    return "\n".join(parts)


def target_ratio(table: dict[Subject, Series], ours: Subject) -> float | None:
    """Our best time over the best of the model's fastest naive engine.

    Best, not paired: the two may be different engines, which a busy moment slows differently.
    """
    fastest = fastest_naive(table, ours.model)
    return None if fastest is None else table[ours].best / table[fastest].best


def missed(results: Results) -> list[Subject]:
    """Ours that are wrong, slower than their naive twins, or over the target."""
    table = series(results.measurements)
    wrong = {(a.model, a.engine) for a in results.agreements if is_wrong(a)}
    return [
        subject
        for subject in _ours(table)
        if (subject.model, subject.engine) in wrong
        or (target_ratio(table, subject) or 0) > TARGET
        or (twin_ratio(table, subject) or 0) >= _TWIN
    ]


def twin_ratio(table: dict[Subject, Series], ours: Subject) -> float | None:
    """Our typical time over that of the naive file for the same engine, paired within rounds."""
    twin = table.get(ours.model_copy(update={"variant": "naive"}))
    return None if twin is None else paired_ratio(table[ours], twin)


def is_wrong(agreement: Agreement) -> bool:
    """Tell whether an artifact computes something else than PyTorch (not-a-number included)."""
    return not agreement.torch_relative <= _WRONG


def _ours(table: Iterable[Subject]) -> list[Subject]:
    return [subject for subject in table if subject.variant == "ours"]


def provenance(machine: Machine, date: str, command: str) -> str:
    """Say where, when and with what the figures of a page were taken."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"- Measured on {date}: {machine.cpu}, {machine.cores} cores, {machine.system}\n"
        f"- Packages: {versions}\n"
        f"- Command: `{command}`\n"
    )


def _latency(results: Results, table: dict[Subject, Series]) -> str:
    rows = []
    for model, engine in dict.fromkeys((s.model, s.engine) for s in table):
        naive = table.get(Subject(model=model, engine=engine, variant="naive"))
        subject = Subject(model=model, engine=engine, variant="ours")
        ours = table.get(subject)
        if engine == EAGER:
            rows.append((model, "PyTorch eager", "", "", *_times(naive), "", "", ""))
            continue
        rows.append(
            (
                model,
                engine,
                *_times(ours),
                *_times(naive),
                _ratio(twin_ratio(table, subject) if ours else None),
                _ratio(target_ratio(table, subject) if ours else None),
                _error(results, model, engine),
            )
        )
    head: tuple[str, ...] = (
        "model",
        "engine",
        "ours best",
        "ours typical",
        "naive best",
        "naive typical",
    )
    head += ("ours / naive", "ours / fastest naive", "largest error against naive, PyTorch")
    unsteady = sum(not m.timing.steady for m in results.measurements)
    note = f"\n{unsteady} of {len(results.measurements)} processes never became steady.\n"
    return markdown_table(head, rows) + (note if unsteady else "")


def _times(one: Series | None) -> tuple[str, str]:
    return (f"{one.best:.2f}", f"{one.typical:.2f}") if one else ("–", "–")


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _error(results: Results, model: str, engine: str) -> str:
    for a in results.agreements:
        if (a.model, a.engine) == (model, engine):
            naive = "–" if a.naive_max_abs is None else f"{a.naive_max_abs:.1e}"
            wrong = ", wrong" if is_wrong(a) else ""
            return f"{naive}, {a.torch_max_abs:.1e} (relative {a.torch_relative:.0e}{wrong})"
    return "–"


def _targets(results: Results, table: dict[Subject, Series]) -> str:
    misses = missed(results)
    ours = _ours(table)
    priced = [subject for subject in ours if target_ratio(table, subject) is not None]
    lines = [f"{len(priced) - len(misses)} of {len(priced)} reached.\n"]
    for subject in misses:
        lines.append(f"- missed: {subject.model} on {subject.engine}: {_blame(results, subject)}")
    lines += [
        f"- no file of ours: {f.model} as {f.format}: {f.error}"
        for f in results.failures
        if f.variant == "ours"
    ]
    return "\n".join(lines) + "\n"


def _blame(results: Results, subject: Subject) -> str:
    table = series(results.measurements)
    what = [f"{_ratio(target_ratio(table, subject))} of the fastest naive engine"]
    fastest = fastest_naive(table, subject.model)
    if fastest is not None:
        what[0] += f" ({fastest.engine})"
    if (ratio := twin_ratio(table, subject)) is not None:
        what.append(f"{_ratio(ratio)} of its naive twin")
    for profile in results.profiles:
        if (profile.model, profile.engine) == (subject.model, subject.engine) and profile.ops:
            what.append(_worst(profile))
    return "; ".join(what)


def _worst(profile: Profile) -> str:
    if profile.outside:
        left = ", ".join(f"{count} {name}" for name, count in profile.outside.items())
        return f"outside the delegate: {left}"
    top = profile.ops[0]
    if top.milliseconds is None:
        kinds = ", ".join(f"{op.count} {op.name}" for op in profile.ops[:3])
        return f"the engine's Python package tells no operator times; most are {kinds}"
    return f"most of it: {top.count} {top.name} take {top.milliseconds:.2f} ms"


def _conversions(results: Results) -> str:
    made = {(c.model, c.format, c.variant): c for c in results.conversions}
    errors = {(f.model, f.format, f.variant): f.error for f in results.failures}
    keys = dict.fromkeys((model, format_name) for model, format_name, _ in {**made, **errors})
    rows = []
    for model, format_name in keys:
        cells = [_made(made.get((model, format_name, v))) for v in ("ours", "naive")]
        rows.append((model, format_name, *cells[0], *cells[1]))
    head: tuple[str, ...] = ("model", "format", "ours s", "MB", "XNNPACK partitions, ops outside")
    head += ("naive s", "MB", "XNNPACK partitions, ops outside")
    lines = [f"- {m} as {f}, {v}: {error}" for (m, f, v), error in errors.items()]
    failures = "\nConversions that failed:\n\n" + "\n".join(lines) + "\n" if lines else ""
    return (
        "Seconds are those of the converter with its packages imported; ours include the rewrites "
        "and the proof against PyTorch on eight images. ONNX Runtime and LiteRT decide when they "
        "load a file what their kernels take.\n\n" + markdown_table(head, rows) + failures
    )


def _made(conversion: Conversion | None) -> tuple[str, str, str]:
    if conversion is None:
        return "failed", "–", "–"
    d = conversion.delegation
    outside = f"{d.partitions}, {sum(d.fallback.values())}" if d else ""
    return f"{conversion.seconds:.1f}", f"{conversion.bytes / 1e6:.1f}", outside


def _profile(profile: Profile) -> str:
    total = sum(op.milliseconds or 0 for op in profile.ops)
    rows = []
    for op in profile.ops[:_TOP]:
        known = op.milliseconds is not None and total > 0
        time = f"{op.milliseconds:.3f}" if known else "–"
        share = f"{(op.milliseconds or 0) / total:.0%}" if known else "–"
        rows.append((op.name, str(op.count), time, share))
    left = profile.outside
    outside = "" if left is None else f", {sum(left.values())} outside the delegate"
    title = f"### {profile.model} on {profile.engine}\n\n"
    count = sum(op.count for op in profile.ops)
    intro = f"{count} operators{outside}.\n\n"
    return title + intro + markdown_table(("operator", "count", "ms", "share"), rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
