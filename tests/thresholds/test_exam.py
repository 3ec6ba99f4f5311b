"""Thresholds of exams: calibrated for a set of contrasts, or what those of its contrasts become when fused."""

import pytest
from scipy.special import expit, logit

from halebrain.core.errors import UsageError
from halebrain.thresholds.calibration import Calibration, Growth, Threshold
from halebrain.thresholds.choose import ThresholdSelector, check_modality
from halebrain.thresholds.exam import (
    exam_key,
    exam_threshold,
    healthy_score,
    is_calibrated,
    without_outdated_exams,
)


def stored(value, *contrasts):
    about = {"split": "val", "manifest_sha256": "0", "n_scans": 9, "achieved": 0.9}
    return Threshold(value=value, method="at most 1 ml", modalities=contrasts, **about)


def calibration(**changes):
    own = {"T1w": {"ml:1": stored(0.09, "T1w")}, "FLAIR": {"ml:1": stored(0.15, "FLAIR")}}
    exam = {"FLAIR+T1w": {"ml:1": stored(0.11, "FLAIR+T1w")}} if changes.get("fusion") else {}
    return Calibration(
        default="ml:1", thresholds={"ml:1": stored(0.14, "FLAIR", "T1w")}, subjects=(), modalities=own | exam, **changes
    )


def test_a_set_of_contrasts_has_one_name_whatever_their_order():
    assert exam_key(["T1w", "FLAIR"]) == exam_key(["FLAIR", "T1w"]) == "FLAIR+T1w"
    assert exam_key(["FLAIR", None]) is None


def test_one_contrast_has_its_own_threshold():
    selector = ThresholdSelector(calibration())
    assert exam_threshold(selector, ["FLAIR"], "log_odds") == selector.at("FLAIR")


def test_without_calibrated_exams_the_thresholds_of_the_contrasts_are_fused_and_that_is_stated():
    chosen = exam_threshold(ThresholdSelector(calibration()), ["T1w", "FLAIR"], "log_odds")
    assert chosen.value == pytest.approx(expit((logit(0.09) + logit(0.15)) / 2), abs=1e-6)
    assert chosen.source_contrasts == ("FLAIR", "T1w")
    assert "not calibrated on exams" in str(chosen.method)
    assert (chosen.modality, chosen.n_scans) == ("FLAIR+T1w", None)


def test_findings_of_an_exam_grow_where_those_of_each_contrast_do():
    about = {"chosen_at": "ml:1", "n_scans": 5, "mean_dice": 0.5, "mean_dice_without": 0.4}
    about |= {"value_without": 0.1, "unadjusted_ml": 1.0}
    known = calibration()
    flair, t1 = (known.modalities[name]["ml:1"] for name in ("FLAIR", "T1w"))
    known.modalities["FLAIR"]["ml:1"] = flair.model_copy(update={"growth": Growth(value=0.05, **about)})
    assert exam_threshold(ThresholdSelector(known), ["T1w", "FLAIR"], "log_odds").grow_to is None
    known.modalities["T1w"]["ml:1"] = t1.model_copy(update={"growth": Growth(value=0.03, **about)})
    chosen = exam_threshold(ThresholdSelector(known), ["T1w", "FLAIR"], "log_odds")
    assert chosen.grow_to == pytest.approx(expit((logit(0.05) + logit(0.03)) / 2), abs=1e-6)


def test_a_calibrated_set_of_contrasts_has_its_own_threshold_with_its_fusion_only():
    selector = ThresholdSelector(calibration(fusion="log_odds"))
    assert is_calibrated(selector, ["T1w", "FLAIR"], "log_odds")
    assert exam_threshold(selector, ["T1w", "FLAIR"], "log_odds").value == 0.11
    assert not is_calibrated(selector, ["T1w", "FLAIR"], "mean")
    assert exam_threshold(selector, ["T1w", "FLAIR"], "mean").value == pytest.approx(0.12, abs=1e-6)
    assert not is_calibrated(selector, ["T1w", "T2w"], "log_odds")


def test_a_number_is_used_unchanged():
    chosen = exam_threshold(ThresholdSelector(None, "0.3"), ["T1w", "FLAIR"], "log_odds")
    assert (chosen.value, chosen.key, chosen.modality) == (0.3, "fixed", "FLAIR+T1w")


def test_the_healthy_score_is_the_threshold_by_healthy_scans():
    assert healthy_score(calibration(), "T1w") == 0.09
    assert healthy_score(calibration(), "PDw") == 0.14
    assert healthy_score(None, "T1w") == 0.5


def test_thresholds_of_exams_go_where_the_healthy_score_of_a_contrast_changes():
    before = calibration(fusion="log_odds")
    both = {"ml:1": stored(0.2, "PDw+T1w")}
    before.modalities["PDw+T1w"] = both
    before.healthy_scores.update({"T1w": (0.1,), "PDw+T1w": (0.2,), "FLAIR+T1w": (0.3,)})
    added = Calibration(
        default="ml:1", thresholds={}, subjects=(), modalities={"PDw": {"ml:1": stored(0.3, "PDw")}}
    ).added_to(before)
    assert added.modalities["PDw+T1w"] == both, "chosen with PDw at 0.14, while it is now 0.3"
    kept = without_outdated_exams(added, before)
    assert set(kept.modalities) == {"T1w", "FLAIR", "PDw", "FLAIR+T1w"}
    assert set(kept.healthy_scores) == {"T1w", "FLAIR+T1w"}
    assert without_outdated_exams(before, before) == before


def test_a_set_of_contrasts_is_no_contrast_of_a_scan():
    with pytest.raises(UsageError, match="--modality takes"):
        check_modality("FLAIR+T1w", calibration(fusion="log_odds"))


def test_the_fusion_survives_naming_and_addition():
    named = calibration(fusion="mean").named("ours", beside=calibration())
    assert named.fusion == "mean"
    assert calibration().added_to(calibration(fusion="mean")).fusion == "mean"
