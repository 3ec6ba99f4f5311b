"""Slices and scans as units, and the reliability of scores."""

import numpy as np
import pytest

from halebrain.evaluation.case import axial_axis
from halebrain.evaluation.set_level import ImageLevel, Reliability, scan_score, slice_scores


def test_the_score_of_a_scan_is_the_mean_of_its_highest_millilitre(make_case):
    score = np.zeros((20, 20, 20), np.float32)
    score[0, 0, 0] = 1.0  # a hot voxel alone is 0.001 ml
    score[5:10, 5:15, 5:15] = 0.5  # 500 voxels = 0.5 ml
    case = make_case(np.zeros(score.shape, bool), score=score)
    assert scan_score(case) == pytest.approx((1 + 500 * 0.5) / 1000)


def test_slices_lie_along_the_axial_axis(make_case):
    score, truth = np.zeros((4, 5, 6), np.float32), np.zeros((4, 5, 6), bool)
    score[1], truth[2, 3, 3] = 1.0, True
    region = np.ones((4, 5, 6), bool)
    region[3] = False
    scores, labels = slice_scores(make_case(truth, score=score, region=region, axial_axis=0))
    np.testing.assert_allclose(scores, [0, 1, 0])
    assert labels.tolist() == [False, False, True]


@pytest.mark.parametrize(("degrees", "expected"), [(0, 1), (30, 1), (-30, 1), (60, 2)])
def test_the_axial_axis_is_the_one_nearest_to_upright_however_thick_the_slices_are(degrees, expected):
    # Coronal slices of 6 mm, of which the second axis runs upwards, nodded: the voxel's side must not count.
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    nodded = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 6, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert axial_axis(nodded @ coronal) == expected


def test_scans_and_slices_of_a_set(make_case):
    level = ImageLevel()
    for value, ill in ((0.9, True), (0.2, False), (0.5, True), (0.6, False)):
        score = np.full((4, 4, 4), value, np.float32)
        truth = np.zeros((4, 4, 4), bool)
        truth[:, :, :2] = ill
        level.add(make_case(truth, score=score))
    found = level.finish()
    assert found["scan_auroc"] == pytest.approx(3 / 4)
    assert found["scan_auprc"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert set(found) == {"scan_auroc", "scan_auprc", "slice_auroc", "slice_auprc"}


def test_a_set_without_healthy_scans_has_no_scan_level(make_case):
    level = ImageLevel()
    level.add(make_case([True, False], score=[0.9, 0.1]))
    assert "scan_auroc" not in level.finish()
    assert ImageLevel().finish() == {}


def test_reliability_by_hand():
    reliability = Reliability()
    reliability.add(np.array([0.1, 0.1, 0.1, 0.1]), np.array([True, False, False, False]))
    reliability.add(np.array([0.9, 1.0]), np.array([True, True]))
    score, share, count = reliability.curve()
    np.testing.assert_allclose(score, [0.1, 0.9, 1.0])
    np.testing.assert_allclose(share, [0.25, 1, 1])
    assert count.tolist() == [4, 1, 1]
    expected = (4 * 0.15 + 1 * 0.1 + 1 * 0.0) / 6
    assert reliability.expected_error == pytest.approx(expected)


def test_a_score_that_is_its_own_probability_has_no_error():
    rng = np.random.default_rng(0)
    score = rng.random(200_000)
    reliability = Reliability()
    reliability.add(score, rng.random(200_000) < score)
    assert reliability.expected_error < 0.01


def test_scores_outside_of_0_and_1_are_no_probabilities():
    with pytest.raises(ValueError, match="probabilities"):
        Reliability().add(np.array([1.2]), np.array([True]))
