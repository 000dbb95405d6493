"""Image files become exactly the tensors that timm's evaluation transform makes of them."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from phoneward.errors import ImageError, InvalidSpec
from phoneward.runtime.images import load_image, prepare
from phoneward.spec import ImageSpec, TensorSpec

ROOT = Path(__file__).parent.parent
PHOTOS = sorted((ROOT / "export" / "photos").glob("*.jpg"))
CASES = [
    (224, 0.875, "bicubic"),
    (224, 0.875, "bilinear"),
    (224, 0.95, "bicubic"),
    (256, 0.9, "bicubic"),
    (192, 1.0, "bilinear"),
]


def tensor(size: int, layout: str = "NCHW") -> TensorSpec:
    shape = (1, 3, size, size) if layout == "NCHW" else (1, size, size, 3)
    return TensorSpec.model_validate({"name": "image", "shape": shape, "layout": layout})


def spec(size: int, crop: float = 1.0, interpolation: str = "bicubic") -> ImageSpec:
    return ImageSpec.model_validate(
        {"height": size, "width": size, "crop_fraction": crop, "interpolation": interpolation}
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def by_timm(image: Image.Image, size: int, crop: float, interpolation: str) -> np.ndarray:
    data = pytest.importorskip("timm.data")
    transform = data.create_transform(
        (3, size, size), crop_pct=crop, interpolation=interpolation, normalize=False
    )
    return np.asarray(transform(image))


def test_there_are_photographs() -> None:
    assert len(PHOTOS) >= 3


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.stem)
@pytest.mark.parametrize(("size", "crop", "interpolation"), CASES)
def test_photographs_are_as_timm_makes_them(
    path: Path, size: int, crop: float, interpolation: str
) -> None:
    image = load_image(path)
    got = prepare(image, spec(size, crop, interpolation), tensor(size))
    assert (got.dtype, got.flags.c_contiguous) == (np.float32, True)
    np.testing.assert_array_equal(got[0], by_timm(image, size, crop, interpolation))


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.integers(1, 96),
    crop=st.floats(0.2, 1.0),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_any_size_is_as_timm_makes_it(
    width: int, height: int, size: int, crop: float, interpolation: str
) -> None:
    image = noise(width, height)
    got = prepare(image, spec(size, crop, interpolation), tensor(size))
    np.testing.assert_array_equal(got[0], by_timm(image, size, crop, interpolation))


def test_the_layouts_hold_the_same_pixels() -> None:
    image = noise(70, 50)
    channels_first = prepare(image, spec(32), tensor(32))
    channels_last = prepare(image, spec(32), tensor(32, "NHWC"))
    assert (channels_first.shape, channels_last.shape) == ((1, 3, 32, 32), (1, 32, 32, 3))
    assert channels_last.flags.c_contiguous
    np.testing.assert_array_equal(channels_first.transpose(0, 2, 3, 1), channels_last)
    assert channels_first.max() > 200


def test_what_holds_no_image_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="takes no image"):
        prepare(noise(9, 9), spec(8), TensorSpec(name="x", shape=(1, 8), layout="NC"))
    with pytest.raises(InvalidSpec, match="8x9 are not square"):
        prepare(noise(9, 9), ImageSpec(height=8, width=9), tensor(8))


COLOURS = Image.new("RGB", (4, 2), (200, 100, 50))


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("rgb.png", COLOURS, (200, 100, 50)),
        ("rgba.png", Image.new("RGBA", (4, 2), (200, 100, 50, 0)), (200, 100, 50)),
        ("grey.png", Image.new("L", (4, 2), 77), (77, 77, 77)),
        ("grey-alpha.png", Image.new("LA", (4, 2), (77, 9)), (77, 77, 77)),
        ("bit.png", Image.new("1", (4, 2), 1), (255, 255, 255)),
        ("palette.png", COLOURS.convert("P", palette=Image.Palette.ADAPTIVE), (200, 100, 50)),
        ("palette.gif", COLOURS, (200, 100, 50)),
        ("cmyk.tiff", Image.new("CMYK", (4, 2), (55, 155, 205, 0)), (200, 100, 50)),
        ("cmyk.jpg", Image.new("CMYK", (4, 2), (0, 0, 0, 155)), (100, 100, 100)),
        ("ycbcr.jpg", Image.new("YCbCr", (4, 2), (90, 128, 128)), (90, 90, 90)),
        ("bright-16.png", Image.fromarray(np.full((2, 4), 65535, np.uint16)), (255, 255, 255)),
        ("grey-16.png", Image.fromarray(np.full((2, 4), 77 * 257, np.uint16)), (77, 77, 77)),
        ("dark-16.png", Image.fromarray(np.full((2, 4), 200, np.uint16)), (1, 1, 1)),
        ("grey-16.tiff", Image.fromarray(np.full((2, 4), 77 * 257, np.uint16)), (77, 77, 77)),
        ("rgb.webp", Image.new("RGB", (4, 2), (0, 0, 0)), (0, 0, 0)),
        ("rgb.bmp", COLOURS, (200, 100, 50)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_mode_becomes_rgb(
    name: str, image: Image.Image, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    image.save(tmp_path / name)
    loaded = load_image(tmp_path / name)
    assert (loaded.mode, loaded.size) == ("RGB", (4, 2))
    assert set(loaded.get_flattened_data()) == {expected}


def test_sixteen_bit_big_endian_grey(tmp_path: Path) -> None:
    pixels = np.array([[0, 65535], [257, 128 * 257]], ">u2")
    (tmp_path / "x.pgm").write_bytes(b"P5 2 2 65535\n" + pixels.tobytes())
    np.testing.assert_array_equal(
        np.asarray(load_image(tmp_path / "x.pgm"))[..., 0], [[0, 255], [1, 128]]
    )


@pytest.mark.parametrize("transparency", [b"\x00\xff", 0], ids=["bytes", "index"])
def test_a_palette_with_transparency_keeps_its_colours(
    transparency: bytes | int, tmp_path: Path
) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "x.png", transparency=transparency)
    assert list(load_image(tmp_path / "x.png").get_flattened_data()) == [(10, 20, 30), (40, 50, 60)]


@pytest.mark.parametrize("value", [3.5, 70000], ids=["float", "int"])
def test_pixels_without_a_known_range_are_refused(value: float, tmp_path: Path) -> None:
    dtype = np.float32 if isinstance(value, float) else np.int32
    Image.fromarray(np.full((4, 4), value, dtype)).save(tmp_path / "x.tiff")
    with pytest.raises(ImageError, match="32 bits"):
        load_image(tmp_path / "x.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright[::-1, ::-1].T,
        8: upright.T[:, ::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    stored.save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "x.png"))[..., 0], upright)


def _encoded(form: str) -> bytes:
    stream = io.BytesIO()
    noise(40, 30).save(stream, form)
    return stream.getvalue()


FORMS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_image_is_an_error(form: str, tmp_path: Path) -> None:
    content = _encoded(form)
    for kept in (len(content) // 3, len(content) // 2):
        (tmp_path / "cut").write_bytes(content[:kept])
        with pytest.raises(ImageError, match="cut: not a readable image"):
            load_image(tmp_path / "cut")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(FORMS),
    changes=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damage_is_an_image_or_an_image_error(
    tmp_path: Path, form: str, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(_encoded(form))
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "damaged").write_bytes(content)
    with contextlib.suppress(ImageError):  # anything else fails the test
        assert load_image(tmp_path / "damaged").mode == "RGB"


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no pixels here")
    (tmp_path / "empty.png").touch()
    for name in ("text.jpg", "empty.png"):
        with pytest.raises(ImageError, match=r"no image format that pillow knows"):
            load_image(tmp_path / name)
    with pytest.raises(ImageError, match="absent.*No such file"):
        load_image(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="directory"):
        load_image(tmp_path)


def _png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size; no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 30_000, 60_000])
def test_a_decompression_bomb_is_an_error(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(_png_of(side, side))
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(tmp_path / "bomb.png")


def test_a_line_would_become_a_bomb(tmp_path: Path) -> None:
    Image.new("L", (1, 5000)).save(tmp_path / "line.png")
    with pytest.raises(ImageError, match="1x5000 is a line"):
        load_image(tmp_path / "line.png")
    Image.new("L", (1, 100)).save(tmp_path / "strip.png")
    assert prepare(load_image(tmp_path / "strip.png"), spec(64), tensor(64)).shape == (1, 3, 64, 64)


GREY = ImageSpec(height=28, width=28, channel_order="GRAY")
GREY_TENSOR = TensorSpec(name="image", shape=(1, 1, 28, 28), layout="NCHW")


def grey_levels(dtype: type[np.integer[Any]] = np.uint8) -> np.ndarray:
    """28 x 28 levels; of 8 bits each one three times and more."""
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).permutation(
        np.linspace(0, top, 784).astype(dtype).reshape(28, 28)
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grey_image_of_the_right_size_comes_out_bit_for_bit(layout: str, tmp_path: Path) -> None:
    levels = grey_levels()
    assert set(levels.ravel()) == set(range(256))
    Image.fromarray(levels).save(tmp_path / "x.png")
    shape = (1, 1, 28, 28) if layout == "NCHW" else (1, 28, 28, 1)
    spec = TensorSpec.model_validate({"name": "image", "shape": shape, "layout": layout})
    got = prepare(load_image(tmp_path / "x.png"), GREY, spec)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == (shape, np.float32, True)
    np.testing.assert_array_equal(got.reshape(28, 28), levels)


def test_sixteen_bits_of_grey_are_scaled_to_eight(tmp_path: Path) -> None:
    levels = grey_levels(np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    got = prepare(load_image(tmp_path / "x.png"), GREY, GREY_TENSOR)
    np.testing.assert_array_equal(got[0, 0], (levels / 257).round())


@pytest.mark.parametrize(
    ("color", "luma"),
    [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((200, 100, 50), 124)],
)
def test_colors_become_their_luma(color: tuple[int, int, int], luma: int) -> None:
    got = prepare(Image.new("RGB", (40, 30), color), GREY, GREY_TENSOR)
    assert set(got.ravel()) == {luma}


def test_grey_is_scaled_and_cropped_as_rgb_is() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (50, 70), np.uint8)
    grey, rgb = Image.fromarray(levels), Image.fromarray(np.stack([levels] * 3, axis=-1))
    loose = GREY.model_copy(update={"crop_fraction": 0.875})
    got = prepare(grey, loose, GREY_TENSOR)
    as_rgb = prepare(rgb, spec(28, 0.875), tensor(28))
    np.testing.assert_array_equal(got[0, 0], as_rgb[0, 1])
    np.testing.assert_array_equal(prepare(rgb, loose, GREY_TENSOR), got)


def test_an_image_spec_knows_the_tensors_that_hold_its_images() -> None:
    assert (GREY.channels, spec(28).channels) == (1, 3)
    assert GREY.fits(GREY_TENSOR)
    assert GREY.fits(TensorSpec(name="many", shape=(4, 28, 28, 1), layout="NHWC"))
    assert not GREY.fits(tensor(28))
    assert not spec(28).fits(GREY_TENSOR)
    assert not GREY.fits(TensorSpec(name="features", shape=(1, 1, 15, 15), layout="NCHW"))
    assert not GREY.fits(TensorSpec(name="row", shape=(1, 784), layout="NC"))
