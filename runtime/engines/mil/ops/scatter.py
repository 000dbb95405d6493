"""Gathering and scattering by index.

Up to iOS 16 an index may be negative and counts from the end; ops from iOS 17 on, which are those
with `validate_indices`, leave such an index undefined unless they refuse it. Here one out of range
is always an error: a program must not depend on what is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoneward.runtime.engines.mil.numerics import Sums
from phoneward.runtime.engines.mil.signature import Table

TABLE = Table()

# what combines an update with the value there, one after the other where indices repeat
_MODES: dict[str, Callable[..., None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


@TABLE.mover
def gather(
    x: Tensor,
    indices: Tensor,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool | None = None,
) -> Tensor:
    axis %= x.dim()
    index = _within(indices, x.shape[axis], validate_indices)
    shape = (*x.shape[:axis], *index.shape[batch_dims:], *x.shape[axis + 1 :])
    if batch_dims == 0:
        return x.index_select(axis, index.reshape(-1)).reshape(shape)
    if batch_dims < 0:
        raise ValueError(f"batch_dims is {batch_dims}")
    batches = zip(x.flatten(0, batch_dims - 1), index.flatten(0, batch_dims - 1), strict=True)
    parts = [one.index_select(axis - batch_dims, i.reshape(-1)) for one, i in batches]
    return torch.stack(parts).reshape(shape)


@TABLE.mover
def gather_along_axis(
    x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool | None = None
) -> Tensor:
    return x.gather(axis, _within(indices, x.shape[axis], validate_indices))


@TABLE.mover
def gather_nd(
    x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool | None = None
) -> Tensor:
    if indices.shape[:batch_dims] != x.shape[:batch_dims]:
        raise ValueError(f"batches of {tuple(indices.shape)} in {tuple(x.shape)}")
    inner = _places(indices, x.shape[batch_dims:], validate_indices)
    lead = indices.dim() - 1
    outer = [
        torch.arange(size).reshape([-1 if axis == at else 1 for axis in range(lead)])
        for at, size in enumerate(x.shape[:batch_dims])
    ]
    return x[(*outer, *inner)]


@TABLE.op
def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool | None = None,
    *,
    sums: Sums,
) -> Tensor:
    axis %= data.dim()
    places = _within(indices, data.shape[axis], validate_indices)
    rank = places.dim()
    front = data.movedim(axis, 0)
    moved = updates.movedim(tuple(range(axis, axis + rank)), tuple(range(rank)))
    return _scattered(front, (places,), moved, mode, sums).movedim(0, axis)


@TABLE.op
def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool | None = None,
    *,
    sums: Sums,
) -> Tensor:
    ranges = [torch.arange(size) for size in indices.shape]
    places = list(torch.meshgrid(*ranges, indexing="ij"))
    places[axis] = _within(indices, data.shape[axis], validate_indices)
    return _scattered(data, places, updates, mode, sums)


@TABLE.op
def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
    validate_indices: bool | None = None,
    *,
    sums: Sums,
) -> Tensor:
    places = _places(indices, data.shape, validate_indices)
    return _scattered(data, places, updates, mode, sums)


def _places(indices: Tensor, sizes: Sequence[int], validate: bool | None) -> list[Tensor]:
    """Indices along each axis, of those that the last axis of `indices` holds together."""
    parts = indices.unbind(-1)
    return [_within(part, size, validate) for part, size in zip(parts, sizes, strict=False)]


def _within(indices: Tensor, size: int, validate: bool | None) -> Tensor:
    """Return indices that count from the start; `validate` is None before iOS 17.

    Raises:
        IndexError: one is out of range.
    """
    index = indices.long()
    if validate is None:
        index = torch.where(index < 0, index + size, index)
    if bool(((index < 0) | (index >= size)).any()):
        raise IndexError(
            f"an index of {int(indices.min())} to {int(indices.max())} is out of range for {size}"
        )
    return index


def _scattered(
    data: Tensor, places: Sequence[Tensor], updates: Tensor, mode: str, sums: Sums
) -> Tensor:
    result, values = _own(data, sums), _own(updates, sums)
    index = tuple(place.numpy() for place in places)
    if mode == "update":
        # of updates to one place the last one stays
        result[index] = values
    elif mode not in _MODES:
        raise ValueError(f"no mode '{mode}'")
    elif mode == "div" and result.dtype.kind != "f":
        raise ValueError("mode 'div' of whole numbers: its rounding is not documented")
    else:
        _MODES[mode](result, index, values)
    return torch.from_numpy(np.asarray(result, np.float32 if data.is_floating_point() else None))


def _own(x: Tensor, sums: Sums) -> NDArray[Any]:
    """A copy, in half precision where every single sum is to be rounded."""
    half = x.is_floating_point() and not sums.exact
    return np.array(x.numpy(), np.float16 if half else None)
