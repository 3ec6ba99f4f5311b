"""The BIDS App over the scans of a small data set, each alone: output, what the validator says of it, and refusals."""

import csv
import json
import shutil
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

from halebrain.cli.view import open_server
from halebrain.core import progress
from halebrain.io.bids_validator import validation_errors
from halebrain.io.failed_table import FAILED, read_failed
from halebrain.models import store
from halebrain.workflows.scan_steps import NETWORKS, PAGE

SCANS = {
    "sub-01/anat/sub-01_FLAIR": ("01", "FLAIR", "ms"),
    "sub-02/ses-a/anat/sub-02_ses-a_acq-hi_rec-norm_run-1_FLAIR": ("02", "FLAIR", "ms"),
    "sub-02/ses-b/anat/sub-02_ses-b_FLAIR": ("03", "FLAIR", "healthy"),
    "sub-02/ses-b/anat/sub-02_ses-b_T1w": ("04", "T1w", "healthy"),
}


@pytest.fixture
def dataset(small_cohort, tmp_path):
    """Two participants, one of them with two sessions."""
    made = small_cohort([(subject, modality, "test", what) for subject, modality, what in SCANS.values()]).parent
    root = tmp_path / "study"
    for name, (subject, modality, _) in SCANS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.load(made / f"sub-{subject}_{modality}.nii.gz")
        image.header.set_xyzt_units("mm")
        nibabel.save(image, f"{root / name}.nii.gz")
        (root / f"{name}.json").write_text("{}")
    about = {"Name": "virtual", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0", "Authors": ["A", "B"]}
    (root / "dataset_description.json").write_text(json.dumps(about))
    (root / "participants.tsv").write_text("participant_id\nsub-01\nsub-02\n")
    (root / "README").write_text("A small data set of ellipsoids with cubes in them. " * 5)
    return root


@pytest.fixture
def app(command, small_model, dataset):
    """Run the participant level with the small model and further arguments."""

    def run(output, *arguments, threshold=0.1):
        settings = ("-m", small_model, "--threshold", threshold, "--no-progress", "--device", "cpu", "--each-scan")
        return command("bids", dataset, output, "participant", *settings, *arguments)

    return run


def results(output):
    return sorted(str(path.relative_to(output)) for path in output.rglob("*_provenance.json"))


def table(output):
    with (output / "group_anomaly.tsv").open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


FIRST = "sub-01/anat/sub-01_rec-FLAIR_desc-anomaly_provenance.json"
SECOND = "sub-02/ses-a/anat/sub-02_ses-a_acq-hi_rec-normFLAIR_run-1_desc-anomaly_provenance.json"
THIRD = "sub-02/ses-b/anat/sub-02_ses-b_rec-FLAIR_desc-anomaly_provenance.json"
T1 = "sub-02/ses-b/anat/sub-02_ses-b_rec-T1w_desc-anomaly_provenance.json"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["study/derivatives/halebrain", "elsewhere"])
def test_the_validator_finds_nothing_wrong(app, command, validator, dataset, tmp_path, place):
    output = tmp_path / place
    code, said = app(output)
    assert code == 0, said.err
    assert "the model was trained on FLAIR" in said.err
    assert results(output) == [FIRST, SECOND, THIRD]
    code, said = command("bids", dataset, output, "group")
    assert code == 0, said.err
    assert validation_errors(validator, output) == []
    # The rest of the folder is checked: a name that is none of BIDS's is seen.
    shutil.copy(next(output.rglob("*_mask.nii.gz")), output / "sub-01/anat/sub-01_mask_strange.nii.gz")
    assert any("strange" in error for error in validation_errors(validator, output))


@pytest.mark.slow
def test_what_is_written_lies_on_the_scan_and_names_it(app, dataset, tmp_path):
    output = tmp_path / "out"
    assert app(output, "--participant-label", "01")[0] == 0
    folder = output / "sub-01/anat"
    assert len(list(folder.iterdir())) == 21
    raw = nibabel.load(dataset / "sub-01/anat/sub-01_FLAIR.nii.gz")
    mask = nibabel.load(folder / "sub-01_rec-FLAIR_desc-anomaly_mask.nii.gz")
    assert mask.shape == raw.shape
    np.testing.assert_allclose(mask.affine, raw.affine)
    said = json.loads((folder / "sub-01_rec-FLAIR_desc-anomaly_mask.json").read_text())
    assert said["Sources"] == ["bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"]
    assert (said["Threshold"], said["ThresholdMethod"], said["Type"]) == (0.1, "fixed", "Lesion")
    link = json.loads((output / "dataset_description.json").read_text())["DatasetLinks"]["raw"]
    assert (output / link / "sub-01/anat/sub-01_FLAIR.nii.gz").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--participant-label", "sub-01", "02"), [FIRST, SECOND, THIRD]),
        (("--participant_label", "02", "--session-label", "a"), [SECOND]),
        (("--modality", "T1w"), [T1]),
        (("--modality", "T1w", "FLAIR", "--session-label", "ses-b"), [THIRD, T1]),
    ],
)
def test_labels_and_modalities_choose(app, tmp_path, arguments, left):
    code, said = app(tmp_path / "out", *arguments)
    assert code == 0, said.err
    assert results(tmp_path / "out") == left


