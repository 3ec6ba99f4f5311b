"""Thresholds of an adapted model: none is chosen on the scan that it judges."""

from types import SimpleNamespace

import numpy as np
import pytest

from halebrain.adaptation.scores import LeftOutScan, calibrate_left_out, dice_threshold


def scan(subject, scores, labels, *, healthy=False):
    record = SimpleNamespace(subject=subject, is_healthy=healthy, contrast="FLAIR")
    judged = SimpleNamespace(record=record, labels=np.array(labels, bool))
    values = np.array(scores, np.float32)
    return LeftOutScan(judged, values * 0, values)


def test_a_subject_has_no_say_in_its_own_threshold():
    others = [scan("b", [0.1, 0.6, 0.7], [0, 1, 1]), scan("h", [0.9, 0.9], [0, 0], healthy=True)]
    for own in ([0.1, 0.2, 0.3], [0.9, 0.8, 0.95]):
        left_out = [scan("a", own, [0, 1, 1]), *others]
        assert dice_threshold(left_out, without="a") == (pytest.approx(0.6), 1.0)


def test_thresholds_of_healthy_voxels_need_healthy_scans():
    ill = [scan("a", [0.1, 0.2, 0.8], [0, 0, 1]), scan("b", [0.1, 0.6], [0, 1])]
    found = calibrate_left_out(ill, "f" * 64)
    assert set(found.thresholds) == {"dice"}
    assert found.thresholds["dice"].value == pytest.approx(0.6)
    assert found.thresholds["dice"].n_scans == 2
    assert found.thresholds["dice"].modalities == ("FLAIR",)
    assert found.subjects == ("a", "b")
    healthy = scan("h", np.arange(100) / 100, np.zeros(100), healthy=True)
    found = calibrate_left_out([*ill, healthy], "f" * 64)
    assert found.thresholds["fpr:0.05"].value == pytest.approx(0.94, abs=1e-4)
    assert found.thresholds["fpr:0.05"].achieved == pytest.approx(0.05)
    assert found.default == "dice"
