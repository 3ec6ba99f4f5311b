"""Uncertainty over scans, and paired tests of methods over subjects, corrected for multiple comparisons.

Intervals: a studentised bootstrap of the mean, resampling whole subjects or sites. Studentised, not BCa: with the few
subjects of a test set and the skewed values of AUPRC or of false-positive volumes it covers what it promises
(`benchmarks/intervals.py`, with the table in `docs/reference/metrics.md`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import stats

_BOOTSTRAP = (
    "95 % studentised bootstrap of the mean over scans, never narrower than Student's t, within the metric's range"
)
INTERVAL = f"{_BOOTSTRAP}; subjects drawn whole, or sites where there are five or more"
"""What the intervals of an evaluation are, for tables, pages and provenance."""
SUBJECT_INTERVAL = f"{_BOOTSTRAP}; subjects drawn whole"
"""What those of a benchmark and of reconstructions are."""
Key = TypeVar("Key")
UNBOUNDED = (-math.inf, math.inf)
SHARE, SHARE_DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
"""Range of a share or overlap, and of the difference of two."""
_LEAST_ERROR = 0.25
"""A resample's standard error counts as this part of the sample's at the least: resamples of nearly equal values would
send the bounds to infinity (Polansky 2000)."""


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
    bounds: tuple[float, float] = UNBOUNDED,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Return the mean over scans with its studentised interval, resampling clusters (Efron 1981; Field & Welsh 2007).

    Args:
        values: One value a scan; NaN = undefined, counted and left out.
        clusters: What each value belongs to, a subject or a site; its scans are drawn together.
        seed: Seed of the resampling.
        bounds: Range of the metric, that no bound leaves.
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
    error = float(_standard_error(sums, counts))
    if error < 1e-12 * max(1.0, abs(mean)):
        return Interval(mean, mean, mean, len(kept), n_undefined)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    errors = np.maximum(_standard_error(sums[drawn], counts[drawn]), _LEAST_ERROR * error)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    below, above = np.quantile((means - mean) / errors, tails)
    # Of values that are mostly equal, such as differences of 0, resamples vary too little.
    width = float(stats.t.ppf(tails[1], len(sums) - 1))
    low, high = mean - max(float(above), width) * error, mean - min(float(below), -width) * error
    return Interval(mean, max(low, bounds[0]), min(high, bounds[1]), len(kept), n_undefined)


def _standard_error(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the standard error of the mean over scans, from sums and counts of clusters `(…, n)` (delta method)."""
    n, total = sums.shape[-1], counts.sum(axis=-1)
    off = sums - counts * (sums.sum(axis=-1) / total)[..., None]
    error: npt.NDArray[np.float64] = np.sqrt(n / (n - 1) * np.square(off).sum(axis=-1)) / total
    return error


@dataclass(frozen=True)
class Comparison:
    """A paired test between two methods over subjects that have both; the difference is first minus second.

    `p` is that of a two-sided Wilcoxon signed-rank test, 1 where all differences are 0; `p_holm` is corrected for all
    comparisons of this metric (Holm 1979).
    """

    metric: str
    first: str
    second: str
    median_difference: float
    n_subjects: int
    p: float
    p_holm: float


def compare_methods(metric: str, values: Mapping[str, Mapping[tuple[str, str], float]]) -> list[Comparison]:
    """Return every two methods compared, from method → (subject, scan) → value; NaN = undefined, left out.

    Each subject counts with its mean over the scans that both methods have: a method that lacks the harder contrast of
    all subjects is not better for it.
    """
    found = []
    for first, second in combinations(values, 2):
        both = [
            scan for scan in values[first] if not math.isnan(values[first][scan] - values[second].get(scan, math.nan))
        ]
        means = [means_by_key((scan[0], values[name][scan]) for scan in both) for name in (first, second)]
        if (test := paired_test(*means)) is not None:
            found.append((first, second, *test))
    corrected = holm([entry[-1] for entry in found])
    return [Comparison(metric, *entry, p_holm) for entry, p_holm in zip(found, corrected, strict=True)]


def paired_test(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, int, float] | None:
    """Return the median of first minus second over subjects that have both, their number, and Wilcoxon's p.

    Two-sided signed-rank test; 1 where all differences are 0. NaN = undefined, left out; `None` = no subject is left.
    """
    difference = np.array([value - second[subject] for subject, value in first.items() if subject in second])
    difference = difference[~np.isnan(difference)]
    if difference.size == 0:
        return None
    p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return float(np.median(difference)), int(difference.size), p


def means_by_key(values: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    """Return the mean of the values of each key, in the order in which keys come."""
    found: dict[Key, list[float]] = {}
    for key, value in values:
        found.setdefault(key, []).append(value)
    return {key: float(np.mean(own)) for key, own in found.items()}


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down procedure, in the order given.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = worst
    return corrected
