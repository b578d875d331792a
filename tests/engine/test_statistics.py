"""Means over tasks and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from metavqa_cli.engine.statistics import Estimate, closed, difference, estimate, spread

VALUES = st.lists(st.floats(0, 1).map(lambda value: round(value, 3)), min_size=1, max_size=12)


@given(VALUES)
def test_the_mean_lies_within_its_interval_and_the_order_does_not_matter(values: list[float]) -> None:
    found = estimate(np.array(values), 60)
    assert found.mean == pytest.approx(100 * np.mean(values))
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert found.n == len(values)
    assert estimate(np.array(values[::-1]), 60) == pytest.approx(found)


@given(VALUES.filter(lambda values: len({*values}) > 1), st.integers(20, 700))
def test_the_interval_is_the_bca_interval_of_scipy(values: list[float], resamples: int) -> None:
    found, ordered = estimate(np.array(values), resamples), np.sort(100 * np.array(values))
    drawn = np.random.default_rng(0)
    expected = bootstrap((ordered,), np.mean, n_resamples=resamples, batch=256, rng=drawn).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_equal_values_have_no_spread() -> None:
    assert estimate(np.full(5, 0.25), 100) == Estimate(25.0, 25.0, 25.0, 5)
    assert estimate(np.array([0.25]), 100) == Estimate(25.0, 25.0, 25.0, 1)


def test_the_interval_of_a_normal_sample_is_about_two_standard_errors() -> None:
    values = 0.5 + 0.1 * np.random.default_rng(0).standard_normal(400)
    found = estimate(values, 4000)
    standard_error = 100 * values.std(ddof=1) / 20
    assert (found.high - found.low) / standard_error == pytest.approx(2 * 1.96, rel=0.05)


def test_more_tasks_make_it_narrower() -> None:
    values = np.random.default_rng(1).random(50)
    few, many = estimate(values, 500), estimate(np.tile(values, 9), 500)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(3, rel=0.15)


def test_the_spread_over_seeds_is_that_of_their_means() -> None:
    assert spread(np.array([[0.0, 0.4], [0.2, 0.6], [1.0, 0.2]])) == pytest.approx(20)  # means 20, 40, 60
    assert spread(np.array([[0.2, 0.9]])) is None


def test_the_part_closed() -> None:
    assert closed(55.1, 53.75, 60.24) == pytest.approx(0.208, abs=1e-3)  # the paper's best method
    assert closed(50, 53, 56) == -1 and closed(59, 53, 56) == 2
    assert closed(54, 53, 53) is None and closed(54, 53, 52) is None


def test_a_paired_difference_is_over_seeds_first_and_then_over_tasks() -> None:
    ours = np.array([[0.5, 0.9, 0.2], [0.7, 0.9, 0.2]])
    theirs = np.array([[0.4, 0.8, 0.1]])
    found = difference(ours, theirs, 200)  # of the tasks: 20, 10, 10
    assert found.mean == pytest.approx(40 / 3)
    assert found.n == 3
    assert found == pytest.approx(estimate(np.array([0.2, 0.1, 0.1]), 200))


def test_a_constant_difference_needs_no_resampling() -> None:
    """Rounding alone makes the differences unequal; their bootstrap is not defined."""
    base = np.array([[0.1, 1 / 3, 0.7, 0.123]])
    assert np.ptp(base + 0.1 - base) > 0
    found = difference(base + 0.1, base, 200)
    assert found.low == found.mean == found.high == pytest.approx(10)


def test_how_much_tasks_differ_does_not_widen_a_paired_interval() -> None:
    rng = np.random.default_rng(2)
    ease, gain = rng.random((1, 60)), rng.normal(0.03, 0.02, (1, 60))
    narrow, wide = difference(ease + gain, ease, 1000), estimate((ease + gain)[0], 1000)
    assert narrow.high - narrow.low == pytest.approx(2 * 196 * 0.02 / 60**0.5, rel=0.25)
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)
