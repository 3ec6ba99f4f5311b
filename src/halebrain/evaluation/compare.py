"""Comparison of methods: paired tests over subjects, corrected for multiple comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Comparison:
    """A paired test between two methods.

    Args:
        metric: What is compared.
        first: One method.
        second: The other.
        median_difference: Median over subjects of first minus second.
        n_subjects: Subjects that have both.
        p: Of a two-sided Wilcoxon signed-rank test; 1 where all differences are 0.
        p_holm: Corrected for all comparisons of this metric (Holm 1979).
    """

    metric: str
    first: str
    second: str
    median_difference: float
    n_subjects: int
    p: float
    p_holm: float


def compare_methods(metric: str, values: Mapping[str, Mapping[str, float]]) -> list[Comparison]:
    """Return every pair of methods compared.

    Args:
        metric: Name of the metric.
        values: Method → subject → value; NaN = undefined, left out of the pairs.
    """
    found = []
    for first, second in combinations(values, 2):
        both = [s for s in values[first] if s in values[second]]
        difference = np.array([values[first][s] - values[second][s] for s in both], dtype=np.float64)
        difference = difference[~np.isnan(difference)]
        if difference.size == 0:
            continue
        p = 1.0 if not difference.any() else float(stats.wilcoxon(difference).pvalue)
        found.append((first, second, float(np.median(difference)), int(difference.size), p))
    corrected = holm([entry[-1] for entry in found])
    return [Comparison(metric, *entry, p_holm) for entry, p_holm in zip(found, corrected, strict=True)]


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
