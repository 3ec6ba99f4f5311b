"""Uncertainty over scans: the bias-corrected and accelerated bootstrap, whole subjects or sites drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

INTERVAL = "95 % BCa bootstrap of the mean over scans; subjects drawn whole, or sites where there are five or more"
"""What the intervals of an evaluation are, for provenance."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Args:
        mean: Mean over scans; NaN where no scan defines the metric.
        low: Lower bound; NaN with fewer than three clusters.
        high: Upper bound; NaN with fewer than three clusters.
        n_scans: Scans that define the metric.
        n_undefined: Scans left out because the metric is undefined there.
    """

    mean: float
    low: float
    high: float
    n_scans: int
    n_undefined: int


def bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return the mean over scans with its BCa interval, resampling clusters (Efron 1987; Field & Welsh 2007).

    Args:
        values: One value a scan; NaN = undefined, counted and left out.
        clusters: What each value belongs to, a subject or a site; its scans are drawn together.
        seed: Seed of the resampling.
        confidence: Coverage of the interval.
        resamples: Number of resamples.
    """
    all_values = np.asarray(values, dtype=np.float64)
    defined = ~np.isnan(all_values)
    kept = all_values[defined]
    n_undefined = int((~defined).sum())
    if kept.size == 0:
        return Interval(np.nan, np.nan, np.nan, 0, n_undefined)
    _, owner = np.unique(np.asarray(clusters)[defined], return_inverse=True)
    sums, counts = np.bincount(owner, weights=kept).astype(np.float64), np.bincount(owner).astype(np.float64)
    mean = float(kept.mean())
    if len(sums) < 3:
        return Interval(mean, np.nan, np.nan, len(kept), n_undefined)
    low, high = _bca(sums, counts, mean, np.random.default_rng(seed), confidence, resamples)
    return Interval(mean, low, high, len(kept), n_undefined)


def _bca(
    sums: npt.NDArray[np.float64],
    counts: npt.NDArray[np.float64],
    mean: float,
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> tuple[float, float]:
    n = len(sums)
    drawn = rng.integers(0, n, size=(resamples, n))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    if np.ptp(means) < 1e-12:
        return mean, mean
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    deviation = left_out.mean() - left_out
    spread = (deviation**2).sum() ** 1.5
    acceleration = (deviation**3).sum() / (6 * spread) if spread > 0 else 0.0
    # Ties count half: metrics with many equal values (false-positive volumes of 0) would else be biased low.
    tied = np.isclose(means, mean, rtol=0, atol=1e-12)
    below = np.clip(((means < mean) & ~tied).mean() + tied.mean() / 2, 1 / resamples, 1 - 1 / resamples)
    bias = stats.norm.ppf(below)
    bounds = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + stats.norm.ppf(tail)
        bounds.append(float(np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))))
    return bounds[0], bounds[1]
