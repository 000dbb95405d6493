"""The work of one graph as kernels: what an engine executes once neighbouring ops are fused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from phoneward.spec import Spec

KernelKind = Literal[
    "conv",  # dense convolution, more than one weight a channel pair
    "pointwise",  # dense convolution, window 1x1
    "depthwise",  # one group a channel
    "grouped",  # several channels a group
    "transposed",  # transposed convolution
    "linear",  # tokens times weights
    "matmul",  # two computed operands
    "attention",  # softmax(q k / s) v where the graph has it as one op
    "softmax",
    "norm",  # a normalisation that is computed at run time
    "pool",
    "reduce",
    "activation",  # an activation that could not be fused
    "elementwise",
    "resize",
    "move",  # transposes, slices, concatenations: traffic only
    "gather",
    "other",  # known, but priced by traffic alone
]
# what every reader of JSON keeps exactly
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Shape = tuple[Count, ...]


class Kernel(Spec):
    """One fused kernel of a graph.

    Attributes:
        kind: what is computed.
        ops: the traced ops in it, in order: the first gives it its kind, the others were fused
            into it (`aten.conv2d`, `aten.add`, `aten.hardswish`).
        module: path of the PyTorch module that the first op belongs to.
        macs: multiply-accumulates; 0 where nothing is multiplied.
        reads: elements of computed tensors that are read (not weights).
        writes: elements that are written.
        params: elements of weights that are read.
        in_shape: of the first computed input, as PyTorch lays it out (NCHW, NLC).
        out_shape: of the output.
        window: height and width of a convolution or pool, else (1, 1).
        stride: its strides.
        groups: of a convolution.
        activation: name of the activation that was fused in, e.g. `relu6`, `hardswish`, `silu`.
    """

    kind: KernelKind
    ops: Annotated[tuple[str, ...], Field(min_length=1)]
    module: str | None = None
    macs: Count = 0
    reads: Count = 0
    writes: Count = 0
    params: Count = 0
    in_shape: Shape = ()
    out_shape: Shape = ()
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    groups: Annotated[int, Field(gt=0)] = 1
    activation: str | None = None


class StageKernels(Spec):
    """The kernels of one graph, in the order of execution, and the ops that are no kernel we know.

    `unknown` counts traced ops by name that no rule could turn into a kernel: nobody can price
    them, and a prediction has to say so.
    """

    stage: str
    kernels: tuple[Kernel, ...]
    unknown: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
