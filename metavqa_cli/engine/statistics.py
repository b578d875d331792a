"""Means over tasks with 95 % bootstrap intervals; tasks are resampled, not images. Spread over seeds."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-9  # per cent: values that differ by less are equal, and have no spread to resample


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
    if len(values) < 2 or np.ptp(values) <= ROUNDING:
        return Estimate(mean, mean, mean, len(values))
    from scipy.stats import bootstrap  # imported late: it costs half a second

    rng = np.random.default_rng(seed)
    interval = bootstrap((values,), np.mean, n_resamples=resamples, batch=256, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(values))


def difference(
    accuracies: Float[np.ndarray, "seed task"],
    reference: Float[np.ndarray, "reference_seed task"],
    resamples: int,
    seed: int = 0,
) -> Estimate:
    """Paired difference to ``reference`` in per cent: per-task means over the seeds are subtracted task by task.

    The interval says how the difference would vary over other tasks; that easy and hard tasks differ does not widen
    it. The rows of both must belong to the same tasks in the same order.
    """
    return estimate(accuracies.mean(0, dtype=np.float64) - reference.mean(0, dtype=np.float64), resamples, seed)


def spread(accuracies: Float[np.ndarray, "seed task"]) -> float | None:
    """Standard deviation over the seeds (n − 1) of the mean over tasks, in per cent; None for a single seed."""
    means = 100 * accuracies.mean(1, dtype=np.float64)
    return float(means.std(ddof=1)) if len(means) > 1 else None


def closed(mean: float, reference: float, ceiling: float) -> float | None:
    """The part of the distance from ``reference`` to ``ceiling`` that ``mean`` covers; None if there is no distance.

    Negative below the reference, more than 1 above the ceiling.
    """
    return (mean - reference) / (ceiling - reference) if ceiling > reference else None