@pytest.mark.slow
def test_a_filter_file_chooses(app, tmp_path):
    (tmp_path / "f.json").write_text('{"flair": {"acquisition": null, "session": null}, "bold": {}}')
    code, said = app(tmp_path / "out", "--bids-filter-file", tmp_path / "f.json")
    assert code == 0, said.err
    assert "bold" in said.err
    assert results(tmp_path / "out") == [FIRST]


@pytest.mark.slow
def test_one_bad_scan_does_not_stop_the_others_and_the_group_says_so(app, command, dataset, tmp_path):
    output, bad = tmp_path / "out", dataset / "sub-01/anat/sub-01_FLAIR.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(b"no scan at all")
    code, said = app(output, "--skip-bids-validation")
    assert code == 3
    assert "1 of 3 that failed: sub-01_FLAIR" in said.err
    assert results(output) == [SECOND, THIRD]
    code, said = command("bids", dataset, output, "group")
    assert code == 0
    assert "1 scan failed and has no result: sub-01/anat/sub-01_FLAIR.nii.gz" in said.err
    rows = table(output)
    assert [row["status"] for row in rows] == ["failed", "done", "done"]
    assert rows[0]["participant_id"] == "sub-01"
    assert rows[0]["n_findings"] == "n/a"
    assert (rows[1]["session_id"], rows[1]["modality"]) == ("ses-a", "FLAIR")

    # Mended, the same command makes what is missing and leaves the rest.
    bad.write_bytes(whole)
    stamps = {name: (output / name).stat().st_mtime_ns for name in results(output)}
    assert app(output)[0] == 0
    assert results(output) == [FIRST, SECOND, THIRD]
    assert {name: (output / name).stat().st_mtime_ns for name in stamps} == stamps
    assert not list((output / "logs").iterdir())
    assert command("bids", dataset, output, "group")[0] == 0
    assert [row["status"] for row in table(output)] == ["done"] * 3


@pytest.mark.slow
def test_the_steps_within_a_scan_and_the_time_left_are_told(command, small_model, dataset, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "SETTINGS", progress.ProgressSettings(plain_every_s=-1.0))
    next((dataset / "sub-02/ses-a/anat").glob("*.nii.gz")).write_bytes(b"no scan at all")
    how = ("-m", small_model, "--threshold", "0.1", "--device", "cpu", "--skip-bids-validation", "--each-scan")
    code, said = command("bids", dataset, tmp_path / "out", "participant", *how)
    assert code == 3
    lines = [line for line in said.err.splitlines() if line.startswith("Detecting: ")]
    for step in ("brain", "registration", "recognition", NETWORKS, PAGE):
        assert any(line.endswith(f"s left sub-01_FLAIR: {step}") for line in lines), step
    done = [float(line.split()[1].partition("/")[0]) for line in lines]
    assert done == sorted(done)
    assert len({value for value in done if 0 < value < 1}) > 1
    # The scan that cannot be read is over with its first step.
    assert done[-1] == 3


@pytest.mark.slow
def test_the_page_of_all_scans_lists_what_failed(app, command, validator, dataset, tmp_path):
    output, bad = tmp_path / "out", dataset / "sub-01/anat/sub-01_FLAIR.nii.gz"
    whole = bad.read_bytes()
    bad.write_bytes(b"no scan at all")
    # A job for each participant: the second writes the page again, and what failed in the first is still on it.
    assert app(output, "--skip-bids-validation", "--participant-label", "01")[0] == 3
    (output / "failed.tsv").unlink()
    assert app(output, "--skip-bids-validation", "--participant-label", "02")[0] == 0
    page = (output / "index.html").read_text()
    assert list(read_failed(output / FAILED)) == ["sub-01_FLAIR"]
    assert "1 failed" in page
    assert all(name.replace("provenance.json", "report.html") in page for name in (SECOND, THIRD))
    (output / "index.html").unlink()
    assert command("bids", dataset, output, "group")[0] == 0
    assert (output / "index.html").read_text() == page
    assert validation_errors(validator, output) == []
    server = open_server(output)
    assert server.visit.start == "/index.html"
    server.stop()

    bad.write_bytes(whole)
    assert app(output, "--participant-label", "01")[0] == 0
    assert read_failed(output / FAILED) == {}
    assert "1 failed" not in (output / "index.html").read_text()


