"""EfficientTAM's benchmark as a Markdown page."""

from __future__ import annotations

import statistics

from phoneward.apps.bench.page import markdown_table, provenance
from phoneward.apps.bench.records import EAGER
from phoneward.apps.bench.stats import Series, paired_ratio
from phoneward.apps.bench.tam_records import (
    ATTENDS,
    FRAME,
    MATMUL,
    PROMPT,
    StageSubject,
    TamResults,
)
from phoneward.apps.bench.tam_stats import (
    TRACKED,
    Table,
    operations,
    peaks,
    stage_series,
    tracked,
)
from phoneward.export.models.efficienttam.variants import (
    CHANNELS,
    MEMORY_CHANNELS,
    POINTER_SLOTS,
    VARIANTS,
)

TARGETS_MS = {"exact": 540.0, "pooled": 350.0}
LAYERS = 4
SPREAD = 1.3
"""What any engine may take, of the fastest one's time for an exact frame."""

_COLUMNS = (*FRAME, TRACKED, PROMPT)
_ABSENT = "–"
_INTRODUCTION = """\
# EfficientTAM: what a tracked frame costs

{model}, fp32, on {threads} threads. A tracked frame is encode, propagate and memorize, with a \
full memory: {slots} frames and {pointers} object pointers. `pooled` is the export with \
`pooled_memory`: the memory's keys and values averaged 2 x 2. `prompt` runs on prompted frames only.

Every measurement is a process of its own with one engine in it, which loads all stages and runs \
them in turn, as a tracker does: two frames to get warm, then {runs} that are timed, copies of \
input and output included. All subjects of a bank take turns, {rounds} rounds of them, each when \
nothing else runs. Cells are milliseconds, `typical / best`: the median of all rounds' medians, \
and the lowest median of a round. Ratios are formed within rounds, and the middle one is quoted. \
Eager PyTorch runs the stages as the model is built, before any rewrite, on the same inputs. The \
weights are random, from a fixed seed: the time does not depend on them. These are not phone \
latencies.
"""

_KEYS = """\
A remembered frame's keys could be kept as they are projected, instead of projecting them again at \
every frame. One of the memory's cross-attentions, with its keys projected from the bank as in \
`propagate`, and with all keys given, copies of the inputs included. That is more than a cache \
could save, for a frame's age is in its keys. With {channels} channels for each of {layers} layers \
instead of {memory}, it would make the bank {times} times as large, and is not done.

"""


def render(results: TamResults) -> str:
    """Write the whole page."""
    table = stage_series(results.measurements)
    variant = VARIANTS[results.model]
    parts = [
        _INTRODUCTION.format(
            model=results.model,
            threads=results.threads,
            slots=variant.slots,
            pointers=POINTER_SLOTS,
            runs=results.runs,
            rounds=results.rounds,
        ),
        provenance(results.machine, results.date, results.command) + _calm(results),
        "## Targets\n\n" + _targets(table),
        "## Stages\n\n" + _stages(table),
        "## Against eager PyTorch\n\n" + _ratios(table),
        "## Work\n\n" + _work(results, table),
    ]
    if any(_is_plain_file(subject) for subject, _ in table):
        parts.append("## What the rewrites save\n\n" + _savings(results, table))
    if any(name in ATTENDS for _, name in table):
        parts.append("## What was not kept\n\n" + _keys(table))
    parts.append("## Files\n\n" + _files(results))
    return "\n".join(parts)


def verdicts(table: Table) -> list[tuple[str, str, bool]]:
    """Target, what was measured, and whether that reaches it."""
    found = []
    for bank, most in TARGETS_MS.items():
        frames = tracked(table, bank)
        if not frames:
            continue
        first = min(frames, key=lambda subject: frames[subject].typical)
        fastest = frames[first].typical
        name = f"{bank} frame on the fastest engine: at most {most:.0f} ms"
        found.append((name, f"{fastest:.0f} ms ({first.engine})", fastest <= most))
        if bank == "exact":
            for subject in frames.keys() - {first}:
                ratio = paired_ratio(frames[subject], frames[first])
                name = f"exact frame on {subject.engine}: at most {SPREAD} of the fastest"
                found.append((name, _ratio(ratio), ratio is not None and ratio <= SPREAD))
    return found


