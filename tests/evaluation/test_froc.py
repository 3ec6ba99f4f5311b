"""FROC by hand: two scans, three lesions, candidates of different certainty."""

import numpy as np
import pytest

from halebrain.evaluation.set_level import Froc


def row(*pieces):
    """Return a row of 30 voxels with `value` from start to stop for each piece."""
    values = np.zeros(30, np.float32)
    for start, stop, value in pieces:
        values[start:stop] = value
    return values


@pytest.fixture
def froc(make_case):
    froc = Froc()
    # Lesions at 2–5 and 10–13; candidates: one that touches the first (0.9), two false (0.95 and 0.4).
    score = row((4, 7, 0.9), (16, 18, 0.95), (22, 24, 0.4))
    froc.add(make_case(row((2, 5, 1), (10, 13, 1)), score=score, mask=score > 0.3))
    # One lesion, touched by two candidates (0.6 and 0.7); one false (0.5).
    score = row((3, 5, 0.6), (6, 8, 0.7), (20, 22, 0.5))
    froc.add(make_case(row((4, 7, 1)), score=score, mask=score > 0.3))
    return froc


def test_by_hand(froc):
    assert sorted(froc.found) == pytest.approx([-np.inf, 0.7, 0.9])
    assert sorted(froc.false) == pytest.approx([0.4, 0.5, 0.95])
    rate, sensitivity = froc.curve()
    np.testing.assert_allclose(rate, [0, 0.5, 0.5, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(sensitivity, [0, 0, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert froc.sensitivity_at(0.4) == 0
    assert froc.sensitivity_at(0.5) == pytest.approx(2 / 3)
    assert froc.sensitivity_at(4) == pytest.approx(2 / 3)


@pytest.mark.parametrize("peaks", [(0.6, 0.7), (0.7, 0.6)])
def test_a_lesion_has_the_peak_of_its_most_confident_candidate_whatever_their_order(make_case, peaks):
    froc = Froc()
    score = row((3, 5, peaks[0]), (6, 8, peaks[1]))
    froc.add(make_case(row((4, 7, 1)), score=score, mask=score > 0.3))
    assert froc.found == pytest.approx([0.7])
    assert froc.false == []


def test_more_false_lesions_never_lower_the_sensitivity(froc):
    rate, sensitivity = froc.curve()
    assert (np.diff(rate) >= 0).all()
    assert (np.diff(sensitivity) >= 0).all()


def test_a_scan_without_candidates_misses_all(make_case):
    froc = Froc()
    froc.add(make_case(row((2, 5, 1)), score=np.zeros(30), mask=np.zeros(30, bool)))
    assert froc.sensitivity_at(1.0) == 0


def test_small_lesions_apart(make_case):
    froc = Froc()
    # Voxels of 0.1 ml: a lesion of 0.3 ml and one of 1 ml, which is not small; one false candidate.
    score = row((3, 5, 0.6), (12, 14, 0.7), (26, 28, 0.65))
    case = make_case(row((2, 5, 1), (10, 20, 1)), score=score, mask=score > 0.3, spacing_mm=(10, 10, 1))
    froc.add(case)
    other = Froc()
    other.add(case)
    froc.take(other)
    assert froc.volumes_ml == pytest.approx([0.3, 1.0] * 2)
    assert froc.small().found == pytest.approx([0.6, 0.6])
    assert froc.small().scans == 2
    assert froc.sensitivity_at(0.5) == froc.small().sensitivity_at(0.5) + 0.5  # 0.7 is above the false candidate
    assert froc.small().sensitivity_at(1.0) == 1
