"""Without -m the model that comes with the package is taken; where there is none, it is said."""

import json
import shutil

import pytest

import halebrain
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.models.bundle_files import About, store_about

PATIENT = [("p", "FLAIR", "test", "ms")]


@pytest.fixture
def scan(small_cohort):
    return next(iter(Manifest.read(small_cohort(PATIENT)))).image


@pytest.mark.slow
def test_detect_works_out_of_the_box(command, bundled, scan, tmp_path):
    code, said = command("detect", "-i", scan, "-o", tmp_path / "out", "--threshold", "0.05", "--no-progress")
    assert code == 0, said.err
    provenance = json.loads(next((tmp_path / "out").glob("*provenance.json")).read_text())
    assert provenance["model_sha256"] == load_bundle(bundled).sha256
    assert provenance["notice"] == "Research use only. Not a medical device."
    assert len(list((tmp_path / "out").iterdir())) == 21


@pytest.mark.slow
def test_known_limits_of_the_model_are_flagged(command, bundled, scan, tmp_path):
    folder = tmp_path / "described"
    shutil.unpack_archive(bundled, folder)
    about = About(licence="CC-BY-4.0", citation="A", authors=("A",), data="B", limits={"FLAIR": "misses most"})
    store_about(folder, about, card="# A card\n")
    code, said = command(
        "detect", "-i", scan, "-o", tmp_path / "out", "-m", folder, "--threshold", "0.05", "--no-progress"
    )
    assert code == 0, said.err
    assert "known limit of the model on FLAIR: misses most" in said.err
    provenance = json.loads(next((tmp_path / "out").glob("*provenance.json")).read_text())
    assert "known limit of the model on FLAIR: misses most" in provenance["qc"]["flags"]
    flags = halebrain.detect(scan, model=folder, modality="FLAIR", threshold=0.05).qc["flags"]
    assert "known limit of the model on FLAIR: misses most" in flags


@pytest.mark.slow
def test_evaluate_needs_no_model_either(command, bundled, small_cohort, tmp_path):
    manifest = small_cohort(PATIENT)
    asked = ("evaluate", "-o", tmp_path / "out", "--no-progress")
    code, said = command(*asked, "--manifest", manifest, "--threshold", "0.05")
    assert code == 0, said.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["provenance"]["model_sha256"] == load_bundle(bundled).sha256
    assert "Evaluation of general" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert command(*asked)[0] == 2
    assert command(*asked, "--manifest", manifest, "--predictions", tmp_path)[0] == 2


def test_tune_and_adapt_take_it_too(command, bundled, small_cohort, tmp_path):
    people = [("v", "FLAIR", "val", "ms"), ("h", "FLAIR", "train", "healthy"), ("t", "FLAIR", "test", "tumour")]
    manifest = small_cohort(people)
    code, said = command("tune", "--manifest", manifest, "-o", tmp_path / "tuned", "--no-progress")
    assert code == 0, said.err
    code, said = command("adapt", "--manifest", manifest, "--pathology", "tumour", "-o", tmp_path / "adapted")
    assert code == 66
    assert "no scan with a lesion mask" in said.err


@pytest.mark.parametrize("verb", ["detect", "evaluate", "adapt", "tune"])
def test_without_weights_they_say_what_to_do(command, bundled, small_cohort, tmp_path, verb):
    bundled.unlink()
    manifest = small_cohort(PATIENT)
    given = ("-i", manifest) if verb == "detect" else ("--manifest", manifest)
    code, said = command(verb, *given, "-o", tmp_path / "out")
    assert code == 69
    assert "halebrain models import BUNDLE --name general" in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()
