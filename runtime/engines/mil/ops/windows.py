"""Windows that slide over the last axes: their padding, and views of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

Both = list[tuple[int, int]]


def pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int] | None,
    dilations: Sequence[int] | None = None,
) -> Both:
    """Padding before and after along each axis, by coremltools' rules for `pad_type`.

    Of an odd amount `same` puts the larger part after, `same_lower` before.

    Raises:
        ValueError: there is no such `pad_type`.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        ends = list(pad or (0,) * (2 * len(sizes)))
        return list(zip(ends[::2], ends[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"no pad_type '{pad_type}'")
    both = []
    for size, k, stride, dilation in zip(
        sizes, kernel, strides, dilations or (1,) * len(sizes), strict=True
    ):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        both.append((less, more) if pad_type == "same" else (more, less))
    return both


def symmetric(both: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """Padding as PyTorch's convolutions and pools take it, or None if it is not so simple."""
    if any(before != after or before < 0 for before, after in both):
        return None
    return tuple(before for before, _ in both)


def backwards(both: Sequence[tuple[int, int]]) -> list[int]:
    """Padding as `torch.nn.functional.pad` takes it: the last axis first."""
    return [amount for ends in reversed(both) for amount in ends]


def windows(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int] | None = None,
) -> Tensor:
    """A view (n, channels, *windows, *kernel) of (n, channels, *sizes)."""
    for axis, (k, stride) in enumerate(zip(kernel, strides, strict=True)):
        dilation = dilations[axis] if dilations else 1
        x = x.unfold(2 + axis, (k - 1) * dilation + 1, stride)[..., ::dilation]
    return x
