"""Images of another size are PyTorch's, and hold what coremltools' documentation says of grids."""

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

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
images = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
targets = st.tuples(st.integers(1, 12), st.integers(1, 12))
MODES = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]
Arrays = NDArray[Any]


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def points(size: int, target: int, mode: str) -> NDArray[np.float64]:
    """The grid as coremltools documents it."""
    at = np.arange(target)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        one_point = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        grid = at * (size - 1) / (target - 1) if target > 1 else np.array([one_point])
    elif mode == "DEFAULT":
        grid = at * ((size - size / target) / (target - 1)) if target > 1 else np.zeros(1)
    elif mode == "OFFSET_CORNERS":
        grid = (at + 0.5) * max(1, size - 1) / target
    else:
        grid = at * size / target + 0.5 * size / target - 0.5
    return np.clip(grid, 0, size - 1)


def resized(x: Arrays, sizes: tuple[int, ...], mode: str) -> Arrays:
    for axis, target in enumerate(sizes, start=x.ndim - len(sizes)):
        grid = points(x.shape[axis], target, mode)
        known = np.arange(x.shape[axis])
        x = np.apply_along_axis(lambda line, g=grid, k=known: np.interp(g, k, line), axis, x)
    return x


def close(result: Tensor, right: Any) -> None:
    np.testing.assert_allclose(result, np.asarray(right), rtol=1e-4, atol=1e-5)


def scaling(factors: tuple[float, float]) -> dict[str, Any]:
    names = ("scale_factor_height", "scale_factor_width")
    whole = all(factor == int(factor) for factor in factors)
    kind = np.int32 if whole else np.float32
    return {name: kind(factor) for name, factor in zip(names, factors, strict=True)}


@pytest.mark.parametrize("mode", MODES)
@relaxed
@given(shape=images, sizes=targets)
def test_resize_bilinear(mode: str, shape: tuple[int, ...], sizes: tuple[int, int]) -> None:
    x = normal(*shape)
    options = {"target_size_height": sizes[0], "target_size_width": sizes[1]}
    result = one(lambda x: mb.resize_bilinear(x=x, sampling_mode=mode, **options), x=x)
    close(result, resized(x, sizes, mode))
    # the newer op, on as many axes as one likes
    shape_of = np.array([*sizes], np.int32)
    body = lambda x: mb.resize(x=x, shape=shape_of, resized_dims=np.uint32(2), sampling_mode=mode)  # noqa: E731
    close(one(body, x=x), resized(x, sizes, mode))


