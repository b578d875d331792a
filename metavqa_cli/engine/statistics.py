"""Means over tasks with 95 % bootstrap intervals; tasks are resampled, not images."""

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean in per cent with the bounds of its 95 % interval, over ``n`` tasks."""

    mean: float
    low: float
    high: float
    n: int


def estimate(accuracies: np.ndarray, resamples: int, seed: int = 0) -> Estimate:
    """Mean in per cent of per-task values [task] in 0 to 1 (or of paired differences), BCa bootstrap over the tasks.

    The order of the tasks does not matter.
    """
    values = np.sort(100 * np.asarray(accuracies, np.float64))
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(mean, mean, mean, len(values))
    from scipy.stats import bootstrap  # imported late: it costs half a second

    rng = np.random.default_rng(seed)
    interval = bootstrap((values,), np.mean, n_resamples=resamples, batch=256, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(values))
