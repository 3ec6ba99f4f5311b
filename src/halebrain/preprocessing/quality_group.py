"""Group quality control: distance of each scan's histogram and figures from other scans of its contrast."""

from collections.abc import Mapping, Sequence

import numpy as np

_ENOUGH = 8
"""Minimum number of scans of one contrast for outlier detection."""
_FAR = 5.0
"""Robust deviations from the median that make a scan an outlier: one in 1.7 million of normal ones."""


def histogram_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the 1-Wasserstein distance of two histograms over [0, 1], in units of that range.

    Example:
        >>> histogram_distance([1, 0, 0, 0], [0, 0, 1, 0])
        0.5
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.abs(np.cumsum(a / a.sum() - b / b.sum())).sum() / len(a))


def group_distances(histograms: Sequence[Sequence[float]]) -> list[float | None]:
    """Return how far each histogram lies from the mean of the others; `None` where there are no others."""
    stack = np.asarray(histograms, dtype=np.float64)
    if len(stack) < 2:
        return [None] * len(stack)
    others = (stack.sum(axis=0) - stack) / (len(stack) - 1)
    return [round(histogram_distance(own, mean), 4) for own, mean in zip(stack, others, strict=True)]


def robust_deviations(values: Sequence[float | None]) -> list[float | None]:
    """Return (value − median) / (1.4826 · MAD) of each; `None` for what is undefined or where all are alike."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < _ENOUGH:
        return [None] * len(values)
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    if spread < 1e-9:
        return [None] * len(values)
    return [None if value is None else (value - middle) / spread for value in values]


def outliers(figures: Sequence[Mapping[str, float | None]]) -> list[tuple[float, list[str]]]:
    """Return the largest robust deviation of each scan of one contrast, and a line for each outlying figure.

    Args:
        figures: One mapping a scan, all of the same names.
    """
    found: list[tuple[float, list[str]]] = [(0.0, []) for _ in figures]
    for name in figures[0] if figures else ():
        for place, deviation in enumerate(robust_deviations([scan[name] for scan in figures])):
            if deviation is None:
                continue
            worst, lines = found[place]
            if abs(deviation) > _FAR:
                lines.append(f"{name} {figures[place][name]:g} lies {deviation:+.0f} robust SD from the other scans")
            found[place] = (max(worst, abs(deviation)), lines)
    return found
