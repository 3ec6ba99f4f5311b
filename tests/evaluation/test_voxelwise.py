"""Voxel metrics against hand-made values."""

import numpy as np
import pytest

from halebrain.evaluation.metrics import METRICS

SCORE = [0.9, 0.8, 0.3, 0.1]
REFERENCE = [True, False, True, False]
MASK = [True, True, False, True]
SPACING = (2.0, 2.0, 2.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auprc", 0.5 * 1 + 0.5 * 2 / 3),
        ("auroc", 3 / 4),
        ("dice_oracle_per_scan", 4 / 5),
        ("dice", 2 * 1 / (3 + 2)),
        ("precision", 1 / 3),
        ("recall", 1 / 2),
        ("specificity", 0 / 2),
        ("volume_error", 0.010),
        ("false_positive_volume", 0.020),
    ],
)
def test_four_voxels_by_hand(make_case, name, expected):
    case = make_case(REFERENCE, score=SCORE, mask=MASK, spacing_mm=SPACING)
    assert METRICS.get(name)(case) == pytest.approx(expected, abs=1e-7)


def test_false_volume_near_the_ventricles_is_counted_apart(make_case):
    near = np.array([True, True, True, False]).reshape(-1, 1, 1)
    case = make_case(REFERENCE, mask=MASK, near_ventricles=near, spacing_mm=SPACING)
    metric = METRICS.get("false_positive_volume_near_ventricles")
    assert metric(case) == pytest.approx(0.010)  # the second voxel; the fourth lies elsewhere
    assert np.isnan(metric(make_case(REFERENCE, mask=MASK, near_ventricles=None)))


def test_missing_volume_is_a_negative_error(make_case):
    case = make_case(REFERENCE, mask=np.zeros(4, bool), spacing_mm=SPACING)
    assert METRICS.get("volume_error")(case) == pytest.approx(-0.020)


def test_voxels_outside_the_region_do_not_count(make_case):
    region = [True, True, True, False]
    case = make_case(REFERENCE, score=SCORE, mask=MASK, region=region)
    assert METRICS.get("precision")(case) == pytest.approx(1 / 2)
    assert METRICS.get("auroc")(case) == pytest.approx(1 / 2)


def test_roc_without_a_negative_is_undefined(make_case):
    assert np.isnan(METRICS.get("auroc")(make_case(np.ones(4, bool), score=SCORE)))
