"""Calibration by modality, and what detection and evaluation make of it, through the command line."""

import csv
import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.preprocessing import prepared
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import ThresholdSelector

T1 = [(f"t{n}", "T1w", "val", "healthy") for n in range(5)]
FLAIR = [(f"f{n}", "FLAIR", "val", "healthy") for n in range(5)]
T2 = [("w", "T2w", "val", "healthy")]
ILL = [("p", "FLAIR", "val", "ms"), ("q", "FLAIR", "val", "ms")]
HEALTHY_NAMES = ["fpr:0.01", "fpr:0.05", "fpr:0.1", "ml:0.1", "ml:0.5", "ml:1"]


def select_threshold(calibration, wanted, *, modality=None):
    """Return value and name of the threshold for a scan."""
    chosen = ThresholdSelector(calibration, wanted).at(modality)
    return chosen.value, chosen.name


@pytest.fixture
def calibrate(command, small_model):
    def call(manifest, *more, code=0):
        found, said = command("calibrate", small_model, "--manifest", manifest, "--no-progress", *more)
        assert found == code, said.err
        return said if code else Calibration.model_validate(load_bundle(small_model).calibration)

    return call


@pytest.fixture
def detect(command, small_model, tmp_path):
    def call(source, *more, out="out", code=0):
        found, said = command("detect", "-i", source, "-o", tmp_path / out, "-m", small_model, "--no-progress", *more)
        assert found == code, said.err
        return None if code else json.loads(next((tmp_path / out).rglob("*provenance.json")).read_text())

    return call


def stored_scans(manifest):
    return {record.scan_id: record.image for record in Manifest.read(manifest)}


@pytest.mark.slow
def test_modalities_with_enough_healthy_scans_have_thresholds_of_their_own(
    calibrate, small_cohort, command, small_model
):
    found = calibrate(small_cohort([*T1, *T2, *ILL]))
    assert found.default == "dice"
    assert list(found.thresholds) == ["dice", *HEALTHY_NAMES]
    assert found.thresholds["dice"].modalities == ("FLAIR",)
    assert found.thresholds["ml:1"].modalities == ("T1w", "T2w")
    assert {modality: list(table) for modality, table in found.modalities.items()} == {"T1w": HEALTHY_NAMES}
    assert {modality: len(scores) for modality, scores in found.healthy_scores.items()} == {"T1w": 5, "T2w": 1}
    values = [found.modalities["T1w"][name].value for name in ("ml:1", "ml:0.5", "ml:0.1")]
    assert values == sorted(values)
    for volume_ml in (0.1, 0.5, 1):
        own = found.modalities["T1w"][f"ml:{volume_ml}"]
        assert own.achieved <= volume_ml
        assert (own.n_scans, own.modalities) == (5, ("T1w",))
    code, said = command("models", "info", small_model)
    assert code == 0
    assert "Default threshold: dice" in said.out
    assert f"Threshold ml:1 for T1w: {found.modalities['T1w']['ml:1'].value:.4f}, at most 1 ml" in said.out
    assert "percentile, T2w: 1" in said.out


@pytest.mark.slow
def test_a_limit_that_more_people_keep_is_a_higher_threshold_and_says_so(calibrate, small_cohort):
    median = calibrate(small_cohort(T1))
    strict = calibrate(small_cohort(T1, folder="again"), "--population-fraction", 0.9)
    for name in ("ml:0.1", "ml:0.5", "ml:1"):
        assert strict.modalities["T1w"][name].value >= median.modalities["T1w"][name].value
    # Five scans, all of which must keep it: 1 − 0.9⁵ = 0.409, rounded down.
    assert "in 90% of healthy scans (40% confidence)" in strict.modalities["T1w"]["ml:1"].method
    assert "in the median healthy scan (80% confidence)" in median.modalities["T1w"]["ml:1"].method
    assert (
        strict.modalities["T1w"]["ml:1"].population_fraction,
        median.modalities["T1w"]["ml:1"].population_fraction,
    ) == (
        0.9,
        0.5,
    )
    assert strict.modalities["T1w"]["fpr:0.01"].population_fraction is None
    assert strict.modalities["T1w"]["fpr:0.01"] == median.modalities["T1w"]["fpr:0.01"].model_copy(
        update={"manifest_sha256": strict.modalities["T1w"]["fpr:0.01"].manifest_sha256}
    )