def _targets(table: Table) -> str:
    judged = verdicts(table)
    reached = sum(good for _, _, good in judged)
    rows = [(name, value, "reached" if good else "**missed**") for name, value, good in judged]
    return f"{reached} of {len(judged)} reached, judged by typical times.\n\n" + markdown_table(
        ("target", "measured", ""), rows
    )


def _calm(results: TamResults) -> str:
    known = [m.others for m in results.measurements if m.others is not None]
    if not known:
        return ""
    again = sum(m.tries > 1 for m in results.measurements)
    return (
        f"- Other processes kept at most {max(known):.2f} cores busy during a turn, in the middle "
        f"one {sorted(known)[len(known) // 2]:.3f}; {again} of {len(results.measurements)} turns "
        "were taken again because it was more\n"
    )


def _stages(table: Table) -> str:
    rows = []
    for subject in _subjects(table):
        cells = [_times(table.get((subject, name))) for name in _COLUMNS]
        rows.append((subject.bank, _name(subject), *cells))
    return markdown_table(("bank", "engine", *_COLUMNS), rows)


def _ratios(table: Table) -> str:
    rows = []
    for subject in _subjects(table):
        eager = subject.model_copy(update={"engine": EAGER, "form": "plain"})
        if subject.engine == EAGER:
            continue
        cells = [_paired(table, (subject, name), (eager, name)) for name in _COLUMNS]
        rows.append((subject.bank, _name(subject), *cells))
    return "Time over that of eager PyTorch.\n\n" + markdown_table(
        ("bank", "engine", *_COLUMNS), rows
    )


def _work(results: TamResults, table: Table) -> str:
    best = peaks(table)
    peak = max(best.values(), default=0.0)
    products = ", ".join(f"{rate:.0f} for {name}" for name, rate in best.items())
    subjects = _subjects(table)
    rows = []
    for bank in dict.fromkeys(subject.bank for subject in subjects):
        ours = [s for s in subjects if s.bank == bank]
        for name in _COLUMNS:
            counts = {s: operations(results, s, name) / 1e9 for s in ours}
            rates = [_rate(table.get((s, name)), count, peak) for s, count in counts.items()]
            plain = next(f"{count:.2f}" for s, count in counts.items() if s.form == "plain")
            rewritten = {f"{count:.2f}" for s, count in counts.items() if s.form == "rewritten"}
            rows.append((bank, name, plain, " to ".join(sorted(rewritten)), *rates))
    engines = tuple(f"{engine} GFLOP/s" for engine in dict.fromkeys(map(_name, subjects)))
    head = ("bank", "stage", "plain GFLOP", "rewritten GFLOP", *engines)
    return (
        "Products of matrices and convolutions, a multiplication and an addition as two "
        "operations; norms, softmax and other elementwise work is not counted, but its time is. "
        "`plain`: what the stages need as the model is built; `rewritten`: what the exported "
        "graphs compute. GFLOP/s are what is computed over the typical time; the share is of "
        f"this machine's best `torch.mm` in the same rounds ({products} GFLOP/s).\n\n"
        + markdown_table(head, rows)
    )


def _savings(results: TamResults, table: Table) -> str:
    rows = []
    for subject in dict.fromkeys(s for s, _ in table if _is_plain_file(s)):
        ours = subject.model_copy(update={"form": "rewritten"})
        for name in (*FRAME, TRACKED):
            plain, rewritten = table.get((subject, name)), table.get((ours, name))
            if plain is None or rewritten is None:
                continue
            counts = [operations(results, s, name) / 1e9 for s in (subject, ours)]
            rows.append(
                (
                    subject.engine,
                    name,
                    _times(plain),
                    _times(rewritten),
                    _ratio(paired_ratio(rewritten, plain)),
                    *(f"{count:.2f}" for count in counts),
                )
            )
    head = ("engine", "stage", "plain", "rewritten", "rewritten / plain")
    return (
        "The same stages of the exact model before and after the rewrites, through the same "
        "converters with the same settings. The rewrites change no answer beyond rounding.\n\n"
        + markdown_table((*head, "plain GFLOP", "rewritten GFLOP"), rows)
    )


