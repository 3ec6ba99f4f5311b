"""What is called in a healthy scan, and the lowest threshold that keeps it small: by hand and by brute force."""

import numpy as np
import pytest

from halebrain.core.mask import Cut, to_mask
from halebrain.core.types import ScanResult
from halebrain.thresholds.fit import by_dice_of
from halebrain.thresholds.scored_map import LOWEST_THRESHOLD, ScoredMap


def healthy(score, brain_mask=None, *, voxel_mm3=100.0, min_lesion_mm3=0.0):
    score = np.asarray(score, dtype=np.float32)
    score = score.reshape(-1, 1, 1) if score.ndim == 1 else score
    brain_mask = np.ones(score.shape, bool) if brain_mask is None else brain_mask
    about = {"voxel_mm3": voxel_mm3, "min_lesion_mm3": min_lesion_mm3}
    return ScoredMap(score, brain_mask, modality="T1w", scan_score=0.0, **about)


def just_above(value):
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


# Voxels of 0.1 ml.
@pytest.mark.parametrize(
    ("allowed_ml", "expected"),
    [
        (0.0, just_above(0.9)),
        (0.1, just_above(0.7)),
        (0.25, just_above(0.5)),
        (0.4, just_above(0.2)),  # the ties at 0.5 come together: four voxels are called at 0.5
        (0.3, just_above(0.5)),  # not three of them
        (0.5, LOWEST_THRESHOLD),
    ],
)
def test_the_lowest_threshold_by_hand(allowed_ml, expected):
    scan = healthy([0, 0.2, 0.5, 0.5, 0.7, 0.9, 0])
    assert scan.lowest_threshold(allowed_ml) == expected


def test_the_called_volume_by_hand():
    scan = healthy([0, 0.2, 0.5, 0.5, 0.7, 0.9, 0])
    assert [scan.marked_ml(t) for t in (0.1, 0.5, 0.6, 0.9, 0.95)] == pytest.approx([0.5, 0.4, 0.2, 0.1, 0.0])


def test_pieces_that_detect_would_drop_do_not_count():
    # A peak alone, and three voxels in a row: with pieces of 200 mm³ and more kept, the peak is never called.
    scan = healthy([0.9, 0, 0.4, 0.6, 0.5, 0], min_lesion_mm3=200)
    assert [scan.marked_ml(t) for t in (0.3, 0.45, 0.55, 0.8)] == pytest.approx([0.3, 0.2, 0.0, 0.0])
    assert scan.lowest_threshold(0.1) == just_above(0.5)
    assert scan.lowest_threshold(0.2) == just_above(0.4)
    assert scan.lowest_threshold(0.3) == LOWEST_THRESHOLD
    assert healthy([0.9, 0, 0.4, 0.6, 0.5, 0]).lowest_threshold(0.1) == just_above(0.6)


@pytest.mark.parametrize("smallest", [0.0, 500.0])
def test_a_scan_without_any_score_is_silent_at_every_threshold(smallest):
    scan = healthy(np.zeros((4, 5, 6)), min_lesion_mm3=smallest)
    assert scan.lowest_threshold(0.1) == LOWEST_THRESHOLD
    assert scan.marked_ml(LOWEST_THRESHOLD) == 0


def test_a_plateau_at_the_very_top_is_passed_by_a_threshold_above_it():
    scan = healthy(np.ones(50))
    assert scan.lowest_threshold(1.0) == just_above(1.0)
    assert scan.marked_ml(scan.lowest_threshold(1.0)) == 0


@pytest.mark.parametrize("smallest", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("levels", [6, 10**6])
@pytest.mark.parametrize("seed", range(4))
def test_the_lowest_threshold_equals_brute_force(seed, levels, smallest):
    rng = np.random.default_rng(seed)
    brain = np.zeros((9, 10, 8), bool)
    brain[1:8, 2:9, 1:7] = rng.random((7, 7, 6)) < 0.8
    score = np.where(brain, rng.integers(0, levels, brain.shape) / levels, 0).astype(np.float32)
    scan = healthy(score, brain, voxel_mm3=1.0, min_lesion_mm3=smallest)

    def called(threshold):
        return int((brain & to_mask(score, Cut(threshold, smallest), voxel_mm3=1.0)).sum())

    for allowed in (0, 3, 20, 100, 10**4):
        found = scan.lowest_threshold(allowed / 1000)
        assert scan.marked_ml(found) * 1000 == pytest.approx(called(found))
        assert called(found) <= allowed
        # Every step of the score below it calls too much.
        assert all(called(step) > allowed for step in np.unique(score[score > 0]) if step < found)


def test_lesion_outside_the_brain_mask_counts_as_missed():
    brain, lesion = (np.array(voxels, bool).reshape(-1, 1, 1) for voxels in ([1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]))
    score = np.float32([0.1, 0.1, 0.9, 0.9, 0, 0]).reshape(-1, 1, 1)
    about = {"voxel_mm3": 100.0, "min_lesion_mm3": 0.0, "modality": "T1w", "scan_score": 0.0}
    scan = ScoredMap(score, brain, lesion=lesion, **about)
    for found in (scan.found(0.5), scan.grown(0.2).found(0.5)):
        assert (found.marked_ml, found.overlap_ml, found.lesion_ml) == pytest.approx((0.2, 0.2, 0.4))
        assert found.dice == pytest.approx(2 * 0.2 / 0.6)
    # Six voxels of brain and lesion, of which two are found and two never can be.
    (best,) = by_dice_of([scan], split="val", manifest_sha256="").values()
    assert best.value == pytest.approx(0.9)
    assert best.achieved == pytest.approx(2 * 2 / (2 + 4))


def test_the_best_dice_considers_lesion_that_is_always_missed():
    # Of the brain alone, 0.9 (Dice 2/3 against 4/7 at 0.1); with 8 voxels outside it, 0.1 (4/15 against 2/11).
    brain, lesion = (
        np.array(voxels, bool).reshape(-1, 1, 1) for voxels in ([1] * 5 + [0] * 8, [0, 0, 0, 1, 1] + [1] * 8)
    )
    score = np.float32([0.1, 0.1, 0.1, 0.1, 0.9] + [0] * 8).reshape(-1, 1, 1)
    about = {"voxel_mm3": 100.0, "min_lesion_mm3": 0.0, "modality": "T1w", "scan_score": 0.0}
    assert by_dice_of([ScoredMap(score, brain, lesion=lesion, **about)], split="val", manifest_sha256="")[
        "dice"
    ].value == pytest.approx(0.1)


def test_of_takes_the_grid_from_the_result():
    empty = np.zeros((3, 4, 5), np.float32)
    score = empty.copy()
    score[1, 1:3, 1] = 0.5
    affine = np.array([[0, 2.0, 0, 0], [-1.5, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])  # 9 mm³, axes turned
    result = ScanResult(score, *[empty] * 4, brain_mask=np.ones(empty.shape, bool), affine=affine)
    scan = ScoredMap.of(result, min_lesion_mm3=0.0, modality="FLAIR", scan_score=0.5)
    assert scan.marked_ml(0.5) == pytest.approx(0.018)
    assert (scan.modality, scan.scan_score) == ("FLAIR", 0.5)