@pytest.mark.slow
def test_half_the_healthy_scans_show_no_more_than_was_chosen(calibrate, detect, small_cohort):
    manifest = small_cohort(T1)
    found = calibrate(manifest, "--default", "ml:0.5")
    assert found.default == "ml:0.5"
    shown = []
    for name, image in stored_scans(manifest).items():
        said = detect(image, out=name)
        assert said["threshold"] == {
            "value": found.modalities["T1w"]["ml:0.5"].value,
            "name": "ml:0.5",
            "key": "ml:0.5",
            "data_set": None,
            "source_contrasts": [],
            "min_lesion_mm3": 0.0,
            "method": "at most 0.5 ml in the median healthy scan (80% confidence)",
            "n_scans": 5,
            "healthy_share": 0.5,
            "modality": "T1w",
            "modality_known_from": "file name",
        }
        assert said["scan_score"] in found.healthy_scores["T1w"]
        assert said["scan_score_n_healthy"] == 5
        lower = sum(score < said["scan_score"] for score in found.healthy_scores["T1w"])
        assert said["scan_score_percentile"] == 20 * lower + 10
        assert said["scan_score_healthy"] == pytest.approx(found.healthy_scores["T1w"], abs=1e-4)
        shown.append(said["lesion_volume_ml"])
    assert np.median(shown) == pytest.approx(found.modalities["T1w"]["ml:0.5"].achieved, abs=1e-3)
    assert np.median(shown) <= 0.5


@pytest.mark.slow
def test_modalities_of_another_manifest_are_added(calibrate, small_cohort):
    first = calibrate(small_cohort(T1, folder="real"), "--default", "ml:1")
    both = calibrate(small_cohort([*FLAIR, *ILL], folder="virtual"), "--add")
    assert both.default == "ml:1"
    assert both.modalities["T1w"] == first.modalities["T1w"]
    assert list(both.modalities["FLAIR"]) == HEALTHY_NAMES
    assert both.thresholds["ml:1"] == first.thresholds["ml:1"]
    assert both.thresholds["dice"].modalities == ("FLAIR",)
    assert set(both.subjects) == {row[0] for row in [*T1, *FLAIR, *ILL]}
    assert select_threshold(both, "auto", modality="FLAIR") == (both.modalities["FLAIR"]["ml:1"].value, "ml:1")
    assert select_threshold(both, "auto", modality="T2w")[1] == "ml:1 (all modalities: T1w)"


@pytest.mark.slow
def test_what_cannot_be_added_is_said_before_anything_is_scored(calibrate, small_cohort, small_model):
    manifest = small_cohort([*T1, *ILL])
    calibrate(manifest)
    before = load_bundle(small_model).calibration
    said = calibrate(manifest, "--add", code=2)
    assert "T1w" in said.err
    assert "without thresholds" in said.err
    said = calibrate(small_cohort(FLAIR, folder="other"), "--add", "--default", "ml:2", code=2)
    assert "'ml:2'" in said.err
    assert "dice, fpr:0.01" in said.err
    assert load_bundle(small_model).calibration == before


def test_there_must_be_something_to_add_to(command, untrained_model, small_cohort):
    code, said = command("calibrate", untrained_model, "--manifest", small_cohort(T1), "--add", "--no-progress")
    assert code == 66
    assert "without --add first" in said.err


def test_a_default_needs_scans_that_give_it(calibrate, small_cohort):
    assert "'dice'" in calibrate(small_cohort(T1), "--default", "dice", code=2).err


@pytest.mark.slow
def test_a_data_set_keeps_its_own(calibrate, detect, small_cohort):
    calibrate(small_cohort([*T1, *ILL]))
    found = calibrate(small_cohort(FLAIR, folder="ours"), "--name", "ours")
    assert found.default == "dice"
    assert list(found.modalities["FLAIR"]) == [f"{name}@ours" for name in HEALTHY_NAMES]
    assert set(found.healthy_scores) == {"T1w", "FLAIR@ours"}
    scan = stored_scans(small_cohort([("x", "FLAIR", "test", "healthy")], folder="new"))["sub-x_FLAIR"]
    said = detect(scan, "--threshold", "ml:1@ours")
    assert said["threshold"]["name"] == "ml:1@ours"
    assert said["scan_score_n_healthy"] == 5
    assert detect(scan, out="general")["scan_score_note"] == "0 healthy validation scans are FLAIR, 5 are needed"


