"""Shapes that the Neural Engine refuses, pads, or copies."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from phoneward.runtime.engines.mil.lints import evidence
from phoneward.runtime.engines.mil.lints.lint import Finding, Rule
from phoneward.runtime.engines.mil.lints.subject import dtype_of, shape_of, sizes_of

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.lints.subject import Subject

LARGEST = 16384
WIDEST_CHANNELS = 65536
CHANNELS = 8
LAYOUT = frozenset({"transpose", "reshape", "expand_dims", "squeeze"})
CONVOLUTIONS = frozenset({"conv", "conv_transpose"})

_ROW = 64  # bytes
_ON_CHIP = 2 << 20  # bytes of the engine's memory
_WASTE = 4


def _ranks(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops:
        rank = max((len(shape_of(var)) for var in op.outputs), default=0)
        if rank > 5:
            yield Finding(op.name, f"{op.op_type} of rank {rank}")


def _dynamic(subject: Subject) -> Iterator[Finding]:
    for feature in subject.features("input"):
        if kind := _flexibility(feature.type):
            yield Finding(feature.name, kind)


def _flexibility(kind: Any) -> str:
    """How an input's shape may vary; empty if it may not."""
    if kind.WhichOneof("Type") == "imageType":
        choice = kind.imageType.WhichOneof("SizeFlexibility")
        several = len(kind.imageType.enumeratedSizes.sizes) > 1
        limits = kind.imageType.imageSizeRange
        ranges = [limits.widthRange, limits.heightRange]
    elif kind.WhichOneof("Type") == "multiArrayType":
        choice = kind.multiArrayType.WhichOneof("ShapeFlexibility")
        several = len(kind.multiArrayType.enumeratedShapes.shapes) > 1
        ranges = list(kind.multiArrayType.shapeRange.sizeRanges)
    else:
        return ""
    if choice in ("enumeratedSizes", "enumeratedShapes"):
        return "input of enumerated shapes" if several else ""
    # an upper bound below zero is none
    varies = any(limit.upperBound != limit.lowerBound for limit in ranges)
    return "input of a range of shapes" if choice and varies else ""


def _extents(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops:
        for var in op.outputs:
            sizes = sizes_of(var)
            channels = sizes[1] if len(sizes) == 4 else 0
            others = [*sizes[:1], *sizes[2:]] if channels else list(sizes)
            if max(others, default=0) > LARGEST or channels > WIDEST_CHANNELS:
                yield Finding(op.name, f"{op.op_type} of {max(sizes)}")


def _padded_rows(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops:
        for var in op.outputs:
            sizes = sizes_of(var)
            if len(sizes) < 3 or dtype_of(var) not in ("fp16", "fp32"):
                continue
            row = sizes[-1] * 2
            padded = -(-row // _ROW) * _ROW
            if padded >= _WASTE * row and prod(sizes[:-1]) * padded > _ON_CHIP:
                yield Finding(op.name, f"{op.op_type} with rows of {sizes[-1]}")


def _channels(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of(*CONVOLUTIONS):
        sizes = sizes_of(op.outputs[0])
        channels = sizes[1] if len(sizes) > 1 else 0
        # the heads' few channels are what they are
        if channels > CHANNELS and channels % CHANNELS:
            yield Finding(op.name, f"{op.op_type} to {channels} channels")


def _layouts(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of(*LAYOUT):
        # what flattens the last features for a classifier moves little
        if len(shape_of(op.outputs[0])) <= 2 or _is_flat(op):
            continue
        if _reaches(op, upstream=True) or _reaches(op, upstream=False):
            yield Finding(op.name, op.op_type)


def _is_flat(op: Any) -> bool:
    """Whether all of an op's input lies in one axis."""
    sizes = sizes_of(op.inputs["x"])
    return prod(sizes) == max(sizes, default=1)


def _reaches(op: Any, *, upstream: bool) -> bool:
    """Whether an op's neighbour, other changes of layout left out, is a convolution."""
    front = [op]
    while front:
        near = [other for one in front for other in (_above(one) if upstream else _below(one))]
        if any(other.op_type in CONVOLUTIONS for other in near):
            return True
        front = [other for other in near if other.op_type in LAYOUT]
    return False


def _above(op: Any) -> list[Any]:
    maker = op.inputs["x"].op
    return [] if maker is None else [maker]


def _below(op: Any) -> list[Any]:
    return [reader for var in op.outputs for reader in var.child_ops]


SHAPES = (
    Rule(
        "rank-over-5",
        "leaves",
        "tensors of more than five axes do not load; split the change of layout in two",
        (evidence.RANK_ISSUE, evidence.DESIGN_RULES, evidence.VISION),
        _ranks,
    ),
    Rule(
        "dynamic-shapes",
        "leaves",
        "flexible inputs lose the Neural Engine, but for the default shape; fix the shape",
        (evidence.FLEXIBLE_FORUM, evidence.FLEXIBLE_ISSUE, evidence.ENUMERATED_ISSUE),
        _dynamic,
    ),
    Rule(
        "too-wide",
        "leaves",
        f"axes over {LARGEST} (channels: {WIDEST_CHANNELS}) do not compile for the Neural Engine; "
        "fold or split them",
        (evidence.DESIGN_RULES, evidence.EXTENT_RUNTIME),
        _extents,
    ),
    Rule(
        "padded-rows",
        "slows",
        f"rows are padded to {_ROW} bytes, which takes large tensors with a short last axis out of "
        "the engine's memory; put a long axis last",
        (evidence.TRANSFORMERS, evidence.DESIGN_RULES),
        _padded_rows,
    ),
    Rule(
        "padded-channels",
        "slows",
        f"channels are stored in groups of up to {CHANNELS}; make their number a multiple of it",
        (evidence.DESIGN_RULES, evidence.TABLES),
        _channels,
    ),
    Rule(
        "layout-by-conv",
        "slows",
        "changes of layout next to a convolution are copies; stay in (batch, channels, rows, "
        "columns)",
        (evidence.TRANSFORMERS, evidence.TRANSPOSE_ISSUE),
        _layouts,
    ),
)
