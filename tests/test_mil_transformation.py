"""Values come out in the order that numpy, or arithmetic on their places, gives them."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.ops.transformation import slice_update
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
shapes = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
OLD = ct.target.iOS15


def numbered(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array in which every value tells its place."""
    return np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)


@relaxed
@given(shape=shapes, data=st.data())
def test_reshape(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    sizes = list(data.draw(st.permutations(shape)))
    if data.draw(st.booleans()):
        sizes[data.draw(st.integers(0, len(sizes) - 1))] = -1
    result = one(lambda x: mb.reshape(x=x, shape=sizes), x=x)
    np.testing.assert_array_equal(result.numpy(), x.reshape(sizes))


@pytest.mark.parametrize(
    ("shape", "sizes", "expected"),
    [
        ((4, 3, 2), (0, -1, 1), (4, 6, 1)),
        ((4, 3, 2), (0, 0, 0), (4, 3, 2)),
        ((2, 50), (1, 0, -1, 0), (1, 1, 2, 50)),
        ((2, 3, 4), (-1, 0), (6, 4)),
    ],
)
def test_a_zero_takes_a_size_over_counted_from_the_end(
    shape: tuple[int, ...], sizes: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    x = numbered(shape)
    result = one(lambda x: mb.reshape(x=x, shape=sizes), x=x)
    np.testing.assert_array_equal(result.numpy(), x.reshape(expected))


def test_a_zero_in_an_old_program_takes_over_the_size_at_its_place() -> None:
    x = numbered((4, 3, 2))
    (result,) = run(lambda x: mb.reshape(x=x, shape=[0, -1, 1]), {"x": x}, OLD)
    assert result.shape == (4, 6, 1)


def test_reshape_to_a_shape_that_is_computed() -> None:
    x, shape = numbered((2, 6)), np.array([3, -1], np.int32)
    result = one(lambda x, s: mb.reshape(x=x, shape=s), x=x, s=shape)
    np.testing.assert_array_equal(result.numpy(), x.reshape(3, 4))
    with pytest.raises(EngineError, match="reshape"):
        one(lambda x, s: mb.reshape(x=x, shape=s), x=x, s=np.array([5, -1], np.int32))


def test_reshape_like() -> None:
    x, first, second = numbered((12, 15)), numbered((2, 3, 4)), numbered((1, 5, 6))

    def body(x: Any, a: Any, b: Any) -> Any:
        return mb.reshape_like(
            x=x, ref_tensors=(a, b), begins=(0, 1), ends=(2, 0), end_masks=(False, True)
        )

    result = one(body, x=x, a=first, b=second)
    np.testing.assert_array_equal(result.numpy(), x.reshape(2, 3, 5, 6))


@relaxed
@given(shape=shapes, data=st.data())
def test_expand_dims(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    count = data.draw(st.integers(1, 5 - min(len(shape), 4)))
    rank = len(shape) + count
    places = data.draw(st.sets(st.integers(0, rank - 1), min_size=count, max_size=count))
    axes = [place - rank if data.draw(st.booleans()) else place for place in places]
    result = one(lambda x: mb.expand_dims(x=x, axes=axes), x=x)
    np.testing.assert_array_equal(result.numpy(), np.expand_dims(x, tuple(axes)))


def test_expand_dims_of_a_scalar() -> None:
    x = np.array([1, 2], np.float32)
    result = one(lambda x: mb.expand_dims(x=mb.reduce_sum(x=x), axes=[0, 1]), x=x)
    assert result.tolist() == [[3]]


@relaxed
@given(shape=hnp.array_shapes(min_dims=1, max_dims=5, max_side=2), data=st.data())
def test_squeeze_leaves_other_sizes_alone(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    axes = data.draw(st.none() | st.sets(st.integers(-len(shape), -1), min_size=1))
    how = {} if axes is None else {"axes": sorted(axes)}
    result = one(lambda x: mb.squeeze(x=x, **how), x=x)
    gone = range(-len(shape), 0) if axes is None else axes
    single = tuple(axis for axis in gone if shape[axis] == 1)
    np.testing.assert_array_equal(result.numpy(), np.squeeze(x, single))


@relaxed
@given(shape=shapes, data=st.data())
def test_transpose(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    order = data.draw(st.permutations(range(len(shape))))
    perm = [axis - len(shape) if data.draw(st.booleans()) else axis for axis in order]
    result = one(lambda x: mb.transpose(x=x, perm=perm), x=x)
    np.testing.assert_array_equal(result.numpy(), np.transpose(x, order))


@relaxed
@given(shape=shapes, data=st.data())
def test_reverse(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    axes = data.draw(st.none() | st.sets(st.integers(-len(shape), -1), min_size=1))
    how = {} if axes is None else {"axes": sorted(axes)}
    result = one(lambda x: mb.reverse(x=x, **how), x=x)
    np.testing.assert_array_equal(result.numpy(), np.flip(x, None if axes is None else tuple(axes)))


@relaxed
@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), data=st.data())
def test_reverse_sequence(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    batch, along = data.draw(st.permutations(range(len(shape))))[:2]
    some = st.integers(0, shape[along])
    lengths = data.draw(st.lists(some, min_size=shape[batch], max_size=shape[batch]))
    result = one(
        lambda x, n: mb.reverse_sequence(x=x, lengths=n, seq_axis=along, batch_axis=batch),
        x=x,
        n=np.array(lengths, np.int32),
    )
    expected = x.copy()
    for index, length in enumerate(lengths):
        row = np.moveaxis(expected, (batch, along), (0, 1))[index]
        row[:length] = row[:length][::-1].copy()
    np.testing.assert_array_equal(result.numpy(), expected)


@st.composite
def slices(draw: st.DrawFn) -> tuple[NDArray[np.float32], dict[str, Any], tuple[Any, ...]]:
    """An array, a slice of it as the op takes it, and as numpy does."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=6))
    begin, end, stride, heads, tails, single, index = [], [], [], [], [], [], []
    for size in shape:
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        low, high = sorted((draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))))
        first, last = (low, high + 1) if step > 0 else (high, low)
        head, tail = draw(st.booleans()), draw(st.booleans())
        # coremltools refuses and misjudges slices of nothing
        assume(step > 0 or head or tail or high > low)
        alone = len(single) - sum(single) > 0 and draw(st.integers(0, 3)) == 0
        begin.append(first - size if draw(st.booleans()) else first)
        # the end as counted from the other end has to name a place
        end.append(last - size if 0 < last < size and draw(st.booleans()) else last)
        stride.append(step)
        heads.append(head)
        tails.append(tail)
        single.append(alone)
        whole = slice(None if head else first, None if tail else last, step)
        index.append((0 if head else first) if alone else whole)
    given_slice = {
        "begin": begin,
        "end": end,
        "stride": stride,
        "begin_mask": heads,
        "end_mask": tails,
        "squeeze_mask": single,
    }
    return numbered(shape), given_slice, tuple(index)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=slices())
def test_slice_by_index(
    case: tuple[NDArray[np.float32], dict[str, Any], tuple[Any, ...]],
) -> None:
    x, how, index = case
    result = one(lambda x: mb.slice_by_index(x=x, **how), x=x)
    np.testing.assert_array_equal(result.numpy(), x[index])


def test_slices_of_other_types_and_past_the_end() -> None:
    x = np.array([True, False, True])
    result = one(lambda x: mb.slice_by_index(x=x, begin=[1], end=[9]), x=x)
    assert result.tolist() == [False, True]
    result = one(lambda x: mb.slice_by_index(x=x, begin=[-1], end=[-3], stride=[-1]), x=x)
    assert result.tolist() == [True, False]


def test_slices_whose_bounds_are_computed() -> None:
    x = numbered((4, 5))
    bounds = {"b": np.array([1, -2], np.int32), "e": np.array([3, 5], np.int32)}
    result = one(lambda x, b, e: mb.slice_by_index(x=x, begin=b, end=e), x=x, **bounds)
    np.testing.assert_array_equal(result.numpy(), x[1:3, -2:5])


def test_an_index_outside_is_an_error() -> None:
    def body(x: Any, b: Any) -> Any:
        return mb.slice_by_index(x=x, begin=b, end=[0], squeeze_mask=[True])

    with pytest.raises(EngineError, match="slice_by_index"):
        one(body, x=numbered((3,)), b=np.array([3], np.int32))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=slices())
def test_slice_update_changes_the_slice_alone(
    case: tuple[NDArray[np.float32], dict[str, Any], tuple[Any, ...]],
) -> None:
    x, how, index = case
    update = -1 - numbered(x[index].shape)
    assume(update.ndim > 0)
    result = one(lambda x, u: mb.slice_update(x=x, update=u, **how), x=x, u=update)
    expected = x.copy()
    expected[index] = update
    np.testing.assert_array_equal(result.numpy(), expected)


def test_slice_update_leaves_its_input_alone_and_takes_what_fits() -> None:
    x = torch.zeros(4)
    assert slice_update(x, torch.ones(2), (1,), (3,)).tolist() == [0, 1, 1, 0]
    assert x.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match="update of"):
        slice_update(x, torch.ones(1), (1,), (3,))


@relaxed
@given(shape=shapes, data=st.data())
def test_slice_by_size(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    begin, size, index = [], [], []
    for length in shape:
        first = data.draw(st.integers(0, length - 1))
        taken = data.draw(st.integers(1, length - first))
        rest = data.draw(st.booleans())
        begin.append(first)
        size.append(-1 if rest else taken)
        index.append(slice(first, None if rest else first + taken))
    result = one(lambda x: mb.slice_by_size(x=x, begin=begin, size=size), x=x)
    np.testing.assert_array_equal(result.numpy(), x[tuple(index)])
    (expected,) = inferred(lambda: mb.slice_by_size(x=x, begin=begin, size=size))
    np.testing.assert_array_equal(result.numpy(), expected)


blocks = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))


@relaxed
@given(sizes=blocks, block=st.integers(2, 3))
def test_depth_to_space_takes_whole_images_of_channels(
    sizes: tuple[int, int, int, int], block: int
) -> None:
    n, c, h, w = sizes
    x = numbered((n, c * block * block, h, w))
    result = one(lambda x: mb.depth_to_space(x=x, block_size=block), x=x).numpy()
    for row in range(block):
        for column in range(block):
            first = (row * block + column) * c
            np.testing.assert_array_equal(
                result[:, :, row::block, column::block], x[:, first : first + c]
            )
    back = one(lambda x: mb.space_to_depth(x=x, block_size=block), x=result)
    np.testing.assert_array_equal(back.numpy(), x)


@relaxed
@given(sizes=blocks, factor=st.integers(1, 3))
def test_pixel_shuffle_and_back(sizes: tuple[int, int, int, int], factor: int) -> None:
    n, c, h, w = sizes
    x = numbered((n, c * factor * factor, h, w))
    result = one(lambda x: mb.pixel_shuffle(x=x, upscale_factor=factor), x=x)
    for row in range(factor):
        for column in range(factor):
            np.testing.assert_array_equal(
                result[:, :, row::factor, column::factor].numpy(),
                x[:, row * factor + column :: factor * factor],
            )
    back = one(
        lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(factor)), x=result.numpy()
    )
    np.testing.assert_array_equal(back.numpy(), x)


@relaxed
@given(sizes=blocks, block=st.tuples(st.integers(1, 3), st.integers(1, 3)), data=st.data())
def test_space_to_batch_and_back(
    sizes: tuple[int, int, int, int], block: tuple[int, int], data: st.DataObject
) -> None:
    n, c, rows, columns = sizes
    (high, wide), (h, w) = block, (rows * block[0], columns * block[1])
    above, left = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    below, right = data.draw(st.integers(0, h - 1 - above)), data.draw(st.integers(0, w - 1 - left))
    edges = np.array([[above, below], [left, right]], np.int32)
    x = 1 + numbered((n, c, h - above - below, w - left - right))
    result = one(
        lambda x: mb.space_to_batch(x=x, block_shape=np.array(block, np.int32), paddings=edges), x=x
    )
    padded = np.pad(x, [(0, 0), (0, 0), *edges.tolist()])
    for row in range(high):
        for column in range(wide):
            first = (row * wide + column) * n
            np.testing.assert_array_equal(
                result[first : first + n].numpy(), padded[:, :, row::high, column::wide]
            )
    back = one(
        lambda x: mb.batch_to_space(x=x, block_shape=np.array(block, np.int32), crops=edges),
        x=result.numpy(),
    )
    np.testing.assert_array_equal(back.numpy(), x)


@relaxed
@given(shape=shapes, data=st.data())
def test_sliding_windows(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = numbered(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size, stride = data.draw(st.integers(1, shape[axis])), data.draw(st.integers(1, 3))
    result = one(lambda x: mb.sliding_windows(x=x, axis=axis, size=size, stride=stride), x=x)
    starts = range(0, shape[axis] - size + 1, stride)
    windows = [x.take(range(start, start + size), axis) for start in starts]
    np.testing.assert_array_equal(result.numpy(), np.stack(windows, axis % x.ndim))


def test_pixel_shuffle_is_pytorchs() -> None:
    x = numbered((1, 8, 2, 3))
    result = one(lambda x: mb.pixel_shuffle(x=x, upscale_factor=2), x=x)
    assert torch.equal(result, F.pixel_shuffle(torch.from_numpy(x), 2))
