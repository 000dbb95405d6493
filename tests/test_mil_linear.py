"""Matrix products and attention give what PyTorch and coremltools give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import FloatSums, Numerics
from phoneward.runtime.engines.mil.ops.linear import matmul
from tests.mil_ops import inferred, one, run

relaxed = settings(max_examples=30, deadline=None, derandomize=True)
Arrays = NDArray[Any]


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def halves(*shape: int) -> Arrays:
    return normal(*shape).astype(np.float16)


def one_by_one(x: Arrays, y: Arrays) -> Arrays:
    """A product whose every term and sum is a half-precision number."""
    total: Arrays = np.zeros((*x.shape[:-1], y.shape[-1]), np.float16)
    for at in range(x.shape[-1]):
        total = total + x[..., at, None] * y[..., at, None, :]
    return total.astype(np.float32)


@relaxed
@given(lead=st.lists(st.integers(1, 4), max_size=3), n=st.integers(1, 9), m=st.integers(1, 9))
def test_linear(lead: list[int], n: int, m: int) -> None:
    x, weight, bias = normal(*lead, n), normal(m, n), normal(m)
    result = one(lambda x: mb.linear(x=x, weight=weight, bias=bias), x=x)
    right = F.linear(*map(torch.from_numpy, (x, weight, bias)))
    torch.testing.assert_close(result, right, rtol=1e-5, atol=1e-5)
    plain = one(lambda x: mb.linear(x=x, weight=weight), x=x)
    torch.testing.assert_close(plain, right - torch.from_numpy(bias), rtol=1e-5, atol=1e-5)


def test_linear_as_coremltools_folds_it() -> None:
    x, weight, bias = normal(2, 3, 5), normal(4, 5), normal(4)
    (folded,) = inferred(lambda: mb.linear(x=x, weight=weight, bias=bias))
    result = one(lambda x: mb.linear(x=x, weight=weight, bias=bias), x=x)
    np.testing.assert_allclose(result, folded, rtol=1e-5, atol=1e-5)


def test_linear_of_whole_numbers() -> None:
    x = np.array([[2**20, -7, 3]], np.int32)
    weight, bias = np.array([[3, 1, 1], [0, -2, 5]], np.int32), np.array([1, -1], np.int32)
    result = one(lambda x: mb.linear(x=x, weight=weight, bias=bias), x=x)
    assert result.dtype == torch.int32
    assert result.tolist() == [[3 * 2**20 - 3, 28]]


def test_linear_of_half_sums() -> None:
    x, weight, bias = halves(3, 40, 70) * 8, halves(9, 70), halves(9)
    body = lambda x: mb.linear(x=x, weight=weight, bias=bias)  # noqa: E731
    (result,) = run(body, {"x": x}, numerics=Numerics.HALF_SUMS)
    product = one_by_one(x, weight.T).astype(np.float16)
    np.testing.assert_array_equal(result, (product + bias).astype(np.float32))
    assert (run(body, {"x": x})[0] - result).abs().max() > 0


@st.composite
def factors(draw: st.DrawFn) -> tuple[Arrays, Arrays, bool, bool]:
    """Two arrays whose batches broadcast, and which of them to transpose."""
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    n, k, m = (draw(st.integers(1, 5)) for _ in range(3))
    leads = []
    for _ in range(2):
        some = batch[draw(st.integers(0, len(batch))) :]
        leads.append([size if draw(st.booleans()) else 1 for size in some])
    flip_x, flip_y = draw(st.booleans()), draw(st.booleans())
    x = normal(*leads[0], *((k, n) if flip_x else (n, k)))
    y = normal(*leads[1], *((m, k) if flip_y else (k, m)))
    return x, y, flip_x, flip_y


@relaxed
@given(case=factors())
def test_matmul(case: tuple[Arrays, Arrays, bool, bool]) -> None:
    x, y, flip_x, flip_y = case
    options = {"transpose_x": flip_x, "transpose_y": flip_y}
    result = one(lambda x, y: mb.matmul(x=x, y=y, **options), x=x, y=y)
    a, b = (np.swapaxes(x, -1, -2) if flip_x else x), (np.swapaxes(y, -1, -2) if flip_y else y)
    np.testing.assert_allclose(result, np.matmul(a, b), rtol=1e-5, atol=1e-5)
    (folded,) = inferred(lambda: mb.matmul(x=x, y=y, **options))
    np.testing.assert_allclose(result, folded, rtol=1e-5, atol=1e-5)
    tiny = {"x": x.astype(np.float16), "y": y.astype(np.float16)}
    body = lambda x, y: mb.matmul(x=x, y=y, **options)  # noqa: E731
    (half,) = run(body, tiny, numerics=Numerics.HALF_SUMS)
    a, b = a.astype(np.float16), b.astype(np.float16)
    np.testing.assert_array_equal(half, one_by_one(a, b))


def test_matmul_of_vectors() -> None:
    vector, matrix = normal(4), normal(4, 3)
    result = one(lambda x, y: mb.matmul(x=x, y=y), x=vector, y=matrix)
    np.testing.assert_allclose(result, vector @ matrix, rtol=1e-5)
    # coremltools infers wrong shapes of the others, which no program can have then
    x, y = torch.from_numpy(normal(2, 3, 4)), torch.from_numpy(vector)
    sums = FloatSums()
    torch.testing.assert_close(matmul(x, y, transpose_y=True, sums=sums), x @ y)
    torch.testing.assert_close(matmul(y, x.mT, sums=sums), y @ x.mT)
    torch.testing.assert_close(matmul(y, y, sums=sums), y @ y)


def test_matmul_of_whole_numbers_and_of_halves_by_floats() -> None:
    x, y = np.array([[2**24 + 1, 1]], np.int32), np.array([[1], [2]], np.int32)
    assert one(lambda x, y: mb.matmul(x=x, y=y), x=x, y=y).tolist() == [[2**24 + 3]]
    weight = normal(3, 2)
    result = one(lambda x: mb.matmul(x=x, y=weight), x=halves(4, 3))
    right = halves(4, 3).astype(np.float32) @ weight
    np.testing.assert_array_equal(result, right.astype(np.float16).astype(np.float32))


@relaxed
@given(sizes=st.lists(st.integers(1, 4), min_size=5, max_size=5), ones=st.integers(0, 3))
def test_einsum(sizes: list[int], ones: int) -> None:
    n, c, h, w, u = sizes
    x = normal(n if ones % 2 else 1, c, h, w)
    y = normal(n, w, h if ones < 2 else 1, u)
    for a, b, equation in ((x, y, "nchw,nwhu->nchu"), (x[0], y[0], "chw,whr->chr")):
        result = one(lambda x, y, e=equation: mb.einsum(values=(x, y), equation=e), x=a, y=b)
        wide = [np.broadcast_to(part, (*part.shape[:-2], h, part.shape[-1])) for part in (a, b)]
        if a.ndim == 4:
            wide = [np.broadcast_to(part, (n, *part.shape[1:])) for part in wide]
        right = np.einsum(equation, *wide)
        np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-5)


def test_einsum_letters_do_not_matter_but_equations_do() -> None:
    x, y = normal(1, 2, 3, 4), normal(1, 4, 3, 5)
    result = one(lambda x, y: mb.einsum(values=(x, y), equation="abcd,adce->abce"), x=x, y=y)
    np.testing.assert_allclose(result, np.einsum("abcd,adce->abce", x, y), rtol=1e-5, atol=1e-6)
    body = lambda x, y: mb.einsum(values=(x, y), equation="abcd,adce->abce")  # noqa: E731
    tiny = {"x": x.astype(np.float16), "y": y.astype(np.float16)}
    (half,) = run(body, tiny, numerics=Numerics.HALF_SUMS)
    right = one_by_one(tiny["x"].swapaxes(1, 2), tiny["y"].swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_array_equal(half, right)


MASKS = ["none", "bool", "float"]


@relaxed
@given(
    sizes=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    heads=st.lists(st.integers(1, 3), max_size=1),
    kind=st.sampled_from(MASKS),
    half=st.booleans(),
)
def test_attention(sizes: list[int], heads: list[int], kind: str, half: bool) -> None:
    length, source, wide, out = sizes
    lead = (2, *heads)
    arrays = {"query": normal(*lead, length, wide), "key": normal(*lead, source, wide)}
    arrays["value"] = normal(*lead, source, out)
    if kind != "none":
        arrays["attn_mask"] = normal(length, source)
    if kind == "bool":
        # a row that attends to nothing has no answer
        arrays["attn_mask"] = (arrays["attn_mask"] > 0) | np.eye(length, source, dtype=bool)
        arrays["attn_mask"][:, 0] = True
    if half:
        arrays = {n: a if a.dtype == bool else a.astype(np.float16) for n, a in arrays.items()}
    mode = Numerics.HALF_SUMS if half else Numerics.DECLARED
    names = ("query", "key", "value", "attn_mask")
    body = lambda *given: mb.scaled_dot_product_attention(  # noqa: E731
        **dict(zip(names, given, strict=False))
    )
    (result,) = run(body, arrays, numerics=mode)
    parts = [
        torch.from_numpy(a) if a.dtype == bool else torch.from_numpy(a).float()
        for a in arrays.values()
    ]
    right = F.scaled_dot_product_attention(*parts)
    near = {"rtol": 0.02, "atol": 0.02} if half else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(result, right, **near)


def test_attention_to_nothing_is_not_a_number() -> None:
    x, mask = normal(1, 2, 3), np.array([[True, True], [False, False]])
    options = {"key": x, "value": x, "attn_mask": mask}
    result = one(lambda query: mb.scaled_dot_product_attention(query=query, **options), query=x)
    assert result[0, 1].isnan().all()
    assert not result[0, 0].isnan().any()


def test_attention_scores_overflow_in_half_sums() -> None:
    x = np.full((1, 1, 64), 100, np.float16)
    body = lambda x: mb.scaled_dot_product_attention(query=x, key=x, value=x)  # noqa: E731
    assert run(body, {"x": x})[0].flatten().tolist() == [100] * 64
    assert math.isnan(run(body, {"x": x}, numerics=Numerics.HALF_SUMS)[0][0, 0, 0])


def test_products_of_whole_numbers_by_floats_are_refused() -> None:
    weight = normal(2, 2)
    with pytest.raises(EngineError, match="whole numbers"):
        one(lambda x: mb.linear(x=x, weight=weight), x=np.ones((1, 2), np.int32))
