"""Means over tasks and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metavqa_cli.engine.statistics import Estimate, estimate

VALUES = st.lists(st.floats(0, 1).map(lambda value: round(value, 3)), min_size=1, max_size=12)


@given(VALUES)
def test_the_mean_lies_within_its_interval_and_the_order_does_not_matter(values: list[float]) -> None:
    found = estimate(np.array(values), 60)
    assert found.mean == pytest.approx(100 * np.mean(values))
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    assert found.n == len(values)
    assert estimate(np.array(values[::-1]), 60) == pytest.approx(found)


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
