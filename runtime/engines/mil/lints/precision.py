"""Number types and targets: what keeps half precision, and Apple's tools, out."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Literal

from phoneward.runtime.engines.mil.lints import evidence
from phoneward.runtime.engines.mil.lints.lint import Finding, Rule
from phoneward.runtime.engines.mil.lints.subject import dtype_of

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.lints.subject import Subject

LARGE = 1 << 16

_SIDES: tuple[Literal["input", "output"], ...] = ("input", "output")
_IOS16 = 7  # specification version
_FLOAT32 = 65568  # of ArrayFeatureType.ArrayDataType
# they convert to and from what an app reads, at the borders
_BORDER = frozenset({"cast", "classify"})


def _float32(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops:
        if op.op_type not in _BORDER and "fp32" in {dtype_of(var) for var in op.outputs}:
            yield Finding(op.name, op.op_type)


def _borders(subject: Subject) -> Iterator[Finding]:
    for side in _SIDES:
        for feature in subject.features(side):
            array = feature.type.multiArrayType
            if array.dataType == _FLOAT32 and prod(array.shape) >= LARGE and array.shape:
                yield Finding(feature.name, f"float32 {side}")


def _target(subject: Subject) -> Iterator[Finding]:
    version = subject.spec.specificationVersion
    if version < _IOS16:
        yield Finding("main", f"program for iOS {version + 9}")


def _functions(subject: Subject) -> Iterator[Finding]:
    names = list(subject.spec.mlProgram.functions)
    default = subject.spec.description.defaultFunctionName or "main"
    if len(names) > 1:
        yield from (Finding(name, "function") for name in names if name != default)


PRECISION = (
    Rule(
        "float32-compute",
        "leaves",
        "the Neural Engine computes in half precision only; export fp16, or keep fp32 rare",
        (evidence.TYPED, evidence.DESIGN_RULES, evidence.PRECISION_ISSUE),
        _float32,
    ),
    Rule(
        "float32-border",
        "slows",
        f"float32 arrays of {LARGE} values or more are converted at every call; hand over float16",
        (evidence.HALF_RELEASE, evidence.PIXEL_BUFFER),
        _borders,
    ),
    Rule(
        "old-target",
        "tooling",
        "inputs and outputs cannot be float16, and MLComputePlan may tell nothing; target iOS 17",
        (evidence.HALF_RELEASE, evidence.PLAN_ISSUE),
        _target,
    ),
    Rule(
        "unplanned-functions",
        "tooling",
        "coremltools' compute plan tells of the default function only; save each as a package",
        (evidence.PLAN_FUNCTIONS,),
        _functions,
    ),
)
