"""Means over tasks with 95 % bootstrap intervals; tasks are resampled, not images. Spread over seeds."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

BATCH = 256  # resamples drawn at once
NORMAL = NormalDist()
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
    low, high = bca_interval(values, _resampled_means(values, resamples, seed))
    return Estimate(mean, low, high, len(values))


def _resampled_means(values: Float[np.ndarray, " task"], resamples: int, seed: int) -> Float[np.ndarray, " resample"]:
    """The means of ``resamples`` draws of the values with replacement, a bounded number of them at a time."""
    rng, means = np.random.default_rng(seed), []
    for first in range(0, resamples, BATCH):
        drawn = rng.integers(0, len(values), (min(BATCH, resamples - first), len(values)))
        means.append(values[drawn].mean(1))
    return np.concatenate(means)


def bca_interval(
    values: Float[np.ndarray, " task"], means: Float[np.ndarray, " resample"], level: float = 0.95
) -> tuple[float, float]:
    """The bias-corrected and accelerated bootstrap interval of the mean (Efron, 1987), from resampled ``means``.

    Equal to ``scipy.stats.bootstrap`` (a test compares them), whose import would cost the dashboard 80 MB and everybody
    half a second. Where all resampled means lie on one side, half a resample is taken to lie on the other.
    """
    n, mean = len(values), values.mean()
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    z0 = NORMAL.inv_cdf(min(max(float(below), 0.5 / len(means)), 1 - 0.5 / len(means)))
    jackknife = (values.sum() - values) / (n - 1)
    u = (n - 1) * (jackknife.mean() - jackknife)
    acceleration = float((u**3).sum() / n**3 / ((u**2).sum() / n**2) ** 1.5 / 6)

    def edge(share: float) -> float:
        z = z0 + NORMAL.inv_cdf(share)
        return float(np.percentile(means, 100 * NORMAL.cdf(z0 + z / (1 - acceleration * z))))

    return edge((1 - level) / 2), edge((1 + level) / 2)


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