@pytest.mark.slow
def test_participants_are_those_with_results(app, dataset, tmp_path):
    (dataset / "participants.tsv").write_text("participant_id\tage\nsub-02\t40\nsub-01\t30\nsub-03\t50\n")
    (dataset / "participants.json").write_text('{"age": {"Units": "year"}}')
    assert app(tmp_path / "out", "--skip-bids-validation", "--participant-label", "02")[0] == 0
    assert (tmp_path / "out/participants.tsv").read_text() == "participant_id\tage\nsub-02\t40\n"
    assert app(tmp_path / "out", "--skip-bids-validation", "--participant-label", "01")[0] == 0
    assert (tmp_path / "out/participants.tsv").read_text() == "participant_id\tage\nsub-01\t30\nsub-02\t40\n"
    assert json.loads((tmp_path / "out/participants.json").read_text()) == {"age": {"Units": "year"}}


def test_the_first_failure_ends_it_where_asked(app, dataset, tmp_path):
    (dataset / "sub-01/anat/sub-01_FLAIR.nii.gz").write_bytes(b"no scan at all")
    code, _ = app(tmp_path / "out", "--skip-bids-validation", "--stop-on-first-crash")
    assert code == 65
    assert results(tmp_path / "out") == []


def test_people_and_sessions_without_a_scan_are_named(app, dataset, tmp_path):
    (dataset / "sub-01/anat/sub-01_FLAIR.nii.gz").write_bytes(b"no scan at all")  # it fails alone, and at once
    (dataset / "sub-03/anat").mkdir(parents=True)
    shutil.copy(dataset / "sub-02/ses-b/anat/sub-02_ses-b_T1w.nii.gz", dataset / "sub-03/anat/sub-03_T1w.nii.gz")
    (dataset / "sub-04").mkdir()
    how = ("--skip-bids-validation", "--participant-label")
    code, said = app(tmp_path / "out", *how, "01", "sub-03", "04")
    assert code == 3
    assert "warning: 2 participants of --participant-label have no scan to process: sub-03, sub-04" in said.err
    code, said = app(tmp_path / "out", *how, "03")
    assert code == 66
    assert "got T1w only" in said.err
    assert said.err.strip().endswith("looked for FLAIR; --modality T1w takes what is there")


@pytest.mark.slow
def test_two_scans_of_one_name_fail_and_stop_no_other(app, dataset, tmp_path):
    scan = dataset / "sub-01/anat/sub-01_FLAIR.nii.gz"
    nibabel.save(nibabel.load(scan), scan.with_name("sub-01_FLAIR.nii"))
    code, said = app(tmp_path / "out", "--skip-bids-validation")
    assert code == 3
    assert "scans need different names, got sub-01_FLAIR for 'sub-01_FLAIR.nii' and 'sub-01_FLAIR.nii.gz'" in said.err
    assert results(tmp_path / "out") == [SECOND, THIRD]
    (failed,) = read_failed(tmp_path / "out" / FAILED).values()
    assert "need different names" in failed


@pytest.mark.slow
def test_the_group_table_repeats_the_results(app, command, dataset, tmp_path):
    output = tmp_path / "out"
    assert app(output)[0] == 0
    code, said = command("bids", dataset, output, "group")
    assert code == 0
    assert said.out.strip().endswith("group_anomaly.tsv")
    columns = json.loads((output / "group_anomaly.json").read_text())
    for name, row in zip((FIRST, SECOND, THIRD), table(output), strict=True):
        assert list(row) == list(columns)
        told = json.loads((output / name).read_text())
        assert row["scan"] == told["input_in_dataset"]
        assert int(row["n_findings"]) == told["n_lesions"]
        assert float(row["anomaly_volume_ml"]) == told["lesion_volume_ml"]
        assert int(row["n_flags"]) == len(told["qc"]["flags"])
        peak = [float(line.split("\t")[2]) for line in _lesions(output / name)]
        assert row["peak_score"] == (str(max(peak)) if peak else "n/a")
    assert "warning: the results are of" not in said.err
    # A later run that fails, and one with another model.
    where = json.loads((output / FIRST).read_text())["input_in_dataset"]
    record = {"input_in_dataset": where, "error": "no memory"}
    (output / "logs").mkdir(exist_ok=True)
    (output / "logs" / f"{Path(where).name.partition('.')[0]}.json").write_text(json.dumps(record))
    told = json.loads((output / SECOND).read_text())
    (output / SECOND).write_text(json.dumps(told | {"model_sha256": "0" * 64}))
    code, said = command("bids", dataset, output, "group")
    assert f"warning: 1 result of an earlier run, as the last one failed: {where}" in said.err
    assert "warning: the results are of 2 models (column model_sha256)" in said.err
    assert table(output)[0]["notes"].startswith("the result of an earlier run; the last one failed: no memory")


