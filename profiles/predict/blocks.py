"""Blocks of hybrid vision transformers as kernels, by the keys of nn-Meter's block tables.

A key spells a block out: `conv_56_32_48_3_2_hard_swish_3_se` is an inverted residual from 32 to 48
channels at 56x56, expansion 3, stride 2, window 3, with squeeze-and-excitation. What each stands
for was read in microsoft/nn-Meter, branch dev/hybrid-transformer @9c31e190,
examples/test_transformer/build_lut (MIT).
"""

from __future__ import annotations

from collections.abc import Callable

from phoneward.errors import PredictionError
from phoneward.profiles.kernels import Kernel, KernelKind

_SWISH = "hardswish"
_HEAD = 16  # channels of a query of one head
_SQUEEZE = 4
_OPS = {
    "softmax": "aten.softmax",
    "norm": "aten.layer_norm",
    "move": "aten.permute",
    "pool": "aten.avg_pool2d",
    "reduce": "aten.mean",
}


def block_kernels(key: str) -> tuple[Kernel, ...]:
    """Return the kernels of a block, in order of execution.

    Raises:
        PredictionError: no block is spelt like that.
    """
    kind, *words = key.split("_")
    try:
        if kind not in _KINDS:
            raise ValueError(f"no kind '{kind}': one of {', '.join(_KINDS)}")
        numbers = [int(word) for word in words if word.isdigit()]
        if any(number <= 0 for number in numbers):
            raise ValueError("a size is not positive")
        return _KINDS[kind](numbers, words)
    except (ValueError, IndexError) as error:
        raise PredictionError(f"no block '{key}': {error}") from error


def block_type(key: str) -> str:
    """Return the first word of a key: `conv`, `transds`, `transattn`, `transffn`, ..."""
    return key.partition("_")[0]


def _first(sizes: list[int], _: list[str]) -> tuple[Kernel, ...]:
    side, inputs, outputs, stride, window = sizes
    return (_conv("conv", inputs, outputs, side, window, stride, act=_SWISH),)


def _conv_block(sizes: list[int], words: list[str]) -> tuple[Kernel, ...]:
    side, inputs, outputs, expansion, stride, window = sizes
    if words[-1] not in ("se", "nose"):
        raise ValueError("the last word must be 'se' or 'nose'")
    return _inverted(side, inputs, outputs, expansion, stride, window, squeeze=words[-1] == "se")


def _downsampling(sizes: list[int], _: list[str]) -> tuple[Kernel, ...]:
    side, inputs, outputs, stride, expansion = sizes
    return _inverted(side, inputs, outputs, expansion, stride, 3, squeeze=True)


