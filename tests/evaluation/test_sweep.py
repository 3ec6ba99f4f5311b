"""The sweep over the weight finds the one that is known to be best."""

import numpy as np
import pytest

from halebrain.evaluation.sweep import WEIGHTS, FusionSweep, best_point, sweep_tsv

LESION = np.array([True, True, False, False])


def fuse_by(residual, probability):
    return lambda weight: np.asarray(weight * np.array(residual) + (1 - weight) * np.array(probability), np.float32)


def test_the_known_best_weights_are_chosen():
    sweep = FusionSweep()
    # Each part is misled by one voxel: 0.4 + 0.6 β > 0.7 − 0.7 β and its mirror image hold for 0.23 < β < 0.77 only.
    sweep.add("seen", fuse_by([1.0, 0.4, 0.7, 0.0], [0.4, 1.0, 0.0, 0.7]), LESION)
    # Unseen: the residual alone is right, and the segmenter turns the order around.
    sweep.add("unseen", fuse_by([1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]), LESION)
    points = sweep.finish()
    assert [p.weight for p in points if p.group == "seen"] == list(WEIGHTS)
    seen, unseen = best_point(points, "seen"), best_point(points, "unseen")
    assert seen is not None
    assert unseen is not None
    auprc = {p.weight: p.auprc for p in points if p.group == "seen"}
    assert auprc[0.0] == auprc[1.0] == pytest.approx((1 + 2 / 3) / 2)
    assert [weight for weight in WEIGHTS if auprc[weight] == 1] == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert seen.weight == 0.5
    auprc = {p.weight: p.auprc for p in points if p.group == "unseen"}
    assert auprc[0.0] == pytest.approx(0.5)
    assert auprc[0.5] == pytest.approx(0.5)
    assert all(auprc[weight] == 1 for weight in WEIGHTS if weight > 0.5)
    assert unseen.weight == 0.6
    assert (unseen.auprc, unseen.best_dice, unseen.n_scans) == (1.0, 1.0, 1)
    assert best_point(points, "other") is None


def test_scans_are_pooled_and_a_group_without_lesion_is_left_out():
    sweep = FusionSweep([0.0, 1.0])
    for part in ([0.9, 0.8, 0.1, 0.2], [0.5, 0.4, 0.85, 0.1]):
        sweep.add("seen", fuse_by(part, [1.0, 1.0, 0.0, 0.0]), LESION)
    sweep.add("unseen", fuse_by([0.5] * 4, [0.5] * 4), np.zeros(4, bool))
    points = sweep.finish()
    assert {p.group for p in points} == {"seen"}
    assert points[0].auprc == 1
    assert points[1].auprc == pytest.approx((1 + 2 / 3 + 3 / 4 + 4 / 5) / 4)  # 0.9, (0.85), 0.8, 0.5, 0.4
    assert points[0].n_scans == 2
    assert sweep_tsv(points).splitlines()[1] == "seen\t0\t1\t1\t2"
