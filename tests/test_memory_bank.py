"""The bank hands `propagate` the right frames in the right slots, and forgets the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phoneward.errors import InvalidSpec
from phoneward.runtime.memory_bank import (
    BankShape,
    Entry,
    MemoryBank,
    TrackerConfig,
    closest,
    narrow,
    widen,
)
from tests.efficienttam_stages import small_stages

SHAPE = BankShape(slots=7, channels=2, tokens=3, pointers=16, pointer_width=4, mask_side=8)
ENDLESS = TrackerConfig(conditioning=10**6, history=10**6)


def entry(tag: int) -> Entry:
    """An entry that says of which frame it is; bfloat16 holds whole numbers up to 256."""
    return Entry(
        memory=narrow(np.full((2, 3), tag % 256, np.float32)),
        pointer=np.full((1, 4), tag, np.float32),
        logits=np.full((1, 1, 8, 8), tag, np.float32),
        score=float(tag),
        iou=0.5,
        reverse=False,
        clicks=None,
    )


def bank_of(conditioning: list[int], tracked: list[int], shape: BankShape = SHAPE) -> MemoryBank:
    bank = MemoryBank(shape, ENDLESS)
    for t in conditioning:
        bank.condition(t, entry(t))
    for t in tracked:
        bank.track(t, entry(t))
    return bank


def read(
    bank: MemoryBank, index: int, *, reverse: bool = False
) -> tuple[list[tuple[int, int]], list[int]]:
    """(age, frame) of the slots that are not empty, and the frames of the valid pointers."""
    arrays = bank.inputs(index, reverse=reverse)
    slots = bank.shape.slots
    assert arrays["memory"].shape == (1, 2, slots * 3)
    memory = arrays["memory"].reshape(2, slots, 3)
    ages = arrays["memory_age"][0]
    frames = memory[0, :, 0]
    assert (memory == frames[None, :, None]).all()
    filled = int((ages >= 0).sum())
    assert (ages[filled:] == -1).all()
    assert (frames[filled:] == 0).all()
    valid = arrays["pointer_valid"][0]
    pointed = int(valid.sum())
    assert valid.tolist() == [1] * pointed + [0] * (16 - pointed)
    assert (arrays["pointers"][0, pointed:] == 0).all()
    assert all(array.dtype == np.float32 for array in arrays.values())
    slot_frames = [(int(a), int(f)) for a, f in zip(ages[:filled], frames[:filled], strict=True)]
    return slot_frames, arrays["pointers"][0, :pointed, 0].astype(int).tolist()


def test_a_full_bank_has_the_prompt_and_six_frames() -> None:
    memory, pointers = read(bank_of([0], list(range(1, 30))), 30)
    assert memory == [(0, 0), (1, 29), (2, 28), (3, 27), (4, 26), (5, 25), (6, 24)]
    assert pointers == [0, *range(29, 14, -1)]


def test_a_young_bank_is_mostly_empty() -> None:
    bank = bank_of([3], [])
    assert read(bank, 4) == ([(0, 3)], [3])
    bank.track(4, entry(4))
    assert read(bank, 5) == ([(0, 3), (1, 4)], [3, 4])


def test_frames_that_were_dropped_leave_a_gap() -> None:
    memory, pointers = read(bank_of([1], [2, 3, 5, 8]), 10)
    assert memory == [(0, 1), (2, 8), (5, 5)]
    assert pointers == [1, 8, 5, 3, 2]


def test_reverse_looks_ahead() -> None:
    bank = bank_of([20], list(range(19, 5, -1)))
    memory, pointers = read(bank, 5, reverse=True)
    assert memory == [(0, 20), (1, 6), (2, 7), (3, 8), (4, 9), (5, 10), (6, 11)]
    assert pointers == [20, *range(6, 20)]
    # forward, nothing lies behind
    assert read(bank, 5) == ([(0, 20)], [])


def test_a_frame_does_not_remember_itself() -> None:
    assert read(bank_of([1], [2, 3, 4]), 3) == ([(0, 1), (1, 2)], [1, 2])


def test_conditioning_frames_ahead_have_memory_but_no_pointer() -> None:
    memory, pointers = read(bank_of([1, 9], [2, 3]), 4)
    assert memory == [(0, 1), (0, 9), (1, 3), (2, 2)]
    assert pointers == [1, 3, 2]


def test_two_conditioning_frames_push_the_oldest_out() -> None:
    memory, pointers = read(bank_of([1, 20], list(range(2, 20)) + list(range(21, 40))), 40)
    assert memory == [(0, 1), (0, 20), *((40 - t, t) for t in (39, 38, 37, 36, 35))]
    assert pointers == [1, 20, *range(39, 25, -1)]


def test_more_conditioning_frames_than_fit() -> None:
    conditioning = [1, 10, 20, 30, 35, 37, 38, 60, 90]
    memory, pointers = read(bank_of(conditioning, [36, 39]), 40)
    # the last one before and the first one after, then the closest; one slot is left
    assert memory == [*((0, t) for t in (20, 30, 35, 37, 38, 60)), (1, 39)]
    assert pointers == [20, 30, 35, 37, 38, 39, 36]
    # one that is not chosen counts as the recent frame that it is
    memory, pointers = read(bank_of([1, 2, 3, 4, 5, 6, 7, 8], []), 9)
    assert memory == [*((0, t) for t in (3, 4, 5, 6, 7, 8))]
    assert pointers == [3, 4, 5, 6, 7, 8, 2, 1]
    memory, _ = read(bank_of([3, 9, 10, 11, 12, 13, 14, 15], [], SHAPE), 8)
    assert memory == [*((0, t) for t in (3, 9, 10, 11, 12, 13))]


def test_fewer_slots_keep_the_newest() -> None:
    shape = BankShape(3, 2, 3, 16, 4, 8)
    assert read(bank_of([1], list(range(2, 12)), shape), 12)[0] == [(0, 1), (1, 11), (2, 10)]
    shape = BankShape(2, 2, 3, 16, 4, 8)
    assert read(bank_of([1, 5], [6], shape), 7)[0] == [(0, 5), (1, 6)]


@pytest.mark.parametrize("slots", [1, 2])
def test_a_single_conditioning_frame_is_the_one_passed_last(slots: int) -> None:
    bank = bank_of([2, 10, 20, 30], [13, 19], BankShape(slots, 2, 3, 16, 4, 8))
    # of two slots the newest frame has one, of one it has none but is still pointed at
    newest = [(1, 13)][: slots - 1]
    assert read(bank, 14) == ([(0, 10), *newest], [10, 13, 2])
    newest = [(6, 13)][: slots - 1]
    assert read(bank, 19)[0] == [(0, 10), *newest]  # 20 is nearer, but ahead
    newest = [(1, 19)][: slots - 1]
    assert read(bank, 18, reverse=True)[0] == [(0, 20), *newest]
    assert read(bank, 12, reverse=True)[0] == [(0, 20), *[(1, 13)][: slots - 1]]  # not 10
    # with none behind, the nearest ahead
    assert read(bank, 1)[0] == [(0, 2)]
    assert read(bank, 40, reverse=True)[0] == [(0, 30)]


def test_more_slots_do_not_reach_further_back() -> None:
    memory, _ = read(bank_of([1], list(range(2, 40)), BankShape(16, 2, 3, 16, 4, 8)), 40)
    assert [age for age, _ in memory] == [0, 1, 2, 3, 4, 5, 6]


def test_a_model_without_pointers_is_given_none() -> None:
    bank = bank_of([1], [2], BankShape(7, 2, 3, 0, 0, 8))
    assert set(bank.inputs(3, reverse=False)) == {"memory", "memory_age"}


@pytest.mark.parametrize("step", [1, -1])
def test_forgetting_changes_nothing_over_500_frames(step: int) -> None:
    frames = list(range(500))[::step]
    bounded, endless = MemoryBank(SHAPE, TrackerConfig()), MemoryBank(SHAPE, ENDLESS)
    for bank in (bounded, endless):
        bank.condition(frames[0], entry(frames[0]))
    for t in frames[1:]:
        one, other = (bank.inputs(t, reverse=step < 0) for bank in (bounded, endless))
        assert all((one[name] == other[name]).all() for name in other)
        for bank in (bounded, endless):
            bank.track(t, entry(t))
        assert len(list(bounded.entries())) <= 1 + 16
    assert len(list(endless.entries())) == 500


def test_conditioning_frames_are_bounded_too() -> None:
    bank = MemoryBank(SHAPE, TrackerConfig(conditioning=5))
    for t in range(500):
        bank.condition(t, entry(t)) if t % 10 == 0 else bank.track(t, entry(t))
        assert len(list(bank.entries())) <= 5 + 16
    assert [t for t, conditioning, _ in bank.entries() if conditioning] == [450, 460, 470, 480, 490]
    bank.condition(0, entry(0))
    assert bank.is_conditioning(0)
    assert not bank.is_conditioning(490)


def test_a_conditioning_frame_can_be_replaced_in_a_full_bank() -> None:
    bank = MemoryBank(SHAPE, TrackerConfig(conditioning=2))
    for t in (1, 2, 1):
        bank.condition(t, entry(t))
    assert [t for t, _, _ in bank.entries()] == [1, 2]


@given(st.sets(st.integers(0, 60), min_size=1, max_size=20), st.integers(0, 60), st.integers(2, 8))
def test_the_closest_are_chosen(frames: set[int], index: int, most: int) -> None:
    chosen = closest(index, frames, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(most, len(frames))
    assert set(chosen) <= frames
    before, after = {t for t in frames if t < index}, {t for t in frames if t >= index}
    first = {max(before)} if before else set()
    first |= {min(after)} if after else set()
    assert first <= set(chosen)
    others, left = set(chosen) - first, frames - set(chosen)
    if others and left:
        assert max(abs(t - index) for t in others) <= min(abs(t - index) for t in left)


@given(
    st.sets(st.integers(0, 40), min_size=1, max_size=10),
    st.sets(st.integers(0, 40)),
    st.integers(0, 40),
    st.booleans(),
    st.integers(2, 9),
)
@settings(max_examples=200)
def test_no_frame_counts_twice(
    conditioning: set[int], tracked: set[int], index: int, reverse: bool, slots: int
) -> None:
    tracked -= conditioning
    bank = bank_of(sorted(conditioning), sorted(tracked), BankShape(slots, 2, 3, 16, 4, 8))
    memory, pointers = read(bank, index, reverse=reverse)
    frames = [frame for _, frame in memory]
    assert len(frames) == len(set(frames)) <= slots
    assert set(frames) <= conditioning | tracked
    for age, frame in memory:
        assert age == 0 or frame == (index + age if reverse else index - age)
        assert frame in conditioning or age > 0
    assert len(pointers) == len(set(pointers)) <= 16
    assert all(t >= index if reverse else t <= index for t in pointers)
    # the newest frame is never left out for conditioning frames further away
    newest = index + 1 if reverse else index - 1
    assert newest not in conditioning | tracked or newest in frames


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_memory_is_rounded_as_torch_rounds(values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = torch.from_numpy(array).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(widen(narrow(array)), expected)


def test_ties_round_to_even() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], np.uint32)
    assert narrow(bits.view(np.float32)).tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]


def test_the_shape_is_that_of_the_graph() -> None:
    propagate = small_stages(slots=5)["propagate"]
    shape = BankShape.of(propagate.inputs, propagate.outputs)
    assert shape == BankShape(5, 64, 16, 16, 256, 16)
    propagate = small_stages(pointers=False)["propagate"]
    assert BankShape.of(propagate.inputs, propagate.outputs).pointers == 0


@pytest.mark.parametrize(("conditioning", "history"), [(0, 15), (1, 14)])
def test_too_little_memory_is_refused(conditioning: int, history: int) -> None:
    with pytest.raises(InvalidSpec, match="at least 1 conditioning frame and 15 others"):
        TrackerConfig(conditioning, history)
