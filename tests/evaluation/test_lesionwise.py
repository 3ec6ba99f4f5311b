"""Lesions found, missed and false, by hand."""

import re

import numpy as np
import pytest

from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.metrics.brats import brats_lesions
from halebrain.evaluation.metrics.lesionwise import found_lesions


def boxes(*corners, shape=(40, 20, 20)):
    """Return a mask of boxes, each (start, stop) along the first axis and 4 voxels wide along the others."""
    mask = np.zeros(shape, bool)
    for start, stop in corners:
        mask[start:stop, 8:12, 8:12] = True
    return mask


@pytest.fixture
def case(make_case):
    # Three true lesions of 4, 2 and 3 voxels in length; the first is found, the others are not; two false ones.
    truth = boxes((2, 6), (14, 16), (30, 33))
    predicted = boxes((5, 8), (22, 24), (37, 39))
    return make_case(truth, mask=predicted, spacing_mm=(5.0, 2.5, 2.5))


def test_by_hand(case):
    volume, found = found_lesions(case)
    np.testing.assert_allclose(volume, [2.0, 1.0, 1.5])
    assert found.tolist() == [True, False, False]
    expected = {
        "lesion_sensitivity": 1 / 3,
        "false_lesions": 2,
        "lesion_f1": 2 / (2 + 2 + 2),
        "lesion_sensitivity_1-10ml": 1 / 3,
    }
    for name, value in expected.items():
        assert METRICS.get(name)(case) == pytest.approx(value), name
    for name in ("lesion_sensitivity_0-0.1ml", "lesion_sensitivity_10ml-"):
        assert np.isnan(METRICS.get(name)(case)), name


def test_voxels_that_meet_at_a_corner_are_one_lesion(make_case):
    truth = np.zeros((9, 9, 9), bool)
    truth[3, 3, 3] = truth[4, 4, 4] = True
    predicted = np.zeros((9, 9, 9), bool)
    predicted[4, 4, 4] = True
    assert METRICS.get("lesion_sensitivity")(make_case(truth, mask=predicted)) == 1


def test_one_prediction_may_find_two_lesions(make_case):
    case = make_case(boxes((2, 6), (10, 14)), mask=boxes((4, 12)))
    assert METRICS.get("lesion_f1")(case) == 1
    assert METRICS.get("false_lesions")(case) == 0


def test_brats_by_hand(make_case):
    # At 1 mm, gaps of up to six voxels close under three dilations: the first two are one lesion.
    truth = boxes((2, 6), (10, 14), (28, 34))
    predicted = boxes((3, 6), (20, 22))
    case = make_case(truth, mask=predicted)
    scores, false = brats_lesions(case)
    assert false == 1
    assert len(scores) == 2
    assert scores[0][0] == pytest.approx(2 * 3 / (3 + 8))
    assert scores[1] == (0.0, 374.0)
    assert METRICS.get("brats2023_lesion_dice")(case) == pytest.approx(scores[0][0] / 3)
    assert METRICS.get("brats2023_lesion_hd95")(case) == pytest.approx((scores[0][1] + 374 + 374) / 3)


def test_brats_leaves_out_true_lesions_of_50_mm3(make_case):
    tiny = np.zeros((20, 20, 20), bool)
    tiny[5:10, 5:10, 5:7] = True  # exactly 50 voxels
    assert METRICS.get("brats2023_lesion_dice")(make_case(tiny, mask=np.zeros_like(tiny))) == 1
    assert METRICS.get("brats2023_lesion_hd95")(make_case(tiny, mask=np.zeros_like(tiny))) == 0
    for name, value in (("brats2023_lesion_dice", 1), ("brats2023_lesion_hd95", 0)):
        assert re.search(rf"up to 50 mm³ do not count.*all missed, scores {value}$", METRICS.get(name).says)
    tiny[5, 5, 7] = True
    assert METRICS.get("brats2023_lesion_dice")(make_case(tiny, mask=np.zeros_like(tiny))) == 0


def test_brats_calls_nothing_against_nothing_perfect(make_case):
    nothing, something = np.zeros((12, 12, 12), bool), boxes((2, 6), shape=(12, 20, 20))
    assert METRICS.get("brats2023_lesion_dice")(make_case(nothing, mask=nothing)) == 1
    assert METRICS.get("brats2023_lesion_hd95")(make_case(nothing, mask=nothing)) == 0
    empty = np.zeros_like(something)
    assert METRICS.get("brats2023_lesion_dice")(make_case(empty, mask=something)) == 0
    assert METRICS.get("brats2023_lesion_hd95")(make_case(empty, mask=something)) == 374
