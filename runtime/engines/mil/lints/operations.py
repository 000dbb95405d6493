"""Ops that the Neural Engine does not compute, or not on every generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from phoneward.runtime.engines.mil.lints import evidence
from phoneward.runtime.engines.mil.lints.lint import Finding, Rule
from phoneward.runtime.engines.mil.lints.subject import dtype_of, shape_of, sizes_of, value_of

if TYPE_CHECKING:
    from phoneward.runtime.engines.mil.lints.subject import Subject

# fmt: off
NO_PATH = frozenset({
    "acos", "asin",
    "atanh", "band_part", "cosh", "gru",
    "list_gather", "list_length", "list_read", "list_scatter",
    "list_write", "logical_and", "logical_or", "logical_xor",
    "lstm", "make_list", "mod", "non_maximum_suppression",
    "non_zero", "one_hot", "random_bernoulli", "random_categorical",
    "random_normal", "reduce_prod", "reverse_sequence", "rnn",
    "shape", "sinh", "sliding_windows", "tan",
})
# fmt: on
NEWER_CHIPS = frozenset(
    ["affine", "argsort", "cos", "crop_resize", "random_uniform", "resample", "sin", "topk"]
)
GATHERS = frozenset(
    ["gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd"]
)
MOVES_INTEGERS = frozenset({"cast", "shape", "topk", "reduce_argmax", "reduce_argmin", *GATHERS})

_KERNEL_WIDTH = 13
_ARG_AXIS = 2048


def _of_types(types: frozenset[str]) -> Callable[[Subject], Iterator[Finding]]:
    def find(subject: Subject) -> Iterator[Finding]:
        yield from (Finding(op.name, op.op_type) for op in subject.ops_of(*types))

    return find


def _integers(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops:
        if op.op_type not in MOVES_INTEGERS | NO_PATH and dtype_of(op.outputs[0]) == "int32":
            yield Finding(op.name, f"{op.op_type} of int32")


def _volumes(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of("conv", "conv_transpose"):
        if len(shape_of(op.inputs["weight"])) == 5:
            yield Finding(op.name, op.op_type)


def _wide_kernels(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of("conv"):
        width = (sizes_of(op.inputs["weight"]) or (1,))[-1]
        if width > _KERNEL_WIDTH:
            yield Finding(op.name, f"conv of width {width}")


def _long_arguments(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of("reduce_argmax", "reduce_argmin"):
        sizes = sizes_of(op.inputs["x"])
        length = sizes[int(value_of(op, "axis", -1))] if sizes else 1
        if length > _ARG_AXIS:
            yield Finding(op.name, f"{op.op_type} of {length}")


def _pads(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of("pad"):
        pads = value_of(op, "pad", ())
        mode = str(value_of(op, "mode", "constant"))
        before_spatial = [int(n) for n in pads][:-4]
        if any(before_spatial):
            yield Finding(op.name, "pad of channels")
        elif mode != "constant":
            yield Finding(op.name, f"pad by {mode}")


def _matmuls(subject: Subject) -> Iterator[Finding]:
    for op in subject.ops_of("linear", "matmul"):
        rank = max(len(shape_of(op.inputs[name])) for name in ("x", "y") if name in op.inputs)
        if rank >= 5:
            yield Finding(op.name, f"{op.op_type} of rank {rank}")


OPERATIONS = (
    Rule(
        "no-engine-path",
        "leaves",
        "ops that no generation of the Neural Engine computes; rewrite them",
        (evidence.OP_MATRIX, evidence.RECURRENT),
        _of_types(NO_PATH),
    ),
    Rule(
        "gather-scatter",
        "leaves",
        "gathers and scatters run on the CPU; use slices, masks or a matmul with a constant",
        (evidence.GATHER_ISSUE, evidence.DETECTOR_PLAN, evidence.OP_MATRIX, evidence.HOLLANCE),
        _of_types(GATHERS),
    ),
    Rule(
        "newer-chips-only",
        "leaves",
        "ops that the M1's generation lacks, and that Core ML may keep off later ones too",
        (evidence.OP_MATRIX, evidence.DETECTOR_PLAN),
        _of_types(NEWER_CHIPS),
    ),
    Rule(
        "control-flow",
        "leaves",
        "branches and loops are not compiled for the Neural Engine; unroll or split the model",
        (evidence.OP_MATRIX,),
        _of_types(frozenset({"cond", "while_loop"})),
    ),
    Rule(
        "integer-compute",
        "leaves",
        "the Neural Engine computes in half precision only; compute with floats or ahead of time",
        (evidence.DESIGN_RULES,),
        _integers,
    ),
    Rule(
        "conv-3d",
        "leaves",
        "three-dimensional convolutions are not compiled for the Neural Engine",
        (evidence.CAPABILITIES,),
        _volumes,
    ),
    Rule(
        "wide-kernel",
        "leaves",
        f"convolutions wider than {_KERNEL_WIDTH} do not compile for the M1's generation (later "
        "ones: 16); split the kernel, or fold the image's blocks into channels",
        (evidence.DESIGN_RULES, evidence.KERNEL_ISSUE),
        _wide_kernels,
    ),
    Rule(
        "long-argmax",
        "leaves",
        f"the Neural Engine finds extremes of at most {_ARG_AXIS} values; do it in the app",
        (evidence.DESIGN_RULES,),
        _long_arguments,
    ),
    Rule(
        "padding",
        "leaves",
        "the Neural Engine pads rows and columns, on the M1's generation with constants alone",
        (evidence.DESIGN_RULES,),
        _pads,
    ),
    Rule(
        "rank-5-matmul",
        "leaves",
        "matrix products take at most rank 4 on the Neural Engine; fold axes together",
        (evidence.DESIGN_RULES,),
        _matmuls,
    ),
)