def _keys(table: Table) -> str:
    rows = []
    for subject in dict.fromkeys(s for s, name in table if name in ATTENDS):
        projected, given = (table.get((subject, name)) for name in ATTENDS)
        if projected is None or given is None:
            continue
        common = projected.medians.keys() & given.medians.keys()
        saved = statistics.median(projected.medians[r] - given.medians[r] for r in common)
        ratio = _ratio(paired_ratio(given, projected))
        rows.append((subject.engine, _times(projected), _times(given), f"{saved:.1f}", ratio))
    head = ("engine", "keys projected", "keys given", "saved ms a layer", "given / projected")
    return _KEYS.format(
        channels=CHANNELS,
        layers=LAYERS,
        memory=MEMORY_CHANNELS,
        times=LAYERS * CHANNELS // MEMORY_CHANNELS,
    ) + markdown_table(head, rows)


def _files(results: TamResults) -> str:
    errors = {a.subject: a for a in results.agreements}
    rows = []
    for one in results.sets:
        for file in (file for file in one.files if file.stage not in ATTENDS):
            d = file.delegation
            outside = f"{d.partitions}, {sum(d.fallback.values())}" if d else ""
            cells = (f"{file.bytes / 1e6:.1f}", f"{file.seconds:.1f}", outside)
            rows.append((one.bank, one.form, one.format, file.stage, *cells))
    worst = [
        (s.bank, s.form, s.engine, f"{errors[s].relative:.0e}", f"`{errors[s].where}`")
        for s in errors
    ]
    head = ("bank", "form", "format", "stage", "MB", "s", "XNNPACK partitions, ops outside")
    lines = [f"- {failure.subject}: {failure.error}\n" for failure in results.failures]
    return (
        "Seconds are those of the converter with its packages imported; for rewritten stages they "
        "include the rewrites and the proof against PyTorch, and the machine had other work then. "
        "ONNX Runtime decides when it loads a file what its kernels take.\n\n"
        + markdown_table(head, rows)
        + "\nLargest error of an output against eager PyTorch on the timed inputs, over the range "
        "of PyTorch's:\n\n"
        + markdown_table(("bank", "form", "engine", "error", "where"), worst)
        + ("\nWhat failed:\n\n" + "".join(lines) if lines else "")
    )


def _subjects(table: Table) -> list[StageSubject]:
    """Eager PyTorch and our artifacts, bank by bank."""
    found = dict.fromkeys(s for s, _ in table if s.engine != MATMUL and not _is_plain_file(s))
    return sorted(found, key=lambda s: (s.bank, s.engine != EAGER))


def _is_plain_file(subject: StageSubject) -> bool:
    return subject.form == "plain" and subject.engine not in (EAGER, MATMUL)


def _name(subject: StageSubject) -> str:
    return "PyTorch eager" if subject.engine == EAGER else subject.engine


def _times(one: Series | None) -> str:
    return f"{one.typical:.1f} / {one.best:.1f}" if one else _ABSENT


def _paired(table: Table, one: tuple[StageSubject, str], other: tuple[StageSubject, str]) -> str:
    if one not in table or other not in table:
        return _ABSENT
    return _ratio(paired_ratio(table[one], table[other]))


def _ratio(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}"


def _rate(one: Series | None, giga: float, peak: float) -> str:
    if one is None:
        return _ABSENT
    rate = 1e3 * giga / one.typical
    return f"{rate:.0f} ({rate / peak:.0%})" if peak else f"{rate:.0f}"
