"""What one op computes: its kind of kernel, its multiply-accumulates, its window.

MACs are counted as `torch.utils.flop_counter` does (two of its operations are one here): products
of matrices and convolutions, nothing for what is done once an element.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phoneward.export.kernels.calls import Call, Operand, Shape
from phoneward.profiles.kernels import KernelKind

Pair = tuple[int, int]
Rule = Callable[[Call], "Work"]


@dataclass(frozen=True)
class Work:
    """What a call does, apart from what it reads and writes.

    `params` overrides the number of elements of weights that are read: of a table only some are.
    """

    kind: KernelKind
    macs: int = 0
    window: Pair = (1, 1)
    stride: Pair = (1, 1)
    groups: int = 1
    params: int | None = None


def plain(kind: KernelKind) -> Rule:
    """Work that is said by its kind alone."""
    return lambda call: Work(kind)


def convolution(call: Call) -> Work:
    """A convolution, transposed or not, with weights (out, in / groups, h, w)."""
    weight, groups = call.arguments["weight"], call.arguments["groups"]
    transposed = "transpose" in call.op or bool(call.arguments.get("transposed"))
    window = pair(weight.shape[2:])
    # a transposed convolution multiplies every input by its window, a plain one fills every output
    places = math.prod(_input(call).shape if transposed else call.results[0])
    per_place = math.prod(weight.shape[1:])
    channels = _input(call).shape[1]
    kind = _conv_kind(window, groups, channels, transposed=transposed)
    return Work(kind, places * per_place, window, pair(call.arguments["stride"]), groups)


def _conv_kind(window: Pair, groups: int, channels: int, *, transposed: bool) -> KernelKind:
    if transposed:
        return "transposed"
    if groups == 1:
        return "pointwise" if window == (1, 1) else "conv"
    return "depthwise" if groups == channels else "grouped"


def linear(call: Call) -> Work:
    """Tokens (..., in) times weights (out, in)."""
    return Work("linear", call.written * call.arguments["weight"].shape[1])


def product(call: Call) -> Work:
    """`matmul`, `mm`, `bmm` and their forms with an added bias: (..., m, k) times (..., k, n)."""
    added = call.op in ("aten.addmm", "aten.baddbmm")
    left = call.operands[1 if added else 0]
    return Work("matmul", call.written * left.shape[-1])


def einsum(call: Call) -> Work:
    """Of two operands: the product of the sizes of all letters."""
    sizes = _letters(call.arguments["equation"].partition("->")[0], call.operands)
    return Work("matmul", math.prod(sizes.values()))


def _letters(inputs: str, operands: tuple[Operand, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, operand in zip(inputs.replace(" ", "").split(","), operands, strict=True):
        before, dots, after = term.partition("...")
        sizes.update(zip(before, operand.shape, strict=False))
        if after:
            sizes.update(zip(after, operand.shape[-len(after) :], strict=True))
        if dots:
            batch = operand.shape[len(before) : len(operand.shape) - len(after)]
            sizes["..."] = max(sizes.get("...", 1), math.prod(batch))
    return sizes


def attention(call: Call) -> Work:
    """Attention of queries (..., l, e) to keys (..., s, e) with values (..., s, v)."""
    query, key, value = (call.arguments[name].shape for name in ("query", "key", "value"))
    batch = math.prod(query[:-2])
    return Work("attention", batch * query[-2] * key[-2] * (query[-1] + value[-1]))


def pool(call: Call) -> Work:
    """A window that slides; one that covers everything is a reduction."""
    window = pair(call.arguments["kernel_size"])
    if window == pair(_input(call).shape[2:]):
        return Work("reduce")
    stride = call.arguments.get("stride") or call.arguments["kernel_size"]
    return Work("pool", window=window, stride=pair(stride))


def adaptive_pool(call: Call) -> Work:
    """To a fixed size: a reduction if it is 1, else windows of about the ratio of the sizes."""
    inner, outer = pair(_input(call).shape[2:]), pair(call.results[0][2:])
    if outer == (1, 1):
        return Work("reduce")
    ratio = (-(-inner[0] // outer[0]), -(-inner[1] // outer[1]))
    return Work("pool", window=ratio, stride=ratio)


def gather(call: Call) -> Work:
    """Of a table only what is picked is read."""
    return Work("gather", params=call.written)


def pair(values: Any) -> Pair:
    """Height and width; what has one dimension has height 1, one number is for both."""
    if isinstance(values, int):
        return values, values
    sizes = tuple(int(value) for value in values)
    if len(sizes) == 1:
        return 1, sizes[0]
    return sizes[-2], sizes[-1]


def _input(call: Call) -> Operand:
    found: Operand = call.operands[0]
    return found


def moves_nothing(call: Call) -> bool:
    """Tell whether a permutation, slice or padding leaves the elements where they are."""
    before, after = call.operands[0].shape, call.results[0]
    if call.op in ("aten.slice", "aten.narrow", "aten.pad", "aten.constant_pad_nd"):
        return before == after
    order = _order(call, len(before))
    kept = [dim for dim in order if before[dim] != 1]
    return kept == sorted(kept)


def _order(call: Call, rank: int) -> Shape:
    order = list(range(rank))
    if call.op in ("aten.permute",):
        return tuple(dim % rank for dim in call.arguments["dims"])
    if call.op == "aten.t":
        return tuple(reversed(order))
    first, second = call.arguments["dim0"] % rank, call.arguments["dim1"] % rank
    order[first], order[second] = order[second], order[first]
    return tuple(order)
