"""Intervals for means over the items of a benchmark, and paired comparison of two systems on the same items."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = Sequence[float] | NDArray[np.floating[Any]]
"""One number per item, in item order."""


class Estimate(NamedTuple):
    """A mean over `n` items with its confidence interval."""

    value: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """Mean of `a - b` over `n` paired items, its interval, and the two-sided bootstrap p-value of "no difference"."""

    value: float
    low: float
    high: float
    n: int
    p_value: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval of a proportion (Wilson 1927); unlike ± 1.96 standard errors it stays in [0, 1] and is right
    near 0, near 1 and for small groups.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"0 ≤ successes ≤ n and n > 0 expected, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, spread = successes / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * (p * (1 - p) / n + spread / (4 * n)) ** 0.5 / (1 + spread)
    # the bounds are exactly 0 and 1 at the ends; rounding would put them a hair off, outside the value
    return Estimate(p, 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half, n)


def bootstrap(values: Vector, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0) -> Estimate:
    """Percentile-bootstrap interval of the mean of any values. The same seed gives the same interval."""
    array = _vector(values)
    means = _resampled_means(array, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def bootstrap_ratio(
    numerators: Vector, denominators: Vector, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Estimate:
    """Percentile-bootstrap interval of a ratio of sums over items (a corpus word error rate), items resampled in pairs.

    Raises `ValueError` for vectors of different lengths or a sum of denominators that is not positive.
    """
    top, bottom = _vector(numerators), _vector(denominators)
    if len(top) != len(bottom) or bottom.sum() <= 0:
        raise ValueError(f"a positive sum of as many denominators is needed, got {len(top)} and {len(bottom)} items")
    # one seed: the same items of both
    above, below = (_resampled_means(array, resamples, seed) for array in (top, bottom))
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(top.sum() / bottom.sum()), float(low), float(high), len(top))


def estimate(values: Vector, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Wilson's interval where every value is 0 or 1 (right or wrong), the bootstrap elsewhere."""
    array = _vector(values)
    if np.isin(array, (0.0, 1.0)).all():
        return wilson(int(array.sum()), len(array), confidence)
    return bootstrap(array, confidence, seed=seed)


def paired_bootstrap(
    a: Vector, b: Vector, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """How much better `a` is than `b`, both scored on the same items in the same order.

    Items are resampled in pairs, so what is hard for both cancels out (Efron & Tibshirani 1993, ch. 13 for the interval; the
    p-value is twice the smaller share of resampled differences on one side of zero, counting zero on both). Raises `ValueError`
    for vectors of different lengths.
    """
    first, second = _vector(a), _vector(b)
    if len(first) != len(second):
        raise ValueError(f"paired items expected, got {len(first)} and {len(second)}")
    difference = first - second
    means = _resampled_means(difference, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # + 1: a p-value of exactly zero is not something that finitely many resamples can show
    tail = min((means <= 0).sum(), (means >= 0).sum())
    p_value = min(1.0, 2 * (int(tail) + 1) / (resamples + 1))
    return Difference(float(difference.mean()), float(low), float(high), len(difference), p_value)


def _vector(values: Vector) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"a non-empty vector of finite numbers expected, got shape {array.shape}")
    return array


def _resampled_means(array: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of `resamples` samples with replacement, in blocks of about a million indices (9,000 items at once need 700 MB)."""
    generator, n = np.random.default_rng(seed), len(array)
    block = max(1, 1_000_000 // n)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    return np.concatenate([array[generator.integers(0, n, (size, n))].mean(1) for size in sizes])
