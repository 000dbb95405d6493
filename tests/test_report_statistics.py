"""Intervals hold what they claim to, and say of little that it is little."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phoneward.profiles.report.statistics import (
    FEWEST,
    median_interval,
    percentile,
    ratio_interval,
)

process = st.lists(st.integers(1, 10**9), min_size=1, max_size=40)
processes = st.lists(process, min_size=1, max_size=4)


def drawn(random: np.random.Generator, count: int, length: int, spread: float) -> list[list[float]]:
    """Processes of correlated samples (AR(1), 0.8) around 1 ms, each process off by `spread`."""
    made = []
    for _ in range(count):
        noise = random.normal(0, 0.01, length)
        for index in range(1, length):
            noise[index] += 0.8 * noise[index - 1]
        made.append(list(1e6 * np.exp(noise + random.normal(0, spread))))
    return made


@given(processes)
@settings(max_examples=60, deadline=None)
def test_an_interval_encloses_its_estimate_and_is_the_same_again(sides: list[list[int]]) -> None:
    interval = median_interval(sides)
    total = [value for side in sides for value in side]
    if len(total) < FEWEST:
        assert interval is None
        return
    assert interval is not None
    assert interval.estimate == pytest.approx(float(np.median(total)))
    assert 0 < interval.low <= interval.estimate <= interval.high
    assert median_interval(sides) == interval


@given(processes, st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_the_samples_makes_no_difference(sides: list[list[int]], scale: float) -> None:
    scaled = [[value * scale for value in side] for side in sides]
    plain, other = median_interval(sides), median_interval(scaled)
    if plain is None or other is None:
        assert plain is other
        return
    for one, two in ((plain.low, other.low), (plain.high, other.high)):
        assert two == pytest.approx(one * scale, rel=1e-9)
    ratio = ratio_interval(scaled, sides)
    assert ratio is not None
    assert ratio.estimate == pytest.approx(scale)
    assert ratio.holds(ratio.estimate)


@pytest.mark.parametrize(
    ("count", "length", "spread"), [(1, 200, 0.0), (2, 50, 0.02), (3, 50, 0.0), (3, 50, 0.02)]
)
def test_the_interval_of_a_median_covers_it(count: int, length: int, spread: float) -> None:
    random = np.random.default_rng(7)
    hits = 0
    for _ in range(100):
        interval = median_interval(drawn(random, count, length, spread))
        assert interval is not None
        hits += interval.holds(1e6)
    # resampled one by one, samples like these cover it half of the time
    assert hits >= 80


def test_equal_programs_are_seldom_told_apart_and_slower_ones_are() -> None:
    random = np.random.default_rng(11)
    told = 0
    for _ in range(60):
        after, before = drawn(random, 3, 50, 0.02), drawn(random, 3, 50, 0.02)
        interval = ratio_interval(after, before)
        assert interval is not None
        told += not interval.holds(1)
    assert told <= 6
    slow = [[1.5 * value for value in side] for side in drawn(random, 3, 50, 0.01)]
    proven = ratio_interval(slow, drawn(random, 3, 50, 0.01))
    assert proven is not None
    assert 1.2 < proven.low < 1.5 < proven.high * 1.05


def test_one_process_does_not_know_what_three_do() -> None:
    random = np.random.default_rng(3)
    three = drawn(random, 3, 50, 0.1)
    together, apart = (
        median_interval([[value for one in three for value in one]]),
        median_interval(three),
    )
    assert together is not None
    assert apart is not None
    assert math.log(apart.high / apart.low) > 2 * math.log(together.high / together.low)


def test_little_is_told_of_few_samples() -> None:
    many = [[1.0] * FEWEST]
    few = [[1.0] * (FEWEST - 1)]
    assert median_interval(few) is None
    assert ratio_interval(many, few) is None
    assert ratio_interval(few, many) is None
    assert ratio_interval(many, many) is not None


def test_many_samples_fit_into_memory_and_patience() -> None:
    random = np.random.default_rng(5)
    interval = median_interval([list(random.lognormal(0, 0.1, 20_000))])
    assert interval is not None
    assert 0.995 < interval.low < interval.high < 1.005
    assert interval.high - interval.low > 1e-3


def test_percentiles_lie_between_neighbours() -> None:
    assert [percentile([1, 2, 3, 4], q) for q in (0, 50, 100)] == [1, 2.5, 4]
