"""Crops, affine maps and samples at any points, by PyTorch and by coremltools' expectations."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from phoneward.errors import EngineError
from tests.mil_ops import one, run
from tests.test_mil_resize import MODES, points

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
Arrays = NDArray[Any]
SQUARE = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def close(result: Tensor, right: Any) -> None:
    np.testing.assert_allclose(result, np.asarray(right), rtol=1e-4, atol=1e-4)


BOX = [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("box", "size", "right"),
    [
        (BOX, 2, [6, 7, 10, 11]),
        (BOX, 1, [8.5]),
        ([2, 2, 1, 1], 2, [11, 10, 7, 6]),
        (BOX, 4, (6 + np.add.outer(np.arange(4) * 4, np.arange(4)) / 3).flatten().tolist()),
    ],
    ids=["as it is", "one point", "backwards", "larger"],
)
def test_crop_resize_of_coremltools_tests(box: list[int], size: int, right: list[float]) -> None:
    options: dict[str, Any] = {"target_height": size, "target_width": size}
    options["sampling_mode"] = "ALIGN_CORNERS"
    roi = np.float32(box).reshape(1, 1, 4, 1, 1)
    old = lambda x: mb.crop_resize(x=x, roi=roi, **options)  # noqa: E731
    (result,) = run(old, {"x": SQUARE}, ct.target.iOS15)
    close(result, np.reshape(right, (1, 1, 1, size, size)))
    boxes = roi.reshape(1, 4)
    new = one(lambda x: mb.crop_resize(x=x, boxes=boxes, **options), x=SQUARE)
    close(new, np.reshape(right, (1, 1, size, size)))


BEYOND = np.float32([[0.1, 0.3, 1.3, 1], [0.5, 1.8, 1, 0.3], [0, 0.4, 0.6, 0.7]])


@pytest.mark.parametrize("pad", [0.0, 10.0])
def test_crop_resize_beyond_the_image(pad: float) -> None:
    options: dict[str, Any] = {"target_height": 2, "target_width": 2, "pad_value": np.float32(pad)}
    options |= {"normalized_coordinates": True, "sampling_mode": "ALIGN_CORNERS"}
    right = [3.1, 5.2, pad, pad, pad, 7.9, pad, 13.9, 2.2, 3.1, 9.4, 10.3]
    roi = np.concatenate([np.zeros((3, 1), np.float32), BEYOND], 1).reshape(3, 1, 5, 1, 1)
    old = lambda x: mb.crop_resize(x=x, roi=roi, **options)  # noqa: E731
    (result,) = run(old, {"x": SQUARE}, ct.target.iOS16)
    close(result, np.reshape(right, (3, 1, 1, 2, 2)))
    more = {"boxes": BEYOND, "box_indices": np.zeros(3, np.int32)}
    new = one(lambda x: mb.crop_resize(x=x, **more, **options), x=SQUARE)
    close(new, np.reshape(right, (3, 1, 2, 2)))


ORDERS = {
    "CORNERS_HEIGHT_FIRST": lambda t, le, b, r: [t, le, b, r],
    "CORNERS_WIDTH_FIRST": lambda t, le, b, r: [le, t, r, b],
    "CENTER_SIZE_HEIGHT_FIRST": lambda t, le, b, r: [(t + b) / 2, (le + r) / 2, b - t, r - le],
    "CENTER_SIZE_WIDTH_FIRST": lambda t, le, b, r: [(le + r) / 2, (t + b) / 2, r - le, b - t],
}


@relaxed
@given(
    rows=st.tuples(st.integers(0, 3), st.integers(1, 4)),
    columns=st.tuples(st.integers(0, 2), st.integers(1, 5)),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    mode=st.sampled_from(MODES),
    order=st.sampled_from(sorted(ORDERS)),
    scale=st.sampled_from([1.0, 0.5]),
)
def test_crop_resize_is_resizing_what_is_cut_out(
    rows: Any, columns: Any, sizes: tuple[int, int], mode: str, order: str, scale: float
) -> None:
    x = normal(2, 3, 8, 8)
    (top, high), (left, wide) = rows, columns
    corners = (top, left, top + high - 1, left + wide - 1)
    boxes = np.float32([ORDERS[order](*corners)]) / np.float32(scale)
    options = {"boxes": boxes, "box_indices": np.int32([1]), "sampling_mode": mode}
    options |= {"target_height": sizes[0], "target_width": sizes[1]}
    options |= {"box_coordinate_mode": order, "spatial_scale": np.float32(scale)}
    result = one(lambda x: mb.crop_resize(x=x, **options), x=x)
    right = x[1, :, top : top + high, left : left + wide]
    for axis, target in ((1, sizes[0]), (2, sizes[1])):
        grid, known = points(right.shape[axis], target, mode), np.arange(right.shape[axis])
        right = np.apply_along_axis(
            lambda line, g=grid, k=known: np.interp(g, k, line), axis, right
        )
    close(result[0], right)


def test_crop_resize_of_every_image() -> None:
    x = normal(2, 1, 4, 4)
    roi = np.float32([BOX, [0, 0, 3, 3], [0, 1, 2, 3]]).reshape(3, 1, 4, 1, 1)
    options: dict[str, Any] = {"sampling_mode": "STRICT_ALIGN_CORNERS"}
    options |= {"target_height": 2, "target_width": 2}
    (result,) = run(lambda x: mb.crop_resize(x=x, roi=roi, **options), {"x": x}, ct.target.iOS15)
    assert result.shape == (3, 2, 1, 2, 2)
    np.testing.assert_allclose(result[0], x[:, :, 1:3, 1:3])
    np.testing.assert_allclose(result[1], x[:, :, ::3, ::3])


def test_crop_resize_refuses_what_is_not_defined() -> None:
    back = np.float32([[2, 2, 1, 1]])
    with pytest.raises(EngineError, match="a box that ends before it starts"):
        one(lambda x: mb.crop_resize(x=x, boxes=back, sampling_mode="DEFAULT"), x=SQUARE)
    with pytest.raises(EngineError, match="a box of image 3, of 1"):
        one(
            lambda x, at: mb.crop_resize(x=x, boxes=back, box_indices=at),
            x=SQUARE,
            at=np.int32([3]),
        )


FLAT = np.float32([11, 22, 33, 44]).reshape(1, 1, 2, 2)
PLACES = np.float32([-1, -2, -3.7, -1, 0, 0, 3.5, 1.2]).reshape(1, 2, 2, 2)
UNIT, SIGNED, PIXELS = "normalized_zero_to_one", "normalized_minus_one_to_one", "unnormalized"


@pytest.mark.parametrize(
    ("sampling", "padding", "value", "coordinates", "align", "right"),
    [
        ("bilinear", "constant", 6.17, SIGNED, True, [8.585, 6.17, 27.5, 6.17]),
        ("nearest", "border", -1.0, PIXELS, False, [11, 11, 11, 44]),
        ("bilinear", "reflection", -1.0, UNIT, True, [22, 36.3, 11, 34.1]),
        ("nearest", "symmetric", -1.0, UNIT, False, [22, 33, 11, 33]),
    ],
)
def test_resample_of_coremltools_tests(
    sampling: str, padding: str, value: float, coordinates: str, align: bool, right: list[float]
) -> None:
    options = {"sampling_mode": sampling, "padding_mode": padding, "align_corners": align}
    options |= {"padding_value": np.float32(value), "coordinates_mode": coordinates}
    result = one(lambda x, at: mb.resample(x=x, coordinates=at, **options), x=FLAT, at=PLACES)
    close(result, np.reshape(right, (1, 1, 2, 2)))


@relaxed
@given(
    shape=st.tuples(*(st.integers(1, 5) for _ in range(4))),
    mode=st.sampled_from(["bilinear", "nearest"]),
    padding=st.sampled_from(["constant", "border", "reflection", "symmetric"]),
    coordinates=st.sampled_from([SIGNED, UNIT, PIXELS]),
    align=st.booleans(),
)
def test_resample(shape: Any, mode: str, padding: str, coordinates: str, align: bool) -> None:
    x, at = normal(*shape), normal(shape[0], 3, 4, 2) * 2
    options = {"sampling_mode": mode, "padding_mode": padding, "align_corners": align}
    options |= {"padding_value": np.float32(0), "coordinates_mode": coordinates}
    result = one(lambda x, at: mb.resample(x=x, coordinates=at, **options), x=x, at=at)
    # PyTorch mirrors at the edges' centres or at the edges as its corners are aligned or not
    theirs = align if padding in ("constant", "border") else padding == "reflection"
    place = torch.from_numpy(at).double()
    size = torch.tensor([shape[3], shape[2]], dtype=torch.float64)
    if coordinates != PIXELS:
        place = place * 2 - 1 if coordinates == UNIT else place
        place = (place + 1) / 2 * (size - 1) if align else ((place + 1) * size - 1) / 2
    grid = place / (size - 1).clamp(min=1) * 2 - 1 if theirs else (place * 2 + 1) / size - 1
    if theirs and padding != "reflection" and (size == 1).any():
        # one pixel has no extent between centres to go back from
        grid, theirs = (place * 2 + 1) / size - 1, False
    names = {"constant": "zeros", "symmetric": "reflection"}
    right = F.grid_sample(
        torch.from_numpy(x).double(), grid, mode, names.get(padding, padding), theirs
    )
    close(result, right)


def test_resample_at_whole_numbers_and_nowhere() -> None:
    options = {"sampling_mode": "nearest", "padding_mode": "constant", "align_corners": True}
    options |= {"padding_value": np.float32(-5), "coordinates_mode": PIXELS}
    body = lambda x, at: mb.resample(x=x, coordinates=at, **options)  # noqa: E731
    at = np.int32([1, 0, 0, 1, 2, 0]).reshape(1, 1, 3, 2)
    assert one(body, x=FLAT, at=at).flatten().tolist() == [22, 33, -5]
    nowhere = np.float32([np.inf, 0, np.nan, 0, 1e30, 1]).reshape(1, 1, 3, 2)
    assert one(body, x=FLAT, at=nowhere).flatten().tolist() == [-5, -5, -5]


AFFINE: dict[str, Any] = {
    "sampling_mode": "bilinear",
    "padding_mode": "constant",
    "padding_value": np.float32(0),
    "coordinates_mode": SIGNED,
}


def test_affine_of_coremltools_tests() -> None:
    matrix = np.float32([[-1, -2, -3.7, -1, 3.5, 1.2]])
    options = AFFINE | {"output_height": 2, "output_width": 5, "align_corners": True}
    result = one(lambda x, m: mb.affine(x=x, transform_matrix=m, **options), x=FLAT, m=matrix)
    close(result.flatten(), [10.752501, 5.94, 2.5025, 0.44, 0, 0, 0, 0, 0, 0])


@relaxed
@given(
    sizes=st.tuples(*(st.integers(1, 5) for _ in range(4))),
    batch=st.integers(1, 3),
    shared=st.booleans(),
)
def test_affine(sizes: Any, batch: int, shared: bool) -> None:
    x, matrix = normal(batch, 2, *sizes[:2]), normal(1 if shared else batch, 6)
    options = AFFINE | {"output_height": sizes[2], "output_width": sizes[3], "align_corners": True}
    result = one(lambda x, m: mb.affine(x=x, transform_matrix=m, **options), x=x, m=matrix)
    # PyTorch's own `affine_grid` warns of a single row or column
    ys, xs = (np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in sizes[2:])
    across, down = np.meshgrid(xs, ys)
    places = np.stack([across, down, np.ones_like(across)])
    grid = np.einsum("nij,jhw->nhwi", matrix.reshape(-1, 2, 3), places).astype(np.float32)
    theirs = torch.from_numpy(grid).expand(batch, -1, -1, -1)
    close(result, F.grid_sample(torch.from_numpy(x), theirs, align_corners=True))


def test_affine_refuses_what_core_ml_does() -> None:
    options = AFFINE | {"output_height": 2, "output_width": 2, "align_corners": False}
    matrix = np.float32([[1, 0, 0, 0, 1, 0]])
    with pytest.raises(EngineError, match="align_corners=False"):
        one(lambda x: mb.affine(x=x, transform_matrix=matrix, **options), x=FLAT)
