"""How often the intervals of an evaluation hold the true mean, and how wide they are, by simulation.

Values are drawn as test scans give them: AUPRC of easy, hard and mostly missed lesions, false-positive volumes, several
scans a subject, and paired differences of two methods. Beside the interval in use: BCa (Efron 1987) and Student's t,
kept to the same range.

    python benchmarks/intervals.py [--repetitions 1000] [--seed 0]
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from halebrain.evaluation.statistics import SHARE, SHARE_DIFFERENCE, bootstrap_mean

SUBJECTS = (5, 8, 10, 15, 19, 20, 30, 50)
Values = npt.NDArray[np.float64]
_NOT_NEGATIVE = (0.0, math.inf)


@dataclass(frozen=True)
class Kind:
    """One kind of values.

    Args:
        says: What it is like.
        draw: Values of n subjects, `(n, scans)`.
        mean: The true mean.
        bounds: Their range.
    """

    says: str
    draw: Callable[[np.random.Generator, int], Values]
    mean: float
    bounds: tuple[float, float]


def _missed_or(rng: np.random.Generator, n: int) -> Values:
    return np.where(rng.random((n, 1)) < 0.4, 0.0, rng.beta(2, 3, (n, 1)))


def _several_scans(rng: np.random.Generator, n: int) -> Values:
    """Three scans of each subject, of about the same value."""
    subject = rng.beta(0.5, 2, (n, 1))
    return rng.beta(20 * subject + 1e-3, 20 * (1 - subject) + 1e-3, (n, 3))


def _difference(rng: np.random.Generator, n: int) -> Values:
    return rng.gamma(0.7, 0.05, (n, 1)) - 0.02 + rng.normal(0, 0.02, (n, 1))


def _mostly_zero(rng: np.random.Generator, n: int) -> Values:
    return np.where(rng.random((n, 1)) < 0.6, 0.0, rng.normal(0.02, 0.05, (n, 1)))


KINDS = (
    Kind("AUPRC, hard: Beta(0.5, 2)", lambda r, n: r.beta(0.5, 2, (n, 1)), 0.2, SHARE),
    Kind("AUPRC, easy: Beta(2, 0.5)", lambda r, n: r.beta(2, 0.5, (n, 1)), 0.8, SHARE),
    Kind("Dice, 40 % missed", _missed_or, 0.6 * 0.4, SHARE),
    Kind("AUPRC, three scans a subject", _several_scans, 0.2, SHARE),
    Kind("false-positive ml: lognormal", lambda r, n: r.lognormal(0, 1, (n, 1)), math.exp(0.5), _NOT_NEGATIVE),
    Kind("difference, skewed", _difference, 0.015, SHARE_DIFFERENCE),
    Kind("difference, 60 % zero", _mostly_zero, 0.4 * 0.02, SHARE_DIFFERENCE),
)


def intervals(values: Values, bounds: tuple[float, float], seed: int) -> dict[str, tuple[float, float]]:
    """Return the bounds that each method gives for values `(subjects, scans)`."""
    means = values.mean(axis=1)
    mean, error = means.mean(), means.std(ddof=1) / math.sqrt(len(means))
    width = stats.t.ppf(0.975, len(means) - 1) * error
    bca = stats.bootstrap((means,), np.mean, n_resamples=1000, method="BCa", rng=seed).confidence_interval
    subjects = np.repeat(np.arange(len(values)).astype(str), values.shape[1])
    ours = bootstrap_mean(values.ravel().tolist(), subjects.tolist(), seed=seed, bounds=bounds, resamples=1000)
    found = {"BCa": (bca.low, bca.high), "t": (mean - width, mean + width), "in use": (ours.low, ours.high)}
    return {name: (max(low, bounds[0]), min(high, bounds[1])) for name, (low, high) in found.items()}


def coverage(kind: Kind, n: int, *, repetitions: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the share of intervals that hold the true mean in %, and their median width, of each method."""
    rng = np.random.default_rng([seed, n])
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    for number in range(repetitions):
        values = kind.draw(rng, n)
        if np.ptp(values) == 0:
            continue  # nothing varies, and no method has an interval
        for name, (low, high) in intervals(values, kind.bounds, number).items():
            held.setdefault(name, []).append(low <= kind.mean <= high)
            widths.setdefault(name, []).append(high - low)
    return {name: (100 * float(np.mean(held[name])), float(np.median(widths[name]))) for name in held}


def main() -> None:
    """Print a table of coverage and width as Markdown, BCa / t / in use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("Coverage in % (BCa / t / in use), nominal 95.\n")
    print(f"| values | {' | '.join(f'n = {n}' for n in SUBJECTS)} |\n|---{'|---' * len(SUBJECTS)}|")
    widths = []
    for kind in KINDS:
        cells = [coverage(kind, n, repetitions=given.repetitions, seed=given.seed) for n in SUBJECTS]
        print(f"| {kind.says} | {' | '.join(' / '.join(f'{c:.0f}' for c, _ in cell.values()) for cell in cells)} |")
        widths.append(f"| {kind.says} | {' | '.join(' / '.join(f'{w:.2f}' for _, w in c.values()) for c in cells)} |")
    print("\nMedian width (BCa / t / in use).\n")
    print(f"| values | {' | '.join(f'n = {n}' for n in SUBJECTS)} |\n|---{'|---' * len(SUBJECTS)}|")
    print("\n".join(widths))


if __name__ == "__main__":
    main()
