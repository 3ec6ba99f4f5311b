"""The threshold at which the median healthy person shows little, as far as few scans can tell."""

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.thresholds.false_positive_volume import (
    CONFIDENCE,
    VOLUMES_ML,
    fit_false_volume,
    people_to_keep,
    reached_confidence,
)


class Ramp:
    """A scan whose called volume falls in a straight line from `peak_ml` at 0 to nothing at 1."""

    def __init__(self, peak_ml, subject=""):
        self.peak_ml, self.subject = peak_ml, subject

    def marked_ml(self, threshold):
        return max(self.peak_ml * (1 - threshold), 0.0)

    def lowest_threshold(self, allowed_ml):
        return max(1 - allowed_ml / self.peak_ml, 0.0)


def test_the_median_of_the_scans_at_hand_by_hand():
    # The scan in the middle keeps 1 ml from 1 − 1/4 on.
    value, achieved = fit_false_volume([Ramp(2), Ramp(100), Ramp(4)], 1.0, confidence=0)
    assert (value, achieved) == (0.75, 1.0)


def test_an_even_number_asks_for_more_than_half():
    value, achieved = fit_false_volume([Ramp(2), Ramp(8), Ramp(100), Ramp(4)], 1.0, confidence=0)
    assert value == 1 - 1 / 8
    assert achieved == pytest.approx((4 / 8 + 8 / 8) / 2)


def test_ten_scans_by_hand():
    # P(Bin(10, ½) ≤ 6) = 848/1024 = 0.83, P(≤ 5) = 638/1024 = 0.62: the seventh decides.
    scans = [Ramp(peak) for peak in (2, 3, 4, 5, 6, 7, 8, 9, 10, 100)]
    value, achieved = fit_false_volume(scans, 1.0)
    assert value == 1 - 1 / 8
    assert achieved == pytest.approx((6 / 8 + 7 / 8) / 2)


def test_a_person_with_several_scans_counts_once_by_the_worst_of_them():
    # Of three people two must keep the limit; three quiet scans of one of them are not two people.
    often = [Ramp(peak, "a") for peak in (2, 3, 4)]
    value, _ = fit_false_volume([*often, Ramp(10, "b"), Ramp(100, "c")], 1.0, confidence=0)
    assert value == 1 - 1 / 10
    value, _ = fit_false_volume([*often, Ramp(20, "a"), Ramp(10, "b"), Ramp(5, "c")], 1.0, confidence=0)
    assert value == 1 - 1 / 10


@pytest.mark.parametrize("count", [1, 2, 5, 8, 30])
@pytest.mark.parametrize("allowed_ml", VOLUMES_ML)
def test_it_is_the_lowest_that_enough_scans_keep(count, allowed_ml):
    scans = [Ramp(peak) for peak in np.random.default_rng(count).uniform(2, 50, count)]
    value, achieved = fit_false_volume(scans, allowed_ml)
    enough = people_to_keep(count, CONFIDENCE)

    def keep(threshold):
        return sum(scan.marked_ml(threshold) <= allowed_ml for scan in scans)

    assert keep(value + 1e-9) >= enough > count / 2
    assert keep(value - 1e-9) < enough
    assert achieved <= allowed_ml + 1e-9


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 2), (3, 3), (5, 4), (10, 7), (12, 8), (24, 15), (100, 55)])
def test_how_many_must_keep_a_limit(count, kept):
    assert people_to_keep(count, 0.8) == kept
    assert people_to_keep(count, 0.0) == count // 2 + 1


@pytest.mark.parametrize(("count", "kept"), [(5, 5), (10, 10), (16, 16), (42, 40), (100, 94)])
def test_how_many_must_keep_a_limit_that_nine_of_ten_people_keep(count, kept):
    # P(Bin(42, 0.9) ≤ 39) = 0.805, P(≤ 38) = 0.616. Of fewer than 16, all must keep it, and that says less.
    assert people_to_keep(count, 0.8, population_fraction=0.9) == kept


@pytest.mark.parametrize(("count", "share", "sure"), [(1, 0.5, 0.5), (3, 0.5, 0.8), (10, 0.9, 0.651), (16, 0.9, 0.8)])
def test_few_scans_reach_less_confidence(count, share, sure):
    assert reached_confidence(count, population_fraction=share) == pytest.approx(sure, abs=1e-3)


def test_nine_of_ten_people_ask_for_a_higher_threshold():
    scans = [Ramp(peak) for peak in (2, 3, 4, 5, 6, 7, 8, 9, 10, 100)]
    value, achieved = fit_false_volume(scans, 1.0, population_fraction=0.9)
    assert value == 1 - 1 / 100
    assert achieved == pytest.approx(0.065)  # the median of the ten, as ever


def test_the_median_of_all_people_keeps_the_limit_as_often_as_promised():
    # Of people whose volume at 0 is uniform in 2 … 50 ml, the median one has 26 ml: it keeps 1 ml from 1 − 1/26 on.
    rng = np.random.default_rng(3)
    drawn = [fit_false_volume([Ramp(p) for p in rng.uniform(2, 50, 12)], 1.0)[0] for _ in range(2000)]
    # P(Bin(12, ½) ≤ 7) = 0.806.
    assert np.mean(np.array(drawn) >= 1 - 1 / 26) == pytest.approx(0.806, abs=0.025)


def test_one_strange_scan_decides_nothing():
    usual = [Ramp(4)] * 4
    assert fit_false_volume([*usual, Ramp(10**6)], 1.0) == fit_false_volume([*usual, Ramp(4)], 1.0)


def test_it_needs_a_healthy_scan():
    with pytest.raises(DataError, match="healthy"):
        fit_false_volume([], 1.0)
