"""Thresholds come from scans that the model did not learn from, or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.failures import Failures
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import load_bundle, save_bundle
from halebrain.models.bundle_files import checked_files, store_calibration
from halebrain.models.store import export_model
from halebrain.thresholds.calibration import Calibration, Threshold
from halebrain.workflows import calibrate
from halebrain.workflows.calibrate import run_calibration
from halebrain.workflows.settings import CalibrateSettings


@pytest.fixture
def trained(untrained_model, tmp_path):
    stages = {"stage1": {"train_subjects": ["a"], "val_subjects": ["b"]}}
    save_bundle(replace(load_bundle(untrained_model), training=stages), tmp_path / "model", card="")
    return tmp_path / "model"


def rows(*subjects):
    return Manifest(
        tuple(ScanRecord(subject=s, image=Path(f"{s}.nii"), modality="FLAIR", split="val") for s in subjects)
    )


def test_a_subject_of_the_training_is_refused(trained):
    with pytest.raises(DataError, match=r"must not be calibrated on, got a \(stage1\)"):
        run_calibration(trained, rows("a", "c"), CalibrateSettings(device="cpu"), failures=Failures(None))


def test_a_subject_of_the_validation_may_take_part(trained):
    # It is looked for on disk, so it was not refused.
    with pytest.raises(MissingInputError, match=r"b\.nii"):
        run_calibration(trained, rows("b"), CalibrateSettings(device="cpu"), failures=Failures(None))


HEALTHY = [(f"f{n}", "FLAIR", "val", "healthy") for n in range(2)]


def test_a_model_in_a_zip_is_calibrated_into_a_folder_and_stays(command, small_model, small_cohort, tmp_path):
    export_model(small_model, tmp_path / "packed.zip")
    before, manifest = (tmp_path / "packed.zip").read_bytes(), small_cohort(HEALTHY)
    options = ("--manifest", manifest, "-o", tmp_path / "own", "--no-progress")
    code, said = command("calibrate", tmp_path / "packed.zip", *options)
    assert code == 0, said.err
    assert (tmp_path / "packed.zip").read_bytes() == before
    old, new = checked_files(small_model)[0], checked_files(tmp_path / "own")[0]
    assert {name for name in old if old[name] != new[name]} == {"manifest.json"}
    assert "ml:1" in load_bundle(tmp_path / "own").calibration["thresholds"]
    code, said = command("calibrate", small_model, *options)
    assert code == 73
    assert "the output must not exist yet" in said.err


def blanked(manifest, *columns):
    """Leave columns of the last row of a table empty."""
    header, *lines = manifest.read_text().splitlines()
    cells = lines[-1].split("\t")
    for column in columns:
        cells[header.split("\t").index(column)] = "n/a"
    manifest.write_text("\n".join([header, *lines[:-1], "\t".join(cells)]) + "\n")
    return manifest


def test_scans_that_nobody_annotated_are_left_out_and_told(command, small_model, small_cohort, tmp_path):
    manifest = blanked(small_cohort([*HEALTHY, ("x", "FLAIR", "val", "ms")]), "pathology", "lesion")
    options = ("--manifest", manifest, "-o", tmp_path / "own", "--no-progress")
    code, said = command("calibrate", small_model, *options, "--json")
    assert code == 0, said.err
    assert "warning: 1 scan neither healthy nor annotated is left out" in said.err
    assert "warning: FLAIR: 2 healthy people, 5 are needed for its own thresholds" in said.err
    assert json.loads(said.out)["scans"] == 2
    assert load_bundle(tmp_path / "own").calibration["subjects"] == ["f0", "f1"]


def test_only_scans_that_nobody_annotated_are_refused_at_once(command, small_model, small_cohort):
    manifest = blanked(small_cohort([("x", "FLAIR", "val", "ms")]), "pathology", "lesion")
    code, said = command("calibrate", small_model, "--manifest", manifest, "--no-progress")
    assert code == 66
    assert "calibration needs healthy or annotated scans" in said.err


def test_a_scan_that_failed_to_register_sets_no_threshold(command, small_model, small_cohort, tmp_path, monkeypatch):
    score_scan = calibrate.score_scan

    def scored(predictor, record):
        found = score_scan(predictor, record)
        if record.subject != "g":
            return found
        qc = replace(found.scan.qc, registration_failed=True)
        return replace(found, scan=replace(found.scan, qc=qc))

    monkeypatch.setattr(calibrate, "score_scan", scored)
    manifest = small_cohort([*HEALTHY, ("g", "FLAIR", "val", "healthy")])
    code, said = command("calibrate", small_model, "--manifest", manifest, "-o", tmp_path / "own", "--no-progress")
    assert code == 3
    assert "sub-g_FLAIR: a scan must register to the template to set a threshold" in said.err
    flagged = "warning: 2 of 2 scans have quality flags and count: thick slices (5.0 mm) (sub-f0_FLAIR and 1 more)"
    assert flagged in said.err
    assert load_bundle(tmp_path / "own").calibration["subjects"] == ["f0", "f1"]


@pytest.mark.parametrize(("split", "blank", "got"), [("test", (), "no such split"), ("val", ("lesion",), "none with")])
def test_patients_without_effect_are_refused(command, small_model, small_cohort, split, blank, got):
    patients = blanked(small_cohort([("x", "FLAIR", split, "ms")], "ill"), *blank)
    options = ("--manifest", small_cohort(HEALTHY), "--patients", patients, "--no-progress")
    code, said = command("calibrate", small_model, *options)
    assert code == 66
    assert "--patients needs annotated scans of the split" in said.err
    assert got in said.err


@pytest.mark.slow
def test_too_few_healthy_scans_for_the_share_asked_for_are_said(command, small_model, small_cohort):
    manifest = small_cohort([(f"p{n}", "T1w", "val", "healthy") for n in range(5)])
    code, said = command("calibrate", small_model, "--manifest", manifest, "--no-progress", "--healthy-share", 0.9)
    assert code == 0
    assert said.err.count("--healthy-share is now --population-fraction") == 1
    assert "T1w: 5 healthy people are too few for 90 % of people" in said.err
    assert "40 % instead of 80%" in said.err
    assert command("calibrate", small_model, "--manifest", manifest, "--population-fraction", 1.2)[0] == 2
    both = ("--population-fraction", 0.8, "--healthy-share", 0.9)
    code, said = command("calibrate", small_model, "--manifest", manifest, *both)
    assert code == 2
    assert "an option takes one name" in said.err


def test_a_zip_without_a_place_for_its_thresholds_is_refused_at_once(
    command, small_model, small_cohort, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "halebrain.workflows.calibrate.fit_calibration", lambda *_, **__: pytest.fail("scans were scored")
    )
    export_model(small_model, tmp_path / "packed.zip")
    code, said = command("calibrate", tmp_path / "packed.zip", "--manifest", small_cohort(HEALTHY), "--no-progress")
    assert code == 2
    assert "--output FOLDER" in said.err


@pytest.mark.slow
def test_a_healthy_map_is_fitted_used_and_evaluated(command, small_model, small_cohort, tmp_path):
    people = [(f"h{n}", "FLAIR", "val", "healthy") for n in range(5)]
    ill = [("p1", "FLAIR", "test", "ms"), ("p2", "T2w", "test", "ms")]
    manifest, own = small_cohort([*people, ("p0", "FLAIR", "val", "ms"), *ill]), tmp_path / "own"
    fit = ("--healthy-map", "--residual", "normalised_signed", "-o", own, "--no-progress")
    code, said = command("calibrate", small_model, "--manifest", manifest, *fit)
    assert code == 0, said.err
    assert "healthy residual map of FLAIR: 5 healthy scans of 5 people" in said.err
    old, new = checked_files(small_model)[0], checked_files(own)[0]
    changed = {name for name in new if new[name] != old.get(name)}
    assert changed == {"manifest.json", "config.yaml", "healthy_map.safetensors", "card.md"}
    bundle = load_bundle(own)
    assert bundle.config.postprocessing == {"residual": "normalised_signed", "median_size": 1}
    assert bundle.calibration["subjects"] == [*(f"h{n}" for n in range(5)), "p0"]
    # A contrast without a map is an error that names the scan, whatever else was asked for.
    evaluate = ("evaluate", own, "--manifest", manifest, "--no-progress", "-o", tmp_path / "evaluated")
    code, said = command(*evaluate, "--reconstruction", "--split", "test")
    assert code == 3, said.err
    assert "sub-p2_T2w" in said.err
    assert "got T2w; the map has FLAIR" in said.err
    table = (tmp_path / "evaluated" / "scans.tsv").read_text()
    for name in ("residual", "residual signed", "residual normalised", "residual normalised signed"):
        assert f"\t{name}\tauprc\t" in table, table
    code, said = command(*evaluate, "--split", "val")
    assert code == 65
    assert "h0 (" in said.err
    code, said = command("models", "info", own)
    assert "Healthy residual map of FLAIR: 5 scans of 5 people" in said.out


def test_a_data_set_calibrated_again_has_no_default_of_before(command, small_model, small_cohort, monkeypatch):
    point = {"value": 0.3, "method": "", "achieved": 0.0, "split": "val", "n_scans": 1, "manifest_sha256": "0"}
    store_calibration(small_model, {"default": "dice@own", "thresholds": {"dice@own": point}, "subjects": []})
    monkeypatch.setattr(
        "halebrain.workflows.calibrate.fit_calibration", lambda *_, **__: pytest.fail("scans were scored")
    )
    about = ("--manifest", small_cohort(HEALTHY), "--name", "own", "--default", "dice@own", "--no-progress")
    code, said = command("calibrate", small_model, *about)
    assert code == 2
    assert "these scans give fpr:0.01@own" in said.err


def test_what_a_whole_calibration_replaces_is_told(small_model):
    point = {"value": 0.3, "method": "", "split": "val", "manifest_sha256": "", "n_scans": 5, "achieved": 1.0}
    both = {"ml:1": Threshold(**point), "ml:1@ours": Threshold(**point)}
    stored = Calibration(default="ml:1", thresholds=both, modalities={"FLAIR+T1w": both}, subjects=())
    said = []
    bundle = replace(load_bundle(small_model), calibration=stored.model_dump(mode="json"))
    settings = CalibrateSettings(notify=said.append)
    calibrate._tell_replaced(replace(bundle, calibration=None), settings)
    calibrate._tell_replaced(bundle, replace(settings, name="ours"))
    assert said == []
    calibrate._tell_replaced(bundle, settings)
    assert said == [
        "warning: all thresholds are replaced, those of exams and those of ours too; --add or --name keeps others"
    ]


@pytest.mark.parametrize("modalities", [{}, {"FLAIR": {}}])
def test_one_more_healthy_scan_never_replaces_those_behind_a_percentile(
    command, small_model, small_cohort, monkeypatch, modalities
):
    point = {"value": 0.3, "method": "", "achieved": 0.0, "split": "val", "n_scans": 1, "manifest_sha256": "0"}
    stored = {"default": "ml:1", "thresholds": {"ml:1": point}, "subjects": []}
    stored["modalities"] = {name: {"ml:1": point} for name in modalities}
    store_calibration(small_model, stored | {"healthy_scores": {"FLAIR": [0.1, 0.2, 0.3, 0.4, 0.5]}})
    monkeypatch.setattr(
        "halebrain.workflows.calibrate.fit_calibration", lambda *_, **__: pytest.fail("scans were scored")
    )
    manifest = small_cohort([("one", "FLAIR", "val", "healthy"), ("two", "T2w", "val", "healthy")])
    code, said = command("calibrate", small_model, "--manifest", manifest, "--add", "--no-progress")
    assert code == 2
    assert "only modalities without thresholds, got FLAIR" in said.err


def test_thresholds_of_exams_are_removed_with_the_thresholds_beside_which_they_were_chosen(
    command, small_model, small_cohort, monkeypatch
):
    point = {"value": 0.3, "method": "", "achieved": 0.0, "split": "val", "n_scans": 1, "manifest_sha256": "0"}
    stored = {"default": "ml:1", "thresholds": {"ml:1": point}, "subjects": [], "fusion": "root_odds"}
    stored["modalities"] = {"FLAIR+T1w": {"ml:1": point}, "PDw+T1w": {"ml:1": point}}
    store_calibration(small_model, stored)
    own = Threshold(**point | {"value": 0.4})
    added = Calibration(default="ml:1", thresholds={}, subjects=("h",), modalities={"PDw": {"ml:1": own}})
    monkeypatch.setattr("halebrain.workflows.calibrate.fit_calibration", lambda *_, **__: added)
    manifest = small_cohort([("h", "PDw", "val", "healthy")])
    code, said = command("calibrate", small_model, "--manifest", manifest, "--add", "--no-progress")
    assert code == 0, said.err
    assert "the thresholds of exams of PDw+T1w were chosen beside other thresholds" in said.err
    assert set(load_bundle(small_model).calibration["modalities"]) == {"FLAIR+T1w", "PDw"}
