"""Views of clips: what is shown is of the clip, moved as its masks are, and can be followed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from phoneward.export.train.clips import LEAST_SHARE, Clip, Pool, open_pool
from phoneward.export.train.tam.batch import Sampling, draw
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
