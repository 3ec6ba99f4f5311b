"""Whatever goes wrong within one scan of many: it fails alone, with its reason and traceback, and exit code 3."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import UnexpectedError
from halebrain.core.failures import Failures
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.preprocessing.pipeline import Preprocessor

# Lightning warns about the machine, not about the run.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning.*")

SAID = "unexpected ZeroDivisionError: a fault of ours"
ROWS = [("good", "FLAIR", "val", "ms"), ("ill", "FLAIR", "val", "ms"), ("fine", "FLAIR", "val", "healthy")]
RAW = [f"--set={pair}" for pair in ("shape=[32,32,24]", "spacing_mm=6", "registration=none", "bias_correction=none")]
QUIET = ("--no-progress", "--json")


@pytest.fixture
def faulty(monkeypatch):
    """Let the preprocessing of the scans of subject "ill" raise what nobody foresaw; return what ends that."""
    run = Preprocessor.run

    def fail(self, volume, **named):
        if "sub-ill" in volume.name:
            raise ZeroDivisionError("a fault of ours")
        return run(self, volume, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Preprocessor, "run", fail)
        yield patched.undo


@pytest.fixture
def manifest(small_cohort):
    return small_cohort(ROWS)


def failed_alone(found, said, *, tracebacks=None, name="sub-ill_FLAIR", ending=".txt"):
    """Check that one scan failed, and that its traceback is where its reason says."""
    (failed,) = found["failed"]
    assert failed["scan"] == name
    assert SAID in failed["error"]
    assert said.count("Traceback") == (tracebacks is None)
    assert "1 of " in said.splitlines()[-1]
    if tracebacks is not None:
        assert 'raise ZeroDivisionError("a fault of ours")' in (tracebacks / f"{name}{ending}").read_text()
        assert str(tracebacks / f"{name}{ending}") in failed["error"]


@pytest.mark.slow
def test_detect(command, faulty, small_model, manifest, tmp_path):
    output = tmp_path / "out"
    look = ("detect", "-i", manifest, "-o", output, "-m", small_model, "--threshold", "0.05", *QUIET)
    code, said = command(*look)
    assert code == 3
    found = json.loads(said.out)
    assert {scan["scan"] for scan in found["scans"]} == {"sub-good_FLAIR", "sub-fine_FLAIR"}
    failed_alone(found, said.err, tracebacks=output / "logs")
    assert SAID in (output / "failed.tsv").read_text()
    faulty()
    code, said = command(*look)
    assert code == 0, said.err
    assert len(json.loads(said.out)["scans"]) == 3
    assert list((output / "logs").iterdir()) == [], "the traceback goes with the fault"


def test_a_single_scan_ends_with_its_traceback(command, faulty, small_model, manifest, tmp_path):
    scan = next(row.image for row in Manifest.read(manifest) if row.subject == "ill")
    code, said = command("detect", "-i", scan, "-o", tmp_path / "out", "-m", small_model, "--threshold", "0.05")
    assert code == UnexpectedError.exit_code
    assert said.err.startswith("Traceback")
    assert said.err.splitlines()[-1].startswith(f"halebrain: {SAID}; report it")


@pytest.mark.slow
def test_bids(command, faulty, small_model, manifest, tmp_path):
    study = tmp_path / "study"
    for row in Manifest.read(manifest):
        anat = study / f"sub-{row.subject}" / "anat"
        anat.mkdir(parents=True)
        shutil.copy(row.image, anat)
    (study / "dataset_description.json").write_text('{"Name": "study", "BIDSVersion": "1.10.0"}')
    more = ("-m", small_model, "--threshold", "0.1", "--skip-bids-validation", "--each-scan", *QUIET)
    code, said = command("bids", study, tmp_path / "out", "participant", *more)
    assert code == 3
    assert [scan["scan"] for scan in json.loads(said.out)["scans"]] == ["sub-fine_FLAIR", "sub-good_FLAIR"]
    record = json.loads((tmp_path / "out" / "logs" / "sub-ill_FLAIR.json").read_text())
    assert record["error"] == SAID
    assert any("ZeroDivisionError" in line for line in record["traceback"])


def test_prepare(command, faulty, manifest, tmp_path, monkeypatch):
    from halebrain.core import parallel

    # In this process: in another one nothing is patched.
    alone = parallel.map_items
    monkeypatch.setattr("halebrain.workflows.prepare.map_items", lambda f, items, _, **more: alone(f, items, **more))
    code, said = command("prepare", "-i", manifest, "-o", tmp_path / "data", *RAW, *QUIET)
    assert code == 3
    found = json.loads(said.out)
    assert (found["prepared"], found["kept"]) == (2, 0)
    failed_alone(found, said.err, tracebacks=tmp_path / "data" / "logs")
    assert {row.subject for row in Manifest.read(tmp_path / "data" / "manifest.tsv")} == {"good", "fine"}


@pytest.mark.slow
def test_evaluate_scores_the_others_and_says_so(command, faulty, small_model, manifest, tmp_path):
    score = ("evaluate", small_model, "--manifest", manifest, "--split", "val", "--threshold", "0.05")
    code, said = command(*score, "-o", tmp_path / "out", *QUIET)
    assert code == 3
    found = json.loads(said.out)
    failed_alone(found, said.err, tracebacks=tmp_path / "out" / "logs")
    assert list(found["provenance"]["failed"]) == ["sub-ill_FLAIR"]
    # The figures are those of an evaluation of the other two.
    rows = Manifest.read(manifest).select(lambda row: row.subject != "ill")
    rows.write(tmp_path / "cohort" / "two.tsv")
    score = (*score[:3], tmp_path / "cohort" / "two.tsv", *score[4:])
    code, said = command(*score, "-o", tmp_path / "two", *QUIET)
    assert code == 0, said.err
    alone = json.loads(said.out)
    assert alone["summaries"] == found["summaries"]
    assert alone["provenance"]["manifest_sha256"] == found["provenance"]["manifest_sha256"]


def test_where_no_scan_can_be_scored_the_first_error_ends_it(command, small_model, manifest, tmp_path):
    for row in Manifest.read(manifest):
        row.image.write_bytes(b"no scan at all")
    score = ("evaluate", small_model, "--manifest", manifest, "--split", "val", "--threshold", "0.05")
    code, said = command(*score, "-o", tmp_path / "out", *QUIET)
    assert code == 65
    assert not (tmp_path / "out" / "summary.json").exists()
    assert "sub-good_FLAIR" in said.err.splitlines()[-1]


@pytest.mark.slow
def test_evaluate_folders(command, tmp_path, monkeypatch):
    from halebrain.evaluation import folders

    truth = np.zeros((10, 10, 10), np.uint8)
    truth[4:6, 4:6, 4:6] = 1
    for side in ("mine", "truth"):
        (tmp_path / side).mkdir()
        for name in ("a", "ill", "b"):
            nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), tmp_path / side / f"sub-{name}_mask.nii.gz")
    read = folders.read_case

    def fail(pair, options):
        if pair.subject == "ill":
            raise ZeroDivisionError("a fault of ours")
        return read(pair, options)

    monkeypatch.setattr(folders, "read_case", fail)
    sides = ("--predictions", tmp_path / "mine", "--references", tmp_path / "truth")
    code, said = command("evaluate", "-o", tmp_path / "out", *sides, *QUIET)
    assert code == 3
    found = json.loads(said.out)
    failed_alone(found, said.err, tracebacks=tmp_path / "out" / "logs", name="sub-ill")
    assert len(found["provenance"]["predictions"]) == 2
    assert next(v["value"] for v in found["set"] if v["metric"] == "micro_dice") == 1.0


def test_calibrate_says_of_how_many_scans_its_thresholds_are(command, faulty, small_model, manifest, tmp_path):
    model = tmp_path / "calibrated"
    code, said = command("calibrate", small_model, "--manifest", manifest, "-o", model, *QUIET)
    assert code == 3
    found = json.loads(said.out)
    failed_alone(found, said.err)
    assert (found["scans"], found["subjects"]) == (2, 2)
    assert load_bundle(model).calibration["thresholds"]["dice"]["n_scans"] == 1
    assert sorted(load_bundle(model).calibration["subjects"]) == ["fine", "good"]


def test_tune(command, faulty, small_model, small_cohort, tmp_path):
    manifest = small_cohort([*ROWS[:2], ("more", "FLAIR", "val", "ms")])
    code, said = command("tune", small_model, "--manifest", manifest, "-o", tmp_path / "out", *QUIET)
    assert code == 3
    found = json.loads(said.out)
    failed_alone(found, said.err, tracebacks=tmp_path / "out" / "logs")
    assert found["best"]["seen"]["n_scans"] == 2


def test_adapt_prepares_the_others_and_learns_from_no_fewer_scans(command, faulty, small_model, manifest, tmp_path):
    code, said = command("adapt", "-m", small_model, "--manifest", manifest, "-o", tmp_path / "out", "--no-progress")
    assert code == 3
    assert SAID in said.err
    assert "1 of 3 that failed: sub-ill_FLAIR" in said.err.splitlines()[-1]
    prepared = (tmp_path / "out" / "work" / "scans").glob("sub-*")
    assert sorted(path.name for path in prepared) == ["sub-fine", "sub-good"]
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.slow
def test_report(command, small_model, manifest, tmp_path, monkeypatch):
    from halebrain.workflows import remake_pages

    output = tmp_path / "out"
    look = ("detect", "-i", manifest, "-o", output, "-m", small_model, "--threshold", "0.05", *QUIET)
    assert command(*look)[0] == 0
    read = remake_pages.read_lesions

    def fail(path):
        if "sub-ill" in path.name:
            raise ZeroDivisionError("a fault of ours")
        return read(path)

    monkeypatch.setattr(remake_pages, "read_lesions", fail)
    code, said = command("report", output, *QUIET)
    assert code == 3
    found = json.loads(said.out)
    # That of a scan that could not be detected keeps its own file.
    failed_alone(found, said.err, tracebacks=output / "logs", ending="_report.txt")
    assert len(found["pages"]) == 2


@pytest.mark.slow
def test_cohort_makes_the_other_people_and_no_manifest(command, tmp_path, monkeypatch):
    from halebrain.simulation import generate

    sample = generate.sample_subject

    def fail(subject, *others, **named):
        if subject == "healthy002":
            raise ZeroDivisionError("a fault of ours")
        return sample(subject, *others, **named)

    make = ("cohort", "-o", tmp_path / "virtual", "--subjects", 3, "--patients", 0, "--modality", "FLAIR")
    with monkeypatch.context() as patched:
        patched.setattr(generate, "sample_subject", fail)
        code, said = command(*make, "--spacing-mm", 4, *QUIET)
    assert code == 3
    assert said.out == ""
    assert f"halebrain: healthy002: {SAID}" in said.err
    there = sorted(path.name for path in (tmp_path / "virtual").glob("sub-*"))
    assert there == ["sub-healthy001", "sub-healthy003"]
    assert not (tmp_path / "virtual" / "manifest.tsv").exists()
    code, said = command(*make, "--spacing-mm", 4, *QUIET)
    assert code == 0, said.err
    assert len(Manifest.read(tmp_path / "virtual" / "manifest.tsv")) == 3


def test_a_traceback_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "logs").write_text("no folder")
    told = []
    failures = Failures(tmp_path, told.append)
    try:
        raise ZeroDivisionError("a fault of ours")
    except ZeroDivisionError as error:
        failures.add("scan", UnexpectedError.of(error))
    traceback, line = told
    assert traceback.startswith("Traceback")
    assert line == f"scan: {SAID}; traceback: above"
