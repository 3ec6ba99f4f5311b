"""The bootstrap: reproducible, honest about what is undefined, and of the stated coverage."""

import math

import numpy as np
import pytest

from halebrain.evaluation.statistics import bootstrap_mean

VALUES = [0.1, 0.5, 0.45, 0.9, 0.3, 0.7]
SUBJECTS = list("abcdef")


def test_same_seed_same_interval_and_the_mean_inside() -> None:
    first, second = (bootstrap_mean(VALUES, SUBJECTS, seed=4) for _ in range(2))
    assert first == second
    assert first.mean == pytest.approx(np.mean(VALUES))
    assert first.low < first.mean < first.high
    assert min(VALUES) <= first.low
    assert first.high <= max(VALUES)
    other = bootstrap_mean([v + 0.0137 * v**2 for v in VALUES], SUBJECTS, seed=5, resamples=500)
    assert other != bootstrap_mean([v + 0.0137 * v**2 for v in VALUES], SUBJECTS, seed=6, resamples=500)
    assert (first.n_scans, first.n_undefined) == (6, 0)


def test_constant_values_have_no_width() -> None:
    interval = bootstrap_mean([0.4] * 5, SUBJECTS[:5], seed=0)
    assert interval.low == interval.high == pytest.approx(0.4)


def test_undefined_values_are_counted_and_left_out() -> None:
    nan = math.nan
    interval = bootstrap_mean([*VALUES, nan, nan], [*SUBJECTS, "g", "a"], seed=0)
    assert (interval.n_scans, interval.n_undefined) == (6, 2)
    assert interval == bootstrap_mean(VALUES, SUBJECTS, seed=0).__class__(
        **{**vars(bootstrap_mean(VALUES, SUBJECTS, seed=0)), "n_undefined": 2}
    )


def test_nothing_defined() -> None:
    interval = bootstrap_mean([math.nan, math.nan], ["a", "b"], seed=0)
    assert math.isnan(interval.mean)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert (interval.n_scans, interval.n_undefined) == (0, 2)


@pytest.mark.parametrize("subjects", [["a"] * 6, ["a", "b"] * 3])
def test_fewer_than_three_subjects_have_no_bounds(subjects: list[str]) -> None:
    interval = bootstrap_mean(VALUES, subjects, seed=0)
    assert interval.mean == pytest.approx(np.mean(VALUES))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert interval.n_scans == 6


def test_scans_of_a_subject_are_drawn_together() -> None:
    """Copies of the same scans say nothing new, so the interval stays as wide as without them."""
    once = bootstrap_mean(VALUES, SUBJECTS, seed=1)
    thrice = bootstrap_mean(VALUES * 3, SUBJECTS * 3, seed=1)
    independent = bootstrap_mean(VALUES * 3, [f"s{n}" for n in range(18)], seed=1)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert independent.high - independent.low < 0.8 * (once.high - once.low)


def test_more_confidence_is_wider() -> None:
    narrow = bootstrap_mean(VALUES, SUBJECTS, seed=0, confidence=0.5)
    wide = bootstrap_mean(VALUES, SUBJECTS, seed=0, confidence=0.95)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bca_leans_with_the_skew() -> None:
    """One far value to the right: the bounds reach further to the right of the mean than to its left."""
    interval = bootstrap_mean([0.1] * 12 + [0.12] * 6 + [0.9, 0.6], [str(n) for n in range(20)], seed=0)
    assert interval.high - interval.mean > 1.5 * (interval.mean - interval.low)


def test_coverage_on_normal_data() -> None:
    rng = np.random.default_rng(0)
    subjects = [str(n) for n in range(20)]
    hits = 0
    for seed in range(100):
        interval = bootstrap_mean(rng.normal(0.5, 0.2, 20).tolist(), subjects, seed=seed, resamples=400)
        hits += interval.low <= 0.5 <= interval.high
    assert 85 <= hits <= 99
