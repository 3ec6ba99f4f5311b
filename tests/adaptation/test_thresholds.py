"""Thresholds of an adapted model: none is chosen on the scan that it judges."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from halebrain.adaptation.run import Adapter
from halebrain.adaptation.scores import BeforeAndAfter, LeftOutScan, calibrate_left_out, dice_threshold
from halebrain.inference.scans import AnnotatedScan
from halebrain.io.manifest import Manifest, ScanRecord

NAMES = ("adapted", "before")


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


def test_contrasts_that_nobody_annotated_lose_their_thresholds_with_a_word():
    tables = {name: {"ml:1": {}} for name in ("FLAIR", "T1w", "T2w", "FLAIR+T1w")}
    before = SimpleNamespace(calibration={"thresholds": {"ml:1": {}}, "modalities": tables})
    adapter = SimpleNamespace(bundle=before, notes=[])
    annotated = Manifest((ScanRecord("a", Path("x"), "FLAIR", pathology="ms"),))
    Adapter._calibration(adapter, [scan("a", [0.1, 0.2, 0.8], [0, 0, 1])], annotated)
    first, second = adapter.notes
    assert first.startswith("thresholds ml:1 belonged to the old scores")
    assert second.startswith("T1w, T2w: the thresholds are removed, too")


def test_a_model_that_stays_as_it_was_has_the_same_figures_before_and_after():
    point = {"method": "", "split": "val", "manifest_sha256": "0", "n_scans": 2, "achieved": 0.0, "value": 0.5}
    kept = {"default": "ml:1", "thresholds": {"ml:1": point}, "subjects": ["v"]}
    grid, brain = SimpleNamespace(affine=np.eye(4)), np.ones((4, 4, 1), bool)
    predictor = SimpleNamespace(
        seed=0, levels=(1,), postprocessing=SimpleNamespace(min_lesion_mm3=0), bundle=SimpleNamespace(sha256="m")
    )
    scans = []
    for subject in "ab":
        score = np.linspace(0, 0.9, 16, dtype=np.float32).reshape(brain.shape)
        record = ScanRecord(subject, Path("x"), "FLAIR", pathology="ms")
        working = SimpleNamespace(brain_mask=brain, grid=grid, image=score)
        judged = AnnotatedScan(record, working, score > (0.2 if subject == "a" else 0.7))
        scans.append(LeftOutScan(judged, score[brain], score[brain]))
    rows = BeforeAndAfter(predictor, kept, kept, identity="i").left_out(scans).rows
    dices = {method: [r.value for r in rows if (r.method, r.metric) == (method, "dice")] for method in NAMES}
    assert dices["adapted"] == dices["before"]
    # Thresholds that were chosen again are chosen without each.
    again = kept | {"default": "dice", "thresholds": {"dice": point}}
    rows = BeforeAndAfter(predictor, kept, again, identity="i").left_out(scans).rows
    dices = {method: [r.value for r in rows if (r.method, r.metric) == (method, "dice")] for method in NAMES}
    assert dices["adapted"] != dices["before"]