@pytest.mark.parametrize(
    ("mode", "right"),
    [
        ("STRICT_ALIGN_CORNERS", [0, 0.25, 0.5, 0.75, 1]),
        ("DEFAULT", [0, 0.4, 0.8, 1, 1]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", [0, 0.1, 0.5, 0.9, 1]),
    ],
)
def test_resize_bilinear_of_coremltools_tests(mode: str, right: list[float]) -> None:
    options = {"target_size_height": 1, "target_size_width": 5, "sampling_mode": mode}
    x = np.array([[[0, 1]]], np.float32)
    close(one(lambda x: mb.resize_bilinear(x=x, **options), x=x), [[right]])


SCALES = st.sampled_from([1, 2, 3, 0.5, 0.75, 1.5, 2.5, 2.6])


@relaxed
@given(shape=images, factors=st.tuples(SCALES, SCALES), align=st.booleans())
def test_upsample_bilinear(shape: tuple[int, ...], factors: Any, align: bool) -> None:
    x = normal(1, *(size + 2 for size in shape))
    options = scaling(factors) | {"align_corners": align}
    result = one(lambda x: mb.upsample_bilinear(x=x, **options), x=x)
    how = {"mode": "bilinear", "align_corners": align, "recompute_scale_factor": True}
    close(result, F.interpolate(torch.from_numpy(x), scale_factor=factors, **how))


@pytest.mark.parametrize(
    ("align", "centres", "right"),
    [
        (True, None, [1, 1.2, 1.4, 1.6, 1.8, 2]),
        (True, False, [1, 1.2, 1.4, 1.6, 1.8, 2]),
        (False, None, [1, 1, 4 / 3, 5 / 3, 2, 2]),
        (False, True, [1, 1, 4 / 3, 5 / 3, 2, 2]),
        (False, False, [1, 4 / 3, 5 / 3, 2, 2, 2]),
    ],
)
def test_half_pixel_centers(align: bool, centres: bool | None, right: list[float]) -> None:
    options = scaling((2, 3)) | {"align_corners": align, "half_pixel_centers": centres}
    x = np.array([[[[1, 2]]]], np.float32)
    result = one(lambda x: mb.upsample_bilinear(x=x, **options), x=x)
    close(result, [[[right, right]]])


def test_corners_and_centres_exclude_each_other() -> None:
    options = {"align_corners": True, "half_pixel_centers": True}
    with pytest.raises(EngineError, match="exclude each other"):
        one(lambda x: mb.upsample_bilinear(x=x, **options), x=normal(1, 1, 2, 2))


@relaxed
@given(shape=images, factors=st.tuples(SCALES, SCALES))
def test_upsample_nearest_neighbor(shape: tuple[int, ...], factors: Any) -> None:
    x = normal(1, *(size + 2 for size in shape))
    result = one(lambda x: mb.upsample_nearest_neighbor(x=x, **scaling(factors)), x=x)
    right = F.interpolate(torch.from_numpy(x), scale_factor=factors, mode="nearest")
    torch.testing.assert_close(result, right, rtol=0, atol=0)


@relaxed
@given(shape=images, sizes=targets)
def test_upsample_nearest_neighbor_to_a_size(shape: Any, sizes: tuple[int, int]) -> None:
    # coremltools writes the size as a scale, with a little more where it is no whole number
    x = normal(1, *shape)
    factors = tuple(
        (size if size % now == 0 else size + 1e-4) / now
        for size, now in zip(sizes, shape[1:], strict=True)
    )
    result = one(lambda x: mb.upsample_nearest_neighbor(x=x, **scaling(factors)), x=x)
    right = F.interpolate(torch.from_numpy(x), sizes, mode="nearest")
    torch.testing.assert_close(result, right, rtol=0, atol=0)


@relaxed
@given(shape=images, sizes=targets, mode=st.sampled_from(["DEFAULT", "UNALIGN_CORNERS"]))
def test_resize_nearest_neighbor(shape: Any, sizes: tuple[int, int], mode: str) -> None:
    x = normal(*shape)
    options = {"target_size_height": sizes[0], "target_size_width": sizes[1]}
    result = one(lambda x: mb.resize_nearest_neighbor(x=x, **options), x=x)
    places = [
        [int((2 * at + 1) * now // (2 * size)) for at in range(size)]
        for now, size in zip(shape[1:], sizes, strict=True)
    ]
    right = x[:, places[0]][:, :, places[1]]
    np.testing.assert_array_equal(result, right)
    options = {"interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": mode}
    wanted = np.array([9, *sizes], np.int32)
    body = lambda x: mb.resize(x=x, shape=wanted, resized_dims=np.uint32(2), **options)  # noqa: E731
    np.testing.assert_array_equal(one(body, x=x), right)


def test_resize_to_a_shape_of_the_program() -> None:
    body = lambda x, shape: mb.resize(  # noqa: E731
        x=x, shape=shape, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
    )
    x = np.array([-6, 9], np.float32).reshape(1, 1, 2, 1)
    result = one(body, x=x, shape=np.array([1, 1, 3, 2], np.int32))
    # coremltools' own expectation
    assert result.flatten().tolist() == [-6, -6, 9, 9, 9, 9]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_resize_of_several_axes(count: int) -> None:
    x, sizes = normal(2, 3, 4, 5), (4, 3, 7)[:count]
    wanted = np.array(sizes, np.int32)
    result = one(lambda x: mb.resize(x=x, shape=wanted, resized_dims=np.uint32(count)), x=x)
    close(result, resized(x, sizes, "DEFAULT"))


def test_resize_leaves_what_is_zero_and_whole_numbers() -> None:
    x, wanted = np.arange(6, dtype=np.int32).reshape(1, 2, 3), np.array([0, 6], np.int32)
    options = {"shape": wanted, "resized_dims": np.uint32(2)}
    nearest = {"interpolation_mode": "NEAREST_NEIGHBOR"}
    (result,) = run(
        lambda x, shape: mb.resize(x=x, shape=shape, resized_dims=np.uint32(2), **nearest),
        {"x": x, "shape": wanted},
    )
    assert result.dtype == torch.int32
    assert result.tolist() == [[[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]]
    with pytest.raises(EngineError, match="rounding is not documented"):
        run(lambda x: mb.resize(x=x, **options), {"x": x})
    with pytest.raises(EngineError, match="sampling_mode 'OFFSET_CORNERS'"):
        run(
            lambda x: mb.resize(x=x, sampling_mode="OFFSET_CORNERS", **options, **nearest), {"x": x}
        )


@relaxed
@given(shape=images, edges=st.tuples(*(st.integers(0, 3) for _ in range(4))))
def test_crop(shape: tuple[int, ...], edges: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = edges
    x = normal(shape[0], shape[1] + top + bottom, shape[2] + left + right)
    options = {"crop_height": [top, bottom], "crop_width": [left, right]}
    result = one(lambda x: mb.crop(x=x, **options), x=x)
    np.testing.assert_array_equal(result, x[:, top : top + shape[1], left : left + shape[2]])


@pytest.mark.filterwarnings("ignore:Function _TORCH_OPS_REGISTRY:DeprecationWarning")
class TestRoundTrip:
    """What PyTorch computes comes back from its conversion to Core ML."""

    @pytest.mark.parametrize(
        "how",
        [
            {"size": (7, 9), "mode": "nearest"},
            {"scale_factor": 2.5, "mode": "nearest"},
            {"scale_factor": (2, 3), "mode": "nearest"},
            {"size": (7, 9), "mode": "bilinear"},
            {"size": (7, 9), "mode": "bilinear", "align_corners": True},
            {"scale_factor": 0.5, "mode": "bilinear"},
            {"scale_factor": 2, "mode": "bilinear", "align_corners": True},
        ],
        ids=str,
    )
    def test_interpolate(self, how: dict[str, Any]) -> None:
        class Resize(torch.nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return F.interpolate(x, **how)

        x = torch.from_numpy(normal(1, 2, 4, 6))
        close(converted(Resize(), x), Resize()(x))

    @pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
    @pytest.mark.parametrize("mode", ["bilinear", "nearest"])
    @pytest.mark.parametrize("align", [True, False])
    def test_grid_sample(self, padding: str, mode: str, align: bool) -> None:
        class Sample(torch.nn.Module):
            def forward(self, x: Tensor, grid: Tensor) -> Tensor:
                how = {"mode": mode, "padding_mode": padding, "align_corners": align}
                return F.grid_sample(x, grid, **how)

        given = (torch.from_numpy(normal(2, 3, 5, 6)), torch.from_numpy(normal(2, 7, 4, 2)))
        close(converted(Sample(), *given), Sample()(*given))


def converted(module: torch.nn.Module, *given: Tensor) -> Tensor:
    """Convert a module as a user would, and run its program on the tensors it was traced with."""
    from phoneward.runtime.engines.mil.compiler import compile_function
    from phoneward.runtime.engines.mil.interpreter import AS_DECLARED, walk

    program = ct.convert(
        torch.export.export(module.eval(), given).run_decompositions({}),
        convert_to="milinternal",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
    )
    plan = compile_function(program.functions["main"])
    values = {**plan.constants, **dict(zip(plan.inputs, given, strict=True))}
    for _ in walk(plan, values, AS_DECLARED):
        pass
    result = values[plan.outputs[0]]
    assert isinstance(result, Tensor)
    return result
