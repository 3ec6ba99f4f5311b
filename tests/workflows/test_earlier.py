"""What of an earlier result keeps it from being taken for finished, and how that is said."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from halebrain.core.errors import CannotWriteError
from halebrain.core.modality import find_contrast
from halebrain.core.provenance import Provenance, QualityReport
from halebrain.workflows.detector import judge_quality
from halebrain.workflows.earlier import differences, refuse_different

DONE = Provenance(input="a.nii", input_sha256="0", input_space="native", seed=0, levels=(300,), unstated=frozenset())


def test_each_setting_that_changes_a_result_is_compared():
    assert differences(DONE, DONE) == []
    changed = {"input_sha256": "1", "brain_mask_sha256": "2", "seed": 1, "levels": (400,), "precision": "bf16"}
    for name, value in changed.items():
        assert len(differences(DONE, replace(DONE, **{name: value}))) == 1
    assert differences(DONE, replace(DONE, seed=1, draws=2)) == ["seed", "number of draws"]


def test_what_an_older_result_does_not_state_cannot_differ():
    asked = replace(DONE, input_space="MNI152NLin2009aSym")
    assert differences(DONE, asked) == ["space of the scan"]
    assert differences(replace(DONE, unstated=frozenset({"input_space"})), asked) == []


def test_filling_is_compared_where_it_is_asked_for():
    filled = replace(DONE, fill_margin_mm=2.0)
    assert differences(filled, DONE) == []
    assert differences(DONE, filled) == ["margin of the filling"]


def test_what_differs_is_said_once(tmp_path):
    refuse_different("results", [], tmp_path)
    with pytest.raises(CannotWriteError, match="got another seed and another threshold"):
        refuse_different("results", ["seed", "threshold", "seed"], tmp_path)


def test_a_residual_that_needs_a_placement_is_flagged_where_there_is_none():
    """Scans alone and those of an exam are judged by the same function."""
    flags = {}
    for needs in (False, True):
        postprocessing = SimpleNamespace(needs_healthy_map=needs)
        bundle = SimpleNamespace(limits={})
        predictor = SimpleNamespace(bundle=bundle, postprocessing=postprocessing, has_evidence=lambda _: True)
        contrast = find_contrast("T1w", None, "", None)
        flags[needs] = judge_quality(predictor, QualityReport(registration_failed=True), ["a note"], contrast).flags
    assert flags[False] == ("a note",)
    assert "compared with healthy scans at wrong places" in flags[True][1]
