"""The threshold at which most healthy scans show little."""

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.evaluation.false_volume import VOLUMES_ML, fit_false_volume


class Ramp:
    """A scan whose called volume falls in a straight line from `peak_ml` at 0 to nothing at 1."""

    def __init__(self, peak_ml):
        self.peak_ml = peak_ml

    def called_ml(self, threshold):
        return max(self.peak_ml * (1 - threshold), 0.0)

    def lowest_threshold(self, allowed_ml):
        return max(1 - allowed_ml / self.peak_ml, 0.0)


def test_an_odd_number_by_hand():
    # The scan in the middle keeps 1 ml from 1 − 1/4 on.
    value, achieved = fit_false_volume([Ramp(2), Ramp(100), Ramp(4)], 1.0)
    assert (value, achieved) == (0.75, 1.0)


def test_an_even_number_asks_for_more_than_half():
    value, achieved = fit_false_volume([Ramp(2), Ramp(8), Ramp(100), Ramp(4)], 1.0)
    assert value == 1 - 1 / 8
    assert achieved == pytest.approx((4 / 8 + 8 / 8) / 2)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("allowed_ml", VOLUMES_ML)
def test_it_is_the_lowest_that_most_scans_keep(count, allowed_ml):
    scans = [Ramp(peak) for peak in np.random.default_rng(count).uniform(2, 50, count)]
    value, achieved = fit_false_volume(scans, allowed_ml)

    def keep(threshold):
        return sum(scan.called_ml(threshold) <= allowed_ml for scan in scans)

    assert keep(value + 1e-9) > count / 2
    assert keep(value - 1e-9) <= count / 2
    assert achieved <= allowed_ml + 1e-9


def test_one_strange_scan_decides_nothing():
    usual = [Ramp(4)] * 4
    assert fit_false_volume([*usual, Ramp(10**6)], 1.0) == fit_false_volume([*usual, Ramp(4)], 1.0)


def test_it_needs_a_healthy_scan():
    with pytest.raises(DataError, match="healthy"):
        fit_false_volume([], 1.0)
