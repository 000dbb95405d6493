"""Masks are exactly what is seen: scenes of plain colours, without noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from phoneward.export.train.clips.camera import Ground
from phoneward.export.train.clips.generate import render
from phoneward.export.train.clips.light import plain
from phoneward.export.train.clips.motion import Path, excursion, folded, smooth, still
from phoneward.export.train.clips.render import _cast as cast
from phoneward.export.train.clips.scene import Layer, Scene, Shadow
from phoneward.export.train.clips.sprites import Sprite, Thing, make_sprite
from phoneward.export.train.clips.warp import Waves, grid_of, warp

SIZE = (64, 48)
GREY = (90, 90, 90)


def square(colour: tuple[int, int, int], side: int = 20) -> Sprite:
    """An opaque square in a transparent border of two pixels."""
    image = Image.new("RGBa", (side + 4, side + 4))
    image.paste((*colour, 255), (2, 2, side + 2, side + 2))
    return Sprite(image)


def scene_of(*layers: Layer, frames: int = 1) -> Scene:
    width, height = SIZE
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    ground = Ground(Image.new("RGB", SIZE, GREY), np.tile(corners, (frames, 1, 1)))
    owners = max(layer.owner for layer in layers)
    return Scene(SIZE, ground, layers, plain(frames), owners)


def pixels_of(frame: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (np.abs(frame.astype(int) - colour) <= 1).all(-1)


def test_a_square_covers_the_pixels_it_should() -> None:
    clip = render(scene_of(Layer(square((200, 0, 0)), 1, still((30, 24), 1))), 1)
    expected = np.zeros(SIZE[::-1], bool)
    expected[14:34, 20:40] = True
    np.testing.assert_array_equal(clip.masks[0] == 1, expected)
    np.testing.assert_array_equal(pixels_of(clip.frames[0], (200, 0, 0)), expected)
    np.testing.assert_array_equal(pixels_of(clip.frames[0], GREY), ~expected)


def test_half_a_pixel_is_the_border() -> None:
    """A share of 0.5 is not more than half, so that the mask does not depend on rounding."""
    for shift, columns in ((0.25, slice(20, 40)), (0.75, slice(21, 41))):
        clip = render(scene_of(Layer(square((200, 0, 0)), 1, still((30 + shift, 24), 1))), 1)
        expected = np.zeros(SIZE[::-1], bool)
        expected[14:34, columns] = True
        np.testing.assert_array_equal(clip.masks[0] == 1, expected)


def test_masks_follow_a_turning_bending_thing() -> None:
    rng = np.random.default_rng(0)
    path = Path(
        np.array([32.0, 24]) + rng.normal(0, 4, (6, 2)),
        np.linspace(0, 2, 6),
        rng.uniform(0.7, 1.2, (6, 2)),
        np.linspace(0, 0.2, 6),
    )
    waves = Waves(np.full((2, 2), 1.5), rng.uniform(-0.2, 0.2, (2, 3)), np.zeros(2))
    clip = render(scene_of(Layer(square((0, 200, 0)), 1, path, waves), frames=6), 6)
    for frame, mask in zip(clip.frames, clip.masks, strict=True):
        greener = frame[..., 1].astype(float) - GREY[1] > (200 - GREY[1]) / 2
        assert (greener != (mask == 1)).sum() <= 2  # a pixel's share may round either way
        assert mask.any()


def test_what_lies_above_takes_its_pixels_and_nobody_s_things_count_too() -> None:
    layers = (
        Layer(square((200, 0, 0)), 1, still((26, 24), 1)),
        Layer(square((0, 200, 0)), 2, still((36, 24), 1)),
        Layer(square((0, 0, 200), 8), 0, still((36, 24), 1)),
    )
    clip = render(scene_of(*layers), 1)
    for number, colour in ((1, (200, 0, 0)), (2, (0, 200, 0))):
        np.testing.assert_array_equal(clip.masks[0] == number, pixels_of(clip.frames[0], colour))
    assert not clip.masks[0][20:28, 32:40].any()
    assert (clip.masks[0] == 1).sum() == 10 * 20


def test_parts_of_one_object_are_one() -> None:
    layers = (
        Layer(square((200, 0, 0)), 1, still((26, 24), 1)),
        Layer(square((200, 0, 0)), 1, still((36.5, 24), 1)),
    )
    mask = render(scene_of(*layers), 1).masks[0]
    assert (mask[14:34, 16:46] == 1).all()


def test_a_shadow_darkens_and_is_nobody_s() -> None:
    layer = Layer(square((200, 0, 0)), 1, still((30, 20), 1), shadow=Shadow((6, 8), 0.5, 2))
    clip = render(scene_of(layer), 1)
    frame, mask = clip.frames[0], clip.masks[0]
    assert (mask == 1).sum() == 400
    dark = frame[..., 0] < GREY[0] - 20
    assert dark[32:36, 30:42].all()
    assert not mask[dark].any()


def test_things_partly_or_wholly_outside() -> None:
    path = Path(
        np.array([[-5.0, 24], [-50, 24], [64, 48]]), np.zeros(3), np.ones((3, 2)), np.zeros(3)
    )
    clip = render(scene_of(Layer(square((200, 0, 0)), 1, path, shadow=None), frames=3), 3)
    assert [int((mask == 1).sum()) for mask in clip.masks] == [5 * 20, 0, 100]


def test_an_open_shutter_blurs_along_the_motion_and_keeps_the_middle() -> None:
    path = Path(np.array([[20.0, 24], [28, 24]]), np.zeros(2), np.ones((2, 2)), np.zeros(2))
    layer = Layer(square((200, 0, 0)), 1, path, shutter=1.0)
    clip = render(scene_of(layer, frames=2), 2)
    row = clip.frames[1][24, :, 0].astype(int)
    ramp = row[12:24]
    assert len(set(ramp.tolist())) > 4
    assert (np.diff(ramp) >= 0).all()
    assert (clip.masks[1] == 1).sum(1).max() in (19, 20, 21)
    assert (clip.masks[1] == 1).any(1).sum() == 20


def test_warping_by_the_identity_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 50, 3), np.uint8)
    for cells in (1, 3):
        grid = grid_of((0, 0, 50, 40), cells)
        np.testing.assert_array_equal(warp(Image.fromarray(picture), grid, grid), picture)


def test_a_thing_keeps_its_area_when_scaled() -> None:
    alpha = np.full((40, 60), 255, np.uint8)
    thing = Thing(np.full((40, 60, 3), 128, np.uint8), alpha)
    sprite = make_sprite(thing, 0.5, np.random.default_rng(0))
    shares = np.asarray(sprite.image)[..., 3].sum() / 255
    assert shares == pytest.approx(600, rel=0.03)


def test_walks_keep_their_speed_and_boxes_hold_them() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        walk = smooth(rng, 40, 3.0)
        steps = np.abs(np.diff(walk))
        assert walk[0] == 0
        assert steps.max() <= 6.0 + 1e-9
        assert 1.5 < steps.mean() <= 3.0 + 1e-9
    low, high = np.array([2.0, 2]), np.array([60.0, 40])
    held = folded(rng.uniform(-300, 300, (200, 2)), low, high)
    assert (held >= low).all()
    assert (held <= high).all()


def test_an_excursion_goes_out_and_mostly_comes_back() -> None:
    away = np.array([100.0, 0])
    ends = []
    for seed in range(40):
        way = excursion(np.random.default_rng(seed), 24, away, 15.0)
        assert way is not None
        assert way[0] == pytest.approx(0)
        assert way[:, 0].max() == pytest.approx(100, abs=60)
        assert np.abs(np.diff(way[:, 0])).max() < 25
        ends.append(way[-1, 0] < 80)
    assert sum(ends) > 20
    assert excursion(np.random.default_rng(0), 4, away, 15.0) is None


@pytest.mark.parametrize("offset", [(-90, 0), (0, -90), (90, 0), (0, 90), (-90, -90)])
def test_a_shadow_may_fall_beside_the_frame(offset: tuple[int, int]) -> None:
    frame = np.full((3, 48, 64), 200.0, np.float32)
    alpha = np.full((10, 12), 255.0, np.float32)
    cast(Shadow(offset, 0.5, 2), frame, (20, 20), alpha)
    assert (frame == 200).all()


def test_a_shadow_at_the_edge_darkens_what_is_inside() -> None:
    frame = np.full((3, 48, 64), 200.0, np.float32)
    cast(Shadow((-24, 0), 0.5, 1), frame, (20, 20), np.full((10, 12), 255.0, np.float32))
    rows, columns = np.nonzero(frame[0] < 150)
    assert set(columns) == set(range(8))  # from -4 to 8, the frame begins at 0
    assert rows.min() >= 19
    assert rows.max() <= 30
