"""Which contrast a scan has: said by the user, the manifest, its name, or seen in the image, in this order."""

from pathlib import Path

import pytest

from halebrain.core.errors import UsageError
from halebrain.core.modality import ScanContrast, find_contrast, modality_of_scan, standard_modality
from halebrain.core.provenance import QualityReport
from halebrain.inference.scans import find_scans
from halebrain.io.manifest import ScanRecord
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import check_modality
from halebrain.workflows.detector import known_limit


@pytest.mark.parametrize(
    ("asked", "name", "in_manifest", "expected"),
    [
        ("T1w", "sub-01_FLAIR", "FLAIR", ScanContrast("T1w", "option")),
        ("auto", "sub-01_FLAIR", "t2", ScanContrast("T2w", "manifest")),
        ("auto", "sub-01_FLAIR", None, ScanContrast("FLAIR", "file name")),
        ("auto", "patient4_t1_mprage", None, ScanContrast("T1w", "file name")),
        ("auto", "scan0001", None, ScanContrast("T2w", "image")),
    ],
)
def test_what_is_said(asked, name, in_manifest, expected):
    found = find_contrast(asked, in_manifest, name, "T2w")
    assert found == expected
    assert found.declared == (None if expected.known_from == "image" else expected.name)


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("T2w", ScanContrast("T2w", "image")),
        ("unknown", ScanContrast(None, "nothing")),
        (None, ScanContrast(None, "nothing")),
    ],
)
def test_what_is_seen(contrast, expected):
    inferred = QualityReport(contrast=contrast).inferred_contrast
    assert find_contrast("auto", None, "scan0001", inferred) == expected


def test_a_bids_suffix_goes_before_the_words_in_other_entities():
    assert modality_of_scan("sub-01_acq-t2prep_T1w") == "T1w"
    assert modality_of_scan("sub-01_ses-2_acq-flair_image") == "FLAIR"
    assert modality_of_scan("sub-01_image") is None
    assert (standard_modality("t1"), standard_modality("random")) == ("T1w", "random")
    assert (standard_modality("AX T1 FLAIR"), standard_modality("T2 FLAIR")) == ("T1w", "FLAIR")


def test_the_contrasts_of_an_exam_stay_several():
    exam = ScanRecord("p", Path("p.nii.gz"), "FLAIR+T1w")
    assert (exam.contrast, exam.scan_id) == ("FLAIR+T1w", "sub-p_FLAIR+T1w")
    assert standard_modality("t1+flair") == "FLAIR+T1w"
    assert standard_modality("T1+Gd") == "T1w", "a contrast agent is no second contrast"


def test_a_modality_that_is_none_is_refused():
    own = Calibration(default="d", thresholds={}, subjects=(), healthy_scores={"PDw@ours": (0.1,)})
    for known in ("auto", "T1w", "T2w", "FLAIR", "T1ce"):
        check_modality(known, None)
    check_modality("PDw", own)
    with pytest.raises(UsageError, match="T1w, T2w, FLAIR"):
        check_modality("PDw", None)
    with pytest.raises(UsageError, match="'t1'"):
        check_modality("t1", own)


def test_a_manifest_gives_the_modality(small_cohort):
    manifest = small_cohort([("a", "T2w", "test", "healthy")])
    assert [scan.modality for scan in find_scans(manifest)] == ["T2w"]
    assert find_scans(manifest.parent / "sub-a_T2w.nii.gz")[0].modality is None


@pytest.mark.parametrize(("modality", "flagged"), [("T1w", True), ("T1ce", True), ("FLAIR", False), (None, False)])
def test_what_a_model_does_badly_is_flagged_on_such_scans_only(modality, flagged):
    line = known_limit({"T1w": "misses most"}, ScanContrast(modality, "image"))
    assert line == ("known limit of the model on T1w: misses most" if flagged else None)