@pytest.mark.slow
def test_a_scan_without_a_name_for_its_contrast_is_looked_at(calibrate, detect, small_cohort, tmp_path, monkeypatch):
    found = calibrate(small_cohort([*T1, *FLAIR]), "--default", "ml:1")
    scan = tmp_path / "scan0001.nii.gz"
    nibabel.save(nibabel.load(tmp_path / "cohort" / "sub-t0_T1w.nii.gz"), scan)
    unknown = detect(scan, out="unknown")
    assert unknown["threshold"]["name"] == "ml:1 (all modalities: FLAIR, T1w)"
    assert unknown["threshold"]["value"] == found.thresholds["ml:1"].value
    assert (unknown["threshold"]["modality"], unknown["threshold"]["modality_known_from"]) == (None, "nothing")
    assert unknown["scan_score_percentile"] is None
    assert "not known" in unknown["scan_score_note"]

    said = detect(scan, "--modality", "T1w", out="asked")
    assert said["threshold"]["value"] == found.modalities["T1w"]["ml:1"].value
    assert said["threshold"]["modality_known_from"] == "option"
    detect(scan, "--modality", "t1", out="wrong", code=2)

    open_scan = prepared.open_scan

    def seeing(*arguments, **options):
        working = open_scan(*arguments, **options)
        return replace(working, qc=replace(working.qc, contrast="T1w"))

    monkeypatch.setattr("halebrain.workflows.detector.open_scan", seeing)
    seen = detect(scan, out="seen")
    assert seen["threshold"] == said["threshold"] | {"modality_known_from": "image"}
    assert seen["scan_score_percentile"] == said["scan_score_percentile"]

    # Asked again, nothing is opened anew, whatever told the contrast; another wish is refused.
    monkeypatch.setattr("halebrain.workflows.detector.open_scan", None)
    detect(scan, out="seen")
    detect(scan, "--modality", "FLAIR", out="seen", code=73)


@pytest.mark.slow
def test_results_of_an_earlier_version_count_as_done(calibrate, detect, small_cohort, tmp_path, monkeypatch):
    manifest = small_cohort([*T1, *ILL])
    calibrate(manifest)
    scan = stored_scans(manifest)["sub-p_FLAIR"]
    said = detect(scan)
    path = next((tmp_path / "out").glob("*provenance.json"))
    earlier = {key: value for key, value in said.items() if not key.startswith("scan_score")}
    earlier["threshold"] = {key: said["threshold"][key] for key in ("value", "name", "min_lesion_mm3")}
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert detect(scan) == earlier
    earlier |= {key: value for key, value in said.items() if key.startswith("scan_score") and key[11:] != "healthy"}
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert detect(scan) == earlier
    # A model calibrated on more healthy scans places the same scan otherwise.
    path.write_text(json.dumps(said), encoding="utf-8")
    calibrate(small_cohort([*FLAIR], folder="more"), "--add")
    detect(scan, code=73)


@pytest.mark.slow
def test_an_evaluation_takes_the_threshold_of_each_modality(calibrate, command, small_model, small_cohort, tmp_path):
    found = calibrate(small_cohort([*T1, *FLAIR]), "--default", "ml:1")
    manifest = small_cohort([("x", "FLAIR", "test", "ms"), ("y", "T1w", "test", "ms")], folder="test")

    def evaluate(*more, out):
        arguments = ("evaluate", small_model, "--manifest", manifest, "-o", tmp_path / out, "--no-progress", *more)
        code, said = command(*arguments)
        assert code == 0, said.err
        with (tmp_path / out / "scans.tsv").open() as handle:
            rows = [row for row in csv.DictReader(handle, delimiter="\t") if row["metric"] == "false_positive_volume"]
        summary = json.loads((tmp_path / out / "summary.json").read_text())
        return {row["modality"]: row["value"] for row in rows if row["method"] == "model"}, summary["provenance"]

    volumes, provenance = evaluate(out="auto")
    own = {modality: found.modalities[modality]["ml:1"].value for modality in ("FLAIR", "T1w")}
    assert own["FLAIR"] != own["T1w"]
    stated = {modality: {"value": value, "name": "ml:1"} for modality, value in own.items()}
    assert provenance["threshold"] == {"by_modality": stated}
    for modality, value in own.items():
        fixed, provenance = evaluate("--threshold", repr(value), out=modality)
        assert provenance["threshold"] == {"value": value, "name": "fixed"}
        assert fixed[modality] == volumes[modality]


@pytest.mark.slow
def test_pieces_that_the_model_drops_are_dropped_in_calibration_too(calibrate, detect, small_cohort, small_model):
    bundle = load_bundle(small_model)
    settings = bundle.config.postprocessing | {"min_lesion_mm3": 300.0}
    config = bundle.config.model_copy(update={"postprocessing": settings})
    save_bundle(replace(bundle, config=config), small_model, card="small", overwrite=True)
    manifest = small_cohort(T1)
    found = calibrate(manifest, "--default", "ml:1").modalities["T1w"]["ml:1"]
    assert found.method.endswith("components of 300 mm³ and more")
    shown = [detect(image, out=name)["lesion_volume_ml"] for name, image in stored_scans(manifest).items()]
    assert np.median(shown) == pytest.approx(found.achieved, abs=1e-3)
    assert all(volume == 0 or volume >= 0.3 for volume in shown)
