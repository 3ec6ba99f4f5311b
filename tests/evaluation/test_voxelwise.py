"""Voxel metrics against hand-made values, scikit-learn and brute force."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.metrics.voxelwise import average_precision, best_dice, precision_recall_counts

SCORE = np.array([0.9, 0.8, 0.3, 0.1], dtype=np.float32)
REFERENCE = np.array([True, False, True, False])
MASK = np.array([True, True, False, True])
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
        ("volume_error", 0.010),
        ("false_positive_volume", 0.020),
    ],
)
def test_four_voxels_by_hand(name: str, expected: float) -> None:
    metric = METRICS.get(name)
    prediction = SCORE if metric.needs == "score" else MASK
    value = metric(prediction=prediction, reference=REFERENCE, spacing_mm=SPACING)
    assert value == pytest.approx(expected, abs=1e-12)


def test_missing_volume_is_a_negative_error() -> None:
    metric = METRICS.get("volume_error")
    nothing = np.zeros(4, dtype=bool)
    assert metric(prediction=nothing, reference=REFERENCE, spacing_mm=SPACING) == pytest.approx(-0.020)


@pytest.mark.parametrize("levels", [2, 3, 11, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_areas_equal_scikit_learn_ties_included(levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, levels, 3000) / levels).astype(np.float32)
    reference = rng.random(3000) < 0.05 + 0.3 * score
    kwargs = {"prediction": score, "reference": reference, "spacing_mm": (1.0, 1.0, 1.0)}
    assert METRICS.get("auprc")(**kwargs) == pytest.approx(average_precision_score(reference, score), abs=1e-9)
    assert METRICS.get("auroc")(**kwargs) == pytest.approx(roc_auc_score(reference, score), abs=1e-9)


def test_all_tied_gives_prevalence_and_chance() -> None:
    score, reference = np.full(10, 0.3, dtype=np.float32), np.arange(10) < 3
    assert average_precision(score, reference) == pytest.approx(0.3)
    assert METRICS.get("auroc")(prediction=score, reference=reference, spacing_mm=(1, 1, 1)) == pytest.approx(0.5)


def test_order_of_voxels_is_irrelevant() -> None:
    rng = np.random.default_rng(0)
    score = (rng.integers(0, 4, 200) / 4).astype(np.float32)
    reference = rng.random(200) < 0.3
    shuffled = rng.permutation(200)
    assert average_precision(score, reference) == average_precision(score[shuffled], reference[shuffled])
    assert best_dice(score, reference) == best_dice(score[shuffled], reference[shuffled])


def test_counts_at_each_distinct_score() -> None:
    score = np.array([0.2, 0.5, 0.5, 0.9, 0.2], dtype=np.float32)
    reference = np.array([True, True, False, False, False])
    values, true, false = precision_recall_counts(score, reference)
    np.testing.assert_allclose(values, [0.9, 0.5, 0.2])
    assert true.tolist() == [0, 1, 2]
    assert false.tolist() == [1, 2, 3]


@pytest.mark.parametrize("seed", range(30))
def test_best_dice_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = (rng.integers(0, rng.integers(2, 12), rng.integers(2, 25)) / 12).astype(np.float32)
    reference = rng.random(score.size) < 0.4
    reference[0] = True
    dices = {}
    for threshold in np.unique(score):
        called = score >= threshold
        dices[float(threshold)] = 2 * (called & reference).sum() / (called.sum() + reference.sum())
    best = max(dices.values())
    dice, threshold = best_dice(score, reference)
    assert dice == pytest.approx(best, abs=1e-12)
    assert threshold == max(t for t, d in dices.items() if d == pytest.approx(best, abs=1e-12))


def test_roc_without_a_negative_is_undefined() -> None:
    value = METRICS.get("auroc")(prediction=SCORE, reference=np.ones(4, dtype=bool), spacing_mm=SPACING)
    assert np.isnan(value)
