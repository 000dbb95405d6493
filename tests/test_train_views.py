"""Views of clips: what is shown is of the clip, moved as its masks are, and can be followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from phoneward.export.train.clips import LEAST_SHARE, Clip, ClipRecipe, Pool, open_pool
from phoneward.export.train.clips.sources import PHOTO
from phoneward.export.train.tam.batch import Sampling, draw
from phoneward.export.train.tam.colours import recoloured
from phoneward.export.train.tam.views import Stock, followed, view

SIDE, FRAMES = 64, 9


@pytest.fixture(scope="module")
def pool() -> Pool:
    return open_pool("held-out")


def counting() -> Clip:
    """A square of the frame's own number moves to the right over black, for ever in sight."""
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((FRAMES, SIDE, SIDE), np.uint8)
    for index in range(FRAMES):
        place = slice(20, 44), slice(10 + 2 * index, 34 + 2 * index)
        frames[index][place] = 100 + 10 * index
        masks[index][place] = 1
    return Clip(frames, masks, 1)


def box(inside: NDArray[np.bool_]) -> tuple[int, ...]:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_pixels_and_masks_are_of_the_same_part() -> None:
    orders, areas = set(), set()
    for seed in range(60):
        pixels, masks = view(counting(), 3, np.random.default_rng(seed))
        assert pixels.shape == (3, SIDE, SIDE, 3)
        assert masks.shape == (3, SIDE, SIDE)
        numbers = []
        for frame, mask in zip(pixels, masks, strict=True):
            number = int(np.median(frame[mask == 1]))
            # half of an edge's pixels are more object than ground where a part was made larger
            for seen, masked in zip(box(frame[..., 0] > number / 2), box(mask == 1), strict=True):
                assert abs(seen - masked) <= 1
            numbers.append(number)
        steps = np.diff(numbers)
        assert steps[0] == steps[1] != 0
        orders.add(int(steps[0]))
        areas.add(int((masks[0] == 1).sum()))
    # forwards and backwards, as fast as there are frames for, and at many scales
    assert orders == {step * way for step in (10, 20, 30, 40) for way in (1, -1)}
    assert len(areas) > 20
    assert max(areas) > 1.5 * 24 * 24


def test_the_first_frame_has_something_to_follow() -> None:
    """The object leaves: the clip cannot be played backwards, nor begun after that."""
    clip = counting()
    gone = clip.masks.copy()
    gone[4:] = 0
    for seed in range(60):
        _, masks = view(replace(clip, masks=gone), 3, np.random.default_rng(seed))
        assert followed(masks[0]) == [1]


def test_what_is_too_small_is_not_followed() -> None:
    mask = np.zeros((100, 100), np.uint8)
    least = int(LEAST_SHARE * mask.size)
    mask[0, :least] = 1
    mask[1, : least + 1] = 2
    assert followed(mask) == [2]


def test_a_clip_serves_several_steps_and_looks_different_each_time(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    from phoneward.export.train.tam import views

    def count(*arguments: object) -> Clip:
        made.append(arguments)
        return real(*arguments)  # type: ignore[arg-type]

    real = views.generate
    monkeypatch.setattr(views, "generate", count)
    how = Sampling("slow", SIDE, 2, clips=4, objects=1, reuse=4)
    stock = Stock(pool)
    batches = [draw(stock, how, (0, 0, step)) for step in range(8)]
    # four at first, then one a step
    assert len(made) == 4 + 7
    assert not np.array_equal(batches[0].frames[0], batches[1].frames[0])
    # another sampling of the same training has clips of its own
    draw(stock, how, (1, 7))
    made.clear()
    draw(stock, how, (0, 0, 7))
    assert not made
    # a training that goes on in the middle sees the same
    again = draw(Stock(pool), how, (0, 0, 5))
    np.testing.assert_array_equal(again.frames, batches[5].frames)


@pytest.mark.parametrize(("share", "photographs"), [(0.0, {8}), (1.0, {6}), (0.5, {6, 8})])
def test_clips_of_things_that_look_alike(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, share: float, photographs: set[int]
) -> None:
    from phoneward.export.train.tam import views

    counts = set()

    def count(given: Pool, recipe: ClipRecipe, seed: int) -> Clip:
        counts.add(given.count(PHOTO))
        return counting()

    monkeypatch.setattr(views, "generate", count)
    how = Sampling("slow", SIDE, 2, clips=16, objects=1, alike=share)
    draw(Stock(pool), how, (0, 0, 0))
    assert counts == photographs


def test_other_colours_are_the_same_in_all_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    gray = paler = other = 0
    for seed in range(200):
        found = recoloured(frames, np.random.default_rng(seed))
        assert found.shape == frames.shape
        assert found.dtype == np.uint8
        one = recoloured(frames[1:2], np.random.default_rng(seed))
        np.testing.assert_array_equal(found[1:2], one)
        # what is white, gray or black stays so
        neutral = np.full((1, 2, 2, 3), 100, np.uint8)
        assert np.abs(recoloured(neutral, np.random.default_rng(seed)) - 100.0).max() <= 1
        spread, before = (np.ptp(each.astype(int), axis=3).mean() for each in (found, frames))
        assert spread <= before + 1
        gray += spread < 1
        paler += 1 < spread < 0.95 * before
        order = found.astype(int).reshape(-1, 3).T @ frames.reshape(-1, 3).astype(int)
        other += bool((order.argmax(1) != np.arange(3)).any()) and spread > 0.3 * before
    assert 60 < gray < 110
    assert 60 < paler < 140
    assert other > 20


def test_views_are_recoloured_as_often_as_asked_for(pool: Pool) -> None:
    how = Sampling("slow", SIDE, 2, clips=24, objects=1)
    shares = []
    for recolour in (0.0, 0.5, 1.0):
        batch = draw(Stock(pool), replace(how, recolour=recolour), (0, 0, 0))
        spreads = np.ptp(batch.frames.astype(int), axis=4).mean((1, 2, 3))
        shares.append(float((spreads == 0).mean()))
    # of these 0.4 are gray, beside pictures that were
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] - shares[0] > 0.2
