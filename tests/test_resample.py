"""Resizing without torch gives torch's numbers, and the official loader's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from phoneward.errors import InvalidSpec, TensorMismatch
from phoneward.runtime.resample import frame_size, frame_tensor, mask_tensor, resize, taps
from phoneward.spec import TensorSpec

# torch's antialiased resize of a result one pixel wide is wrong in 2.14; nobody asks for one
sides = st.integers(2, 150)


def by_torch(
    values: NDArray[np.float32], size: tuple[int, int], antialias: bool
) -> NDArray[np.float32]:
    tensor = torch.from_numpy(values)[None, None]
    resized = F.interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=antialias)
    answer: NDArray[np.float32] = resized[0, 0].numpy()
    return answer


@pytest.mark.parametrize("antialias", [False, True])
@given(sides, sides, sides, sides, st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_it_is_torchs(antialias: bool, h: int, w: int, to_h: int, to_w: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((h, w)).astype(np.float32)
    found = resize(values, (to_h, to_w), antialias=antialias)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    # torch places its samples in single precision
    np.testing.assert_allclose(found, by_torch(values, (to_h, to_w), antialias), atol=2e-4)


@pytest.mark.parametrize("size", [(1080, 1920), (480, 854), (1920, 1080), (97, 1)])
def test_logits_to_a_videos_size_cut_the_same_mask(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).standard_normal((128, 128)).astype(np.float32) * 8
    found, expected = resize(logits, size), by_torch(logits, size, antialias=False)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert ((found > 0) == (expected > 0)).mean() > 0.9999


def test_leading_axes_are_kept() -> None:
    values = np.random.default_rng(2).standard_normal((3, 2, 20, 30)).astype(np.float32)
    found = resize(values, (41, 17), antialias=True)
    for i in range(3):
        for j in range(2):
            np.testing.assert_array_equal(
                found[i, j], resize(values[i, j], (41, 17), antialias=True)
            )


@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_weights_are_shares(source: int, target: int, antialias: bool) -> None:
    indices, weights = taps(source, target, antialias=antialias)
    assert indices.shape == weights.shape
    assert indices.min() >= 0
    assert indices.max() < source
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


@given(st.integers(1, 200), st.integers(1, 200))
def test_shrinking_with_antialias_uses_every_pixel(source: int, target: int) -> None:
    indices, weights = taps(source, target, antialias=True)
    used = set(indices[weights > 0].tolist())
    assert used == set(range(source)) or target > source


@pytest.mark.parametrize("size", [(720, 1280), (64, 48), (1000, 300)])
def test_a_mask_prompt_is_the_official_ones(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    mask = (x - size[1] / 3) ** 2 + (y - size[0] / 2) ** 2 < (min(size) / 4) ** 2
    expected = by_torch(mask.astype(np.float32), (128, 128), antialias=True) >= 0.5
    found = mask_tensor(mask, 128)
    assert found.shape == (1, 1, 128, 128)
    assert set(np.unique(found)) == {0, 1}
    assert (found[0, 0].astype(bool) == expected).mean() > 0.9995


def test_a_mask_of_the_models_size_is_kept() -> None:
    mask = np.random.default_rng(3).random((64, 64)) > 0.5
    np.testing.assert_array_equal(mask_tensor(mask, 64)[0, 0], mask)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_frame_is_stretched_as_pil_does(layout: str) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (90, 160, 3), np.uint8)
    shape = (1, 3, 64, 64) if layout == "NCHW" else (1, 64, 64, 3)
    found = frame_tensor(
        pixels, TensorSpec.model_validate({"name": "image", "shape": shape, "layout": layout})
    )
    expected = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC))
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found[0].transpose(1, 2, 0) if layout == "NCHW" else found[0], expected
    )


def test_a_frame_of_the_models_size_is_not_touched() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3), np.uint8)
    spec = TensorSpec(name="image", shape=(1, 32, 32, 3), layout="NHWC")
    np.testing.assert_array_equal(frame_tensor(pixels, spec)[0], pixels)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((8, 8), np.uint8), ((8, 8, 4), np.uint8), ((8, 8, 3), np.float32)]
)
def test_what_is_no_frame_is_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(TensorMismatch, match="a frame is uint8 of shape"):
        frame_size(np.zeros(shape, dtype))


def test_a_tensor_that_is_no_image_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="takes no image"):
        frame_tensor(np.zeros((8, 8, 3), np.uint8), TensorSpec(name="x", shape=(1, 3, 8, 8)))
