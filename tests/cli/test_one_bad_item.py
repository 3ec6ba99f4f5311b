"""One scan that cannot be read does not stop the others; one that nobody asked for concerns nobody."""

import json
import os
import shutil

import pytest

ANNEX = "../../.git/annex/objects/x"
FETCH = "fetch it (datalad get / git annex get)"


@pytest.fixture
def scan(small_cohort):
    return small_cohort([("a", "FLAIR", "test", "ms")]).parent / "sub-a_FLAIR.nii.gz"


@pytest.fixture
def options(small_model):
    return ("-m", small_model, "--threshold", 0.3, "--no-progress", "--json")


def broken_names(folder):
    (folder / "lost_FLAIR.nii.gz").symlink_to(ANNEX)
    os.close(os.open(os.fsencode(folder) + b"/b\xe9_FLAIR.nii.gz", os.O_CREAT))


@pytest.mark.slow
def test_detect_goes_on_and_says_why(command, options, scan, tmp_path):
    folder, out = tmp_path / "scans", tmp_path / "out"
    (folder / "deeper").mkdir(parents=True)
    broken_names(folder)
    shutil.copy(scan, folder / "deeper" / "good_FLAIR.NII.GZ")
    (folder / "deeper" / "good_mask.nii.gz").touch()
    code, said = command("detect", "-i", folder, "-o", out, *options)
    assert code == 3, said.err
    found = json.loads(said.out)
    assert [entry["scan"] for entry in found["scans"]] == ["good_FLAIR"]
    failed = {entry["scan"]: entry["error"] for entry in found["failed"]}
    assert set(failed) == {"lost_FLAIR", "b\\xe9_FLAIR"}
    assert FETCH in failed["lost_FLAIR"]
    assert "a file name must be UTF-8" in failed["b\\xe9_FLAIR"]
    assert found["left_out"] == [{"reason": "named as masks", "images": 1, "first": "deeper/good_mask.nii.gz"}]
    assert "1 image is left out: named as masks (deeper/good_mask.nii.gz)" in said.err
    assert "Traceback" not in said.err
    assert FETCH in (out / "failed.tsv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_bids_app_minds_only_who_was_asked_for(command, options, scan, tmp_path):
    study = tmp_path / "study"
    for subject in ("01", "02"):
        (study / f"sub-{subject}" / "anat").mkdir(parents=True)
    shutil.copy(scan, study / "sub-01/anat/sub-01_flair.nii.gz")
    (study / "sub-02/anat/sub-02_FLAIR.nii.gz").symlink_to(ANNEX)
    (study / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    how = ("participant", *options, "--skip-bids-validation", "--device", "cpu", "--each-scan")
    code, said = command("bids", study, tmp_path / "out", *how, "--participant-label", "01")
    assert code == 0, said.err
    assert [entry["scan"] for entry in json.loads(said.out)["scans"]] == ["sub-01_flair"]
    code, said = command("bids", study, tmp_path / "out", *how)
    assert code == 3, said.err
    found = json.loads(said.out)
    assert [entry["scan"] for entry in found["scans"]] == ["sub-01_flair"]
    assert [(entry["scan"], FETCH in entry["error"]) for entry in found["failed"]] == [("sub-02_FLAIR", True)]


def test_prepare_goes_on_and_says_why(command, scan, tmp_path, monkeypatch):
    from halebrain.core import parallel

    original = parallel.map_items  # spares the start of a process
    monkeypatch.setattr("halebrain.workflows.prepare.map_items", lambda f, items, _, **more: original(f, items, **more))
    folder, out = tmp_path / "scans", tmp_path / "out"
    folder.mkdir()
    broken_names(folder)
    shutil.copy(scan, folder / "good_FLAIR.nii.gz")
    (folder / "good_T1w.nii.gz").touch()
    raw = ("--set", "registration=none", "--set", "shape=[32,32,24]", "--set", "spacing_mm=6.0")
    how = ("--modality", "FLAIR", "--no-progress", "--json", *raw, "--set", "bias_correction=none")
    code, said = command("prepare", "-i", folder, "-o", out, *how)
    assert code == 3, said.err
    found = json.loads(said.out)
    assert (found["scans"], found["prepared"]) == (3, 1)
    assert {entry["scan"] for entry in found["failed"]} == {"lost_FLAIR", "b\\xe9_FLAIR"}
    assert found["left_out"] == [
        {"reason": "of a contrast other than --modality FLAIR", "images": 1, "first": "good_T1w.nii.gz"}
    ]
    assert len((out / "manifest.tsv").read_text().splitlines()) == 2