def _lesions(provenance):
    return (
        provenance.with_name(provenance.name.replace("_provenance.json", "_lesions.tsv")).read_text().splitlines()[1:]
    )


@pytest.mark.slow
def test_several_processes_give_the_same(app, tmp_path):
    assert app(tmp_path / "one", "--modality", "FLAIR", "--session-label", "a", "b")[0] == 0
    code, said = app(
        tmp_path / "two", "--modality", "FLAIR", "--session-label", "a", "b", "--n-procs", 2, "--threads", 1
    )
    assert code == 0, said.err
    assert results(tmp_path / "two") == results(tmp_path / "one") == [SECOND, THIRD]
    for path in (tmp_path / "one").rglob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


@pytest.mark.slow
def test_temporary_files_lie_where_asked_and_leave_nothing(app, dataset, tmp_path, monkeypatch):
    from halebrain.preprocessing import pipeline

    real, seen = pipeline.Preprocessor.run, []

    def spying(self, *arguments, **settings):
        seen.append(tempfile.mkdtemp())
        return real(self, *arguments, **settings)

    monkeypatch.setattr(pipeline.Preprocessor, "run", spying)
    work = tmp_path / "scratch"
    assert app(tmp_path / "out", "-w", work, "--participant-label", "01")[0] == 0
    assert [folder for folder in seen if str(work) in folder] == seen != []
    assert list(work.iterdir()) == []
    assert str(work) not in tempfile.gettempdir()


@pytest.mark.slow
def test_what_is_refused_before_anything_is_done(app, command, dataset, small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "bundled_folder", lambda: tmp_path / "no_weights")
    for output, arguments, expected, word in (
        (dataset / "out", (), 2, "must not be written into the raw data"),
        (dataset / "derivatives/mine", (), 2, "'halebrain' in the name"),
        (tmp_path / "out", ("--participant-label", "07"), 2, "there are 01, 02"),
        (tmp_path / "out", ("--session-label", "z"), 2, "there are a, b"),
        (tmp_path / "out", ("--modality", "CT"), 2, "known: FLAIR"),
        (tmp_path / "out", ("--threshold", "dice"), 2, "stored"),
        (tmp_path / "out", ("--bids-filter-file", tmp_path / "none"), 66, "filter file must exist"),
        (tmp_path / "out", ("--device", "cuda:99"), 69, "cuda:99"),
    ):
        code, said = app(output, *arguments)
        assert code == expected, said.err
        assert word in said.err
        assert results(tmp_path) == []
    assert command("bids", dataset, tmp_path / "out", "participant")[0] == 69  # no model is there
    assert command("bids", tmp_path / "none", tmp_path / "out", "participant", "-m", small_model)[0] == 66
    assert command("bids", dataset, tmp_path / "empty", "group")[0] == 66
    assert command("bids", dataset, tmp_path / "out", "session", "-m", small_model)[0] == 2


@pytest.mark.slow
def test_a_data_set_that_is_not_valid_is_refused_unless_told(app, validator, dataset, tmp_path):
    (dataset / "sub-01/anat/sub-01_what_ever.nii.gz").write_bytes(b"")
    code, said = app(tmp_path / "out", "--participant-label", "01")
    assert code == 65
    assert "must be valid BIDS" in said.err
    assert app(tmp_path / "out", "--participant-label", "01", "--skip-bids-validation")[0] == 0


@pytest.mark.slow
def test_without_the_validator_it_says_so(app, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("halebrain.workflows.bids_app.find_validator", lambda: None)
    code, said = app(tmp_path / "out", "--participant-label", "01")
    assert code == 0
    assert "halebrain[bids]" in said.err
    (dataset / "dataset_description.json").write_text('{"Name": "x"}')
    code, said = app(tmp_path / "out")
    assert code == 65
    assert "no BIDSVersion" in said.err


@pytest.mark.slow
def test_detect_writes_a_derivative_of_a_bids_data_set(command, small_model, dataset, validator, tmp_path):
    settings = ("-m", small_model, "--threshold", 0.1, "--no-progress")
    code, said = command("detect", "-i", dataset, "-o", tmp_path / "out", *settings)
    assert code == 0, said.err
    assert results(tmp_path / "out") == [FIRST, SECOND, THIRD, T1]
    assert validation_errors(validator, tmp_path / "out") == []
    assert command("detect", "-i", dataset, "-o", dataset / "out", *settings)[0] == 2