def _inverted(
    side: int, inputs: int, outputs: int, expansion: int, stride: int, window: int, squeeze: bool
) -> tuple[Kernel, ...]:
    wide, small = inputs * expansion, -(-side // stride)
    found = []
    if expansion > 1:
        found.append(_conv("pointwise", inputs, wide, side, act=_SWISH))
    found.append(_conv("depthwise", wide, wide, side, window, stride, act=_SWISH))
    if squeeze:
        found += _squeeze(wide, small)
    found.append(_conv("pointwise", wide, outputs, small))
    if inputs != outputs:
        if stride == 2:
            found.append(_plain("pool", (1, inputs, side, side), (1, inputs, small, small)))
        found.append(_conv("pointwise", inputs, outputs, small))
    if inputs != outputs or stride == 1:
        found.append(_binary((1, outputs, small, small), "aten.add"))
    return tuple(found)


def _squeeze(channels: int, side: int) -> list[Kernel]:
    one = (1, channels, 1, 1)
    return [
        _plain("reduce", (1, channels, side, side), one),
        _conv("pointwise", channels, channels // _SQUEEZE, 1, act="relu"),
        _conv("pointwise", channels // _SQUEEZE, channels, 1, act="hardsigmoid"),
        _binary((1, channels, side, side), "aten.mul", other=channels),
    ]


def _attention(sizes: list[int], _: list[str]) -> tuple[Kernel, ...]:
    side, channels, ratio = sizes
    tokens, heads = side * side, channels // _HEAD
    if heads == 0:
        raise ValueError(f"fewer than {_HEAD} channels")
    value = _HEAD * ratio
    wide = heads * (2 * _HEAD + value)
    scores = (1, heads, tokens, tokens)
    return (
        _norm(tokens, channels),
        _linear(tokens, channels, wide, act=_SWISH),
        _plain("move", (1, tokens, wide), (1, heads, tokens, wide // heads)),
        _plain("move", (1, heads, tokens, wide // heads), (1, heads, tokens, wide // heads)),
        _matmul(scores, _HEAD, reads=2 * heads * tokens * _HEAD),
        _binary(scores, "aten.div", other=1),
        _binary(scores, "aten.add"),
        _plain("softmax", scores, scores),
        _matmul((1, heads, tokens, value), tokens, reads=heads * tokens * (tokens + value)),
        _plain("move", (1, heads, tokens, value), (1, tokens, heads * value)),
        _activation((1, tokens, heads * value)),
        _linear(tokens, heads * value, channels),
    )


def _mlp(sizes: list[int], _: list[str]) -> tuple[Kernel, ...]:
    side, channels, expansion = sizes
    tokens = side * side
    return (
        _norm(tokens, channels),
        _linear(tokens, channels, channels * expansion, act=_SWISH),
        _linear(tokens, channels * expansion, channels),
        _binary((1, tokens, channels), "aten.add"),
    )


def _head(sizes: list[int], _: list[str]) -> tuple[Kernel, ...]:
    side, channels, features, expansion = sizes
    wide = channels * expansion
    return (
        _conv("pointwise", channels, wide, side, act=_SWISH),
        _plain("reduce", (1, wide, side, side), (1, wide, 1, 1)),
        _conv("pointwise", wide, features, 1),
        _linear(1, features, 1000),
    )


_KINDS: dict[str, Callable[[list[int], list[str]], tuple[Kernel, ...]]] = {
    "firstconv": _first,
    "conv": _conv_block,
    "transds": _downsampling,
    "transattn": _attention,
    "transffn": _mlp,
    "mbpool": _head,
}


def _conv(
    kind: KernelKind,
    inputs: int,
    outputs: int,
    side: int,
    window: int = 1,
    stride: int = 1,
    *,
    act: str | None = None,
) -> Kernel:
    small = -(-side // stride)
    groups = inputs if kind == "depthwise" else 1
    params = outputs * (inputs // groups) * window**2
    return Kernel(
        kind=kind,
        ops=("aten.conv2d", *([f"aten.{act}"] if act else [])),
        macs=params * small**2,
        reads=inputs * side**2,
        writes=outputs * small**2,
        params=params + outputs,
        in_shape=(1, inputs, side, side),
        out_shape=(1, outputs, small, small),
        window=(window, window),
        stride=(stride, stride),
        groups=groups,
        activation=act,
    )


def _linear(tokens: int, inputs: int, outputs: int, *, act: str | None = None) -> Kernel:
    return Kernel(
        kind="linear",
        ops=("aten.linear", *([f"aten.{act}"] if act else [])),
        macs=tokens * inputs * outputs,
        reads=tokens * inputs,
        writes=tokens * outputs,
        params=inputs * outputs,
        in_shape=(1, tokens, inputs),
        out_shape=(1, tokens, outputs),
        activation=act,
    )


def _matmul(out: tuple[int, ...], depth: int, reads: int) -> Kernel:
    size = _size(out)
    left = (*out[:-1], depth)
    return Kernel(
        kind="matmul", ops=("aten.matmul",), macs=size * depth, reads=reads, writes=size,
        in_shape=left, out_shape=out,
    )  # fmt: skip


def _norm(tokens: int, channels: int) -> Kernel:
    shape = (1, tokens, channels)
    return _plain("norm", shape, shape, params=2 * channels)


def _plain(
    kind: KernelKind, inside: tuple[int, ...], out: tuple[int, ...], params: int = 0
) -> Kernel:
    return Kernel(
        kind=kind, ops=(_OPS[kind],), reads=_size(inside), writes=_size(out), params=params,
        in_shape=inside, out_shape=out,
    )  # fmt: skip


def _binary(shape: tuple[int, ...], op: str, other: int | None = None) -> Kernel:
    size = _size(shape)
    reads = size + (size if other is None else other)
    return Kernel(
        kind="elementwise", ops=(op,), reads=reads, writes=size, in_shape=shape, out_shape=shape
    )


def _activation(shape: tuple[int, ...]) -> Kernel:
    size = _size(shape)
    return Kernel(
        kind="activation", ops=("aten.hardswish",), reads=size, writes=size, in_shape=shape,
        out_shape=shape, activation=_SWISH,
    )  # fmt: skip


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total
