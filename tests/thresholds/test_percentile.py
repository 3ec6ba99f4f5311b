"""The score of a whole scan, and its place among healthy ones."""

import numpy as np
import pytest

from halebrain.core.provenance import Provenance
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.percentile import place_among_healthy, working_scan_score

BRAIN = np.ones((10, 10, 10), bool)
HALF_ML = (10.0, 10.0, 5.0)  # two voxels are a millilitre


def calibrated(**healthy_scores):
    return Calibration(default="dice", thresholds={}, subjects=(), healthy_scores=healthy_scores)


def test_it_is_the_mean_of_the_highest_millilitre():
    score = np.zeros(BRAIN.shape, np.float32)
    score[2, 3, 4], score[7, 7, 7], score[0, 0, 0] = 0.5, 0.25, 0.125
    assert working_scan_score(score, BRAIN, HALF_ML) == 0.375
    assert working_scan_score(score, BRAIN, (2.0, 2.0, 2.0)) == pytest.approx(0.875 / 125)
    outside = BRAIN.copy()
    outside[2, 3, 4] = False
    assert working_scan_score(score, outside, HALF_ML) == 0.1875


def test_raising_any_voxel_never_lowers_it(rng):
    score = rng.random(BRAIN.shape, dtype=np.float32)
    before = working_scan_score(score, BRAIN, HALF_ML)
    for place in rng.integers(0, 10, (20, 3)):
        higher = score.copy()
        higher[tuple(place)] += 0.5
        assert working_scan_score(higher, BRAIN, HALF_ML) >= before


@pytest.mark.parametrize(("score", "percentile"), [(0.05, 0.0), (0.1, 10.0), (0.25, 40.0), (0.35, 70.0), (0.9, 100.0)])
def test_the_percentile_by_hand(score, percentile):
    level = place_among_healthy(Provenance(), score, calibrated(T1w=(0.1, 0.2, 0.3, 0.35, 0.4)), modality="T1w")
    assert (level.scan_score, level.scan_score_percentile, level.scan_score_n_healthy, level.scan_score_note) == (
        score,
        percentile,
        5,
        None,
    )
    assert level.scan_score_healthy == (0.1, 0.2, 0.3, 0.35, 0.4)


@pytest.mark.parametrize(
    ("calibration", "modality", "n_healthy", "says"),
    [
        (calibrated(T1w=(0.1,) * 5), None, 0, "not known"),
        (calibrated(T1w=(0.1,) * 5), "FLAIR", 0, "0 healthy validation scans are FLAIR, 5 are needed"),
        (calibrated(T1w=(0.1,) * 4), "T1w", 4, "4 healthy validation scans are T1w"),
        (None, "T1w", 0, "0 healthy validation scans are T1w"),
    ],
)
def test_where_there_is_no_percentile_it_says_why(calibration, modality, n_healthy, says):
    level = place_among_healthy(Provenance(), 0.3, calibration, modality=modality)
    assert (level.scan_score_percentile, level.scan_score_n_healthy) == (None, n_healthy)
    assert says in level.scan_score_note
    assert level.scan_score_healthy == ()


def test_many_healthy_scores_are_kept_as_quantiles_with_their_ends_and_their_median(rng):
    scores = tuple(sorted(rng.random(400).round(4).tolist()))
    kept = place_among_healthy(Provenance(), 0.5, calibrated(T1w=scores), modality="T1w").scan_score_healthy
    assert len(kept) == 49
    assert list(kept) == sorted(kept)
    assert (kept[0], kept[-1]) == (scores[0], scores[-1])
    assert kept[24] == pytest.approx(np.median(scores), abs=1e-4)


def test_a_data_set_has_its_own_healthy_scans():
    both = calibrated(T1w=(0.1,) * 5, **{"T1w@ours": (0.9,) * 6})
    assert place_among_healthy(Provenance(), 0.5, both, modality="T1w").scan_score_percentile == 100
    ours = place_among_healthy(Provenance(), 0.5, both, modality="T1w", data_set="ours")
    assert (ours.scan_score_percentile, ours.scan_score_n_healthy) == (0, 6)
    assert (
        "of theirs" in place_among_healthy(Provenance(), 0.5, both, modality="T1w", data_set="theirs").scan_score_note
    )
