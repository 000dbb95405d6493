"""Counts of emulated instructions as a Markdown page."""

from __future__ import annotations

from phoneward.spec import Spec

# multiply-accumulates of one instruction of 128 bits
PRODUCTS = {"fmla": 4, "fmla_half": 8, "sdot": 16, "smmla": 32}

_INTRODUCTION = """\
# Instructions on emulated Arm processors

One inference of {model} ({macs:,.0f} million multiply-accumulates, random weights, a photograph) \
on one thread, with the engines' own aarch64 libraries in QEMU's user mode. Figures are millions \
of retired instructions; **they are no times**, and no ratio of times either: \
[what they mean](../profile_qemu.md).

int8 is the TFLite fp32 artifact with weights and activations quantized by ai-edge-quantizer \
(`static_wi8_ai8`, ranges from four photographs, float inputs and outputs). TFLite's fp16 is \
left out: it stores halves and computes as fp32 does. `products` is the share of the model's \
multiply-accumulates that fmla (4 an instruction, 8 in half precision), sdot (16) and smmla (32) \
account for: above 100 % kernels fill up to tiles, below it depthwise layers multiply otherwise \
(`mla`). `error` is the largest difference from PyTorch's answer over its range. `same` tells \
whether all counted inferences retired exactly as many.
"""
_COLUMNS = ("fmla", "fmla_half", "sdot", "smmla", "mla", "simd")
_MOVES = ("vector_load", "vector_store")


class Row(Spec):
    """One artifact on one core."""

    core: str
    engine: str
    precision: str
    instructions: int
    identical: bool
    by_class: dict[str, int]
    relative_error: float


class Results(Spec):
    """All of the page."""

    command: str
    model: str
    macs: int
    tools: dict[str, str]
    rows: tuple[Row, ...]


def render(results: Results) -> str:
    """Write the whole page."""
    head: tuple[str, ...] = ("engine", "precision", "all", "of fp32", *_COLUMNS)
    head = (*head, "vector moves", "rest", "products", "error", "same")
    parts = [_INTRODUCTION.format(model=results.model, macs=results.macs / 1e6)]
    for core in dict.fromkeys(row.core for row in results.rows):
        rows = [row for row in results.rows if row.core == core]
        parts += [f"\n## {core}\n", _line(head), _line(["---"] * len(head))]
        parts += [_line(_cells(row, rows, results.macs)) for row in rows]
    wanted = ("ai-edge-litert", "executorch", "ai-edge-quantizer", "litert-torch", "torch")
    used = ", ".join(f"{name} {results.tools[name]}" for name in wanted if name in results.tools)
    parts.append(f"\nMade by `{results.command}` with {used}.")
    return "\n".join(parts) + "\n"


def _cells(row: Row, rows: list[Row], macs: int) -> list[str]:
    whole = next(r for r in rows if (r.engine, r.precision) == (row.engine, "fp32"))
    products = sum(n * row.by_class.get(name, 0) for name, n in PRODUCTS.items())
    moves = sum(row.by_class.get(name, 0) for name in _MOVES)
    shown = moves + sum(row.by_class.get(name, 0) for name in _COLUMNS)
    return [
        row.engine,
        row.precision,
        _millions(row.instructions),
        f"{row.instructions / whole.instructions:.2f}",
        *(_millions(row.by_class.get(name, 0)) for name in _COLUMNS),
        _millions(moves),
        _millions(row.instructions - shown),
        f"{products / macs:.0%}",
        f"{row.relative_error:.1e}",
        "yes" if row.identical else "no",
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}" if count else ""


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
