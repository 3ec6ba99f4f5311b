"""The curve against hand-made values, scikit-learn and brute force; pooled over scans as if they were one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from halebrain.evaluation.curve import Curve, PooledCurve


def draw(seed, size, levels):
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, levels, size) / levels).astype(np.float32)
    reference = rng.random(size) < 0.05 + 0.3 * score
    reference[0] = True
    return score, reference


def test_operating_points_by_hand():
    score = np.array([0.2, 0.5, 0.5, 0.9, 0.2], np.float32)
    curve = Curve.of(score, np.array([True, True, False, False, False]))
    np.testing.assert_allclose(curve.thresholds, [0.5, 0.2])
    assert curve.true.tolist() == [1, 2]
    assert curve.false.tolist() == [2, 3]
    assert curve.false_above.tolist() == [1, 2]
    assert curve.n_negative == 3


@pytest.mark.parametrize("levels", [2, 3, 11, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_scikit_learn_ties_included(levels, seed):
    score, reference = draw(seed, 3000, levels)
    curve = Curve.of(score, reference)
    assert curve.average_precision == pytest.approx(average_precision_score(reference, score), abs=1e-9)
    assert curve.auroc == pytest.approx(roc_auc_score(reference, score), abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_best_dice_equals_brute_force(seed):
    rng = np.random.default_rng(seed)
    score, reference = draw(seed, int(rng.integers(2, 25)), int(rng.integers(2, 12)))
    dices = {}
    for threshold in np.unique(score):
        called = score >= threshold
        dices[float(threshold)] = 2 * (called & reference).sum() / (called.sum() + reference.sum())
    best = max(dices.values())
    dice, threshold = Curve.of(score, reference).best_dice
    assert dice == pytest.approx(best, abs=1e-12)
    assert threshold == max(t for t, d in dices.items() if d == pytest.approx(best, abs=1e-12))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), levels=st.integers(2, 50), cuts=st.lists(st.integers(1, 299), max_size=4))
def test_pooling_does_not_depend_on_how_scans_are_cut(seed, levels, cuts):
    score, reference = draw(seed, 300, levels)
    pooled = PooledCurve()
    for piece in np.split(np.arange(300), sorted(set(cuts))):
        pooled.add(score[piece], reference[piece])
    found, whole = pooled.finish(), Curve.of(score, reference)
    for name in ("thresholds", "true", "false", "false_above", "n_negative"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_scans_with_fewer_scores_than_thresholds_are_counted_one_by_one():
    pooled = PooledCurve()
    pooled.add(np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32), np.ones(5, bool))
    pooled.add(np.array([0.2, 0.6], np.float32), np.zeros(2, bool))
    pooled.add(np.array([0.05, 0.3, 0.3, 0.35, 0.1, 0.5], np.float32), np.zeros(6, bool))
    curve = pooled.finish()
    assert curve.true.tolist() == [1, 2, 3, 4, 5]
    # Scores of 0.5, 0.4, 0.3, 0.2, 0.1 and more, and above them.
    assert curve.false.tolist() == [2, 2, 5, 6, 7]
    assert curve.false_above.tolist() == [1, 2, 3, 5, 6]


def test_order_and_flips_do_not_matter():
    score, reference = draw(1, 500, 7)
    shuffled = np.random.default_rng(2).permutation(500)
    one, two = Curve.of(score, reference), Curve.of(score[shuffled], reference[shuffled])
    assert (one.average_precision, one.auroc, one.best_dice) == (two.average_precision, two.auroc, two.best_dice)


def test_monotone_changes_of_the_score_do_not_matter():
    score, reference = draw(3, 500, 9)
    one, two = Curve.of(score, reference), Curve.of(np.exp(3 * score) - 5, reference)
    assert one.average_precision == two.average_precision
    assert one.auroc == two.auroc


def test_all_tied_gives_prevalence_and_chance():
    curve = Curve.of(np.full(10, 0.3, np.float32), np.arange(10) < 3)
    assert curve.average_precision == pytest.approx(0.3)
    assert curve.auroc == pytest.approx(0.5)


def test_what_cannot_be_measured_is_said():
    ones = np.ones(4, np.float32)
    assert np.isnan(Curve.of(ones, np.ones(4, bool)).auroc)
    with pytest.raises(ValueError, match="needs lesion"):
        Curve.of(ones, np.zeros(4, bool))
    with pytest.raises(ValueError, match="finite"):
        Curve.of(np.array([0.1, np.nan], np.float32), np.array([True, False]))
    with pytest.raises(ValueError, match="not empty"):
        Curve.of(np.zeros(0, np.float32), np.zeros(0, bool))


def test_points_for_a_figure_end_where_the_curve_ends():
    score, reference = draw(4, 5000, 100_000)
    recall, precision = Curve.of(score, reference).points(50)
    assert len(recall) <= 50
    assert recall[-1] == 1
    assert (np.diff(recall) > 0).all()
    assert precision[-1] == pytest.approx(Curve.of(score, reference).true[-1] / (score >= score[reference].min()).sum())
