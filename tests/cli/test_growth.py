"""Findings that grow to a lower threshold, through the command line: calibrated, detected, evaluated, remade."""

import json

import nibabel
import numpy as np
import pytest

from halebrain.core.mask import Cut, to_mask
from halebrain.models.bundle import load_bundle
from halebrain.models.bundle_files import store_calibration
from halebrain.thresholds.calibration import Calibration

HEALTHY = [(f"f{n}", "FLAIR", "val", "healthy") for n in range(5)]
ILL = [(f"p{n}", "FLAIR", "val", "ms") for n in range(5)]
TEST = [("x", "FLAIR", "test", "ms")]


@pytest.fixture
def run(command):
    def call(*arguments, code=0):
        found, said = command(*arguments, "--no-progress")
        assert found == code, said.err
        return said

    return call


def stored(folder):
    """Return the threshold that a result states, and whether its mask is the one that it makes of the written score."""
    made = json.loads(next(folder.rglob("*provenance.json")).read_text())
    threshold = made["threshold"]
    image = nibabel.load(next(folder.rglob("*desc-anomaly_probseg.nii.gz")))
    score, voxel_mm3 = np.asarray(image.dataobj, dtype=np.float32), float(np.prod(image.header.get_zooms()))
    mask = np.asarray(nibabel.load(next(folder.rglob("*desc-anomaly_mask.nii.gz"))).dataobj) > 0
    cut = Cut(threshold["value"], threshold["min_lesion_mm3"], threshold.get("grow_to"))
    wanted = to_mask(score, cut, voxel_mm3=voxel_mm3)
    # The map is written in 16 bits: a voxel at a threshold may fall to either side.
    near = np.abs(score - cut.threshold) < 2e-5
    near |= np.abs(score - (cut.grow_to or cut.threshold)) < 2e-5
    return threshold, mask, bool((mask == wanted)[~near].all())


@pytest.mark.slow
def test_one_growth_from_calibration_to_page(run, small_model, small_cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("halebrain.thresholds.growth.LEAST_GAIN", -1.0)  # an untrained model gains nothing
    healthy, ill = small_cohort(HEALTHY), small_cohort([*ILL, *TEST], folder="ill")
    run("calibrate", small_model, "--manifest", healthy, "--patients", ill, "--default", "ml:1")
    found = Calibration.model_validate(load_bundle(small_model).calibration)
    assert set(found.subjects) == {row[0] for row in (*HEALTHY, *ILL)}, "the split val alone"
    own = found.modalities["FLAIR"]["ml:1"]
    assert own.growth is not None
    assert (own.growth.n_scans, own.growth.chosen_at) == (5, "ml:1")
    assert own.achieved <= 1.0
    assert found.thresholds["ml:1"].growth is None

    scan, out = ill.parent / "sub-x_FLAIR.nii.gz", tmp_path / "out"
    run("detect", "-i", scan, "-o", out, "-m", small_model)
    threshold, grown, agrees = stored(out)
    assert (threshold["value"], threshold["grow_to"]) == (own.value, own.growth.value)
    assert agrees
    sidecar = json.loads(next(out.rglob("*desc-anomaly_mask.json")).read_text())
    assert sidecar["GrowThreshold"] == own.growth.value
    page = next(out.rglob("*report.html")).read_text()
    assert f"grows into connected voxels with a score of at least {own.growth.value:.3f}" in page
    run("report", out)
    assert stored(out)[0] == threshold, "a page that is made again changes nothing"

    run("evaluate", small_model, "--manifest", ill, "-o", tmp_path / "eval")
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["provenance"]["threshold"]["grow_to"] == own.growth.value

    run("report", out, "--threshold", own.value)
    plain, seeds, agrees = stored(out)
    assert "grow_to" not in plain
    assert plain["name"] == "fixed"
    assert agrees
    assert (seeds <= grown).all()
    run("report", out, "--threshold", own.value, "--grow-to", own.growth.value)
    again, mask, agrees = stored(out)
    assert (again["name"], again["grow_to"]) == ("fixed", own.growth.value)
    assert agrees
    assert (mask != grown).sum() <= 2, "up to the rounding of the written score"

    # An older calibration, without growth, makes the mask that it made.
    for table in found.modalities.values():
        table["ml:1"] = table["ml:1"].model_copy(update={"growth": None})
    store_calibration(small_model, found.model_dump(mode="json"))
    said = run("detect", "-i", scan, "-o", out, "-m", small_model, code=73)
    assert "results made with other settings" in said.err
    run("detect", "-i", scan, "-o", tmp_path / "old", "-m", small_model)
    threshold, mask, agrees = stored(tmp_path / "old")
    assert "grow_to" not in threshold
    assert agrees
    assert (mask <= grown).all()
    page = next((tmp_path / "old").rglob("*report.html")).read_text()
    assert "grows into connected voxels" not in page


@pytest.mark.slow
def test_growth_is_refused_where_it_makes_no_sense(run, small_model, small_cohort, tmp_path):
    manifest = small_cohort([("x", "FLAIR", "test", "ms")])
    scan = ("-i", manifest.parent / "sub-x_FLAIR.nii.gz", "-o", tmp_path / "out", "-m", small_model)
    said = run("detect", *scan, "--threshold", 0.2, "--grow-to", 0.3, code=2)
    assert "--grow-to must lie between 0 and the threshold, got 0.3 with the threshold 0.2" in said.err
    said = run("detect", *scan, "--threshold", "ml:1", "--grow-to", 0.1, code=2)
    assert "--grow-to goes with a threshold that is a number" in said.err
    run("detect", *scan, "--threshold", 0.3, "--grow-to", 0.2)
    threshold, _, agrees = stored(tmp_path / "out")
    assert (threshold["grow_to"], agrees) == (0.2, True)
    assert "--grow-to needs --threshold" in run("report", tmp_path / "out", "--grow-to", 0.1, code=2).err


@pytest.mark.slow
def test_why_findings_do_not_grow_is_said(run, small_model, small_cohort, monkeypatch):
    manifest = small_cohort([*HEALTHY, ("p", "FLAIR", "val", "ms")])
    said = run("calibrate", small_model, "--manifest", manifest)
    assert "FLAIR: findings do not grow to a lower threshold: 1 annotated patient, 5 are needed" in said.err
    for option in ("--plain", "--no-growth"):
        assert "do not grow" not in run("calibrate", small_model, "--manifest", manifest, option).err
