"""Exams on the command line: detect, evaluate, calibrate and the BIDS App."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest

from halebrain.cli.view import open_server
from halebrain.core.errors import MissingInputError
from halebrain.core.exam_provenance import read_exam_provenance
from halebrain.core.failures import Failures
from halebrain.core.types import Volume
from halebrain.io.bids_validator import refuse_invalid
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tables import read_table
from halebrain.models.bundle import load_bundle
from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS
from halebrain.view.messages import Decide, Save
from halebrain.view.scan import ViewedScan
from halebrain.workflows import evaluate_exams
from halebrain.workflows.evaluate_exams import _moved, of_exams, with_exam_pathologies

PERSON = [("p", "T1w", "test", "ms"), ("p", "FLAIR", "test", "ms"), ("h", "T1w", "test", "healthy")]
PERSON += [("h", "FLAIR", "test", "healthy")]
HEALTHY = [(f"v{n}", modality, "val", "healthy") for n in range(5) for modality in ("T1w", "FLAIR")]


@pytest.fixture
def person(small_cohort):
    """The manifest of a patient and a healthy person, with T1 and FLAIR each."""
    return small_cohort(PERSON)


def test_several_inputs_are_one_exam(person, small_model, command, tmp_path):
    scans = [row.image for row in Manifest.read(person) if row.subject == "p"]
    about = ["-m", small_model, "--threshold", "0.3", "--device", "cpu", "--no-progress"]
    inputs = [word for scan in scans for word in ("-i", scan)]
    code, printed = command("detect", "--exam", *inputs, "-o", tmp_path / "out", *about, "--json")
    assert code == 0, printed.err
    found = json.loads(printed.out)
    assert set(found) == {"output", "index", "exams", "failed", "left_out"}
    (exam,) = found["exams"]
    assert exam["exam"] == "sub-p"
    assert exam["contrasts"] == {"sub-p_T1w": "T1w", "sub-p_FLAIR": "FLAIR"}
    code, printed = command("detect", *inputs, "-o", tmp_path / "other", *about)
    assert code == 2
    assert "several inputs are the scans of one exam, got 2 inputs without --exam; add --exam" in printed.err


def test_options_that_do_not_go_together_are_refused(person, small_model, command, tmp_path):
    scan = next(iter(Manifest.read(person))).image
    about = ["-i", scan, "-o", tmp_path / "out", "-m", small_model, "--threshold", "0.3", "--device", "cpu"]
    code, printed = command("detect", *about, "--fusion", "mean")
    assert (code, "--fusion needs --exam" in printed.err) == (2, True)
    code, printed = command("detect", *about, "--exam", "--brain-mask", scan)
    assert (code, "cannot be used with --exam" in printed.err) == (2, True)
    code, printed = command("detect", *about, "--exam", "--fill", "--fill-mask", scan)
    assert (code, "--fill-mask goes with one scan" in printed.err) == (2, True)
    code, printed = command("detect", *about, "--exam", "--fusion", "meam")
    assert (code, "did you mean 'mean'?" in printed.err) == (78, True)


def test_the_filled_scans_of_an_exam_are_written_alone(person, small_model, command, tmp_path):
    scans = [row.image for row in Manifest.read(person) if row.subject == "p"]
    inputs = [word for scan in scans for word in ("-i", scan)]
    about = ["--exam", *inputs, "-o", tmp_path / "out", "-m", small_model, "--threshold", "0.3", "--device", "cpu"]
    code, printed = command("detect", *about, "--fill", "--no-progress", "--json")
    assert code == 0, printed.err
    (exam,) = json.loads(printed.out)["exams"]
    filled = {scan["scan"]: scan for scan in exam["scans"]}
    assert set(filled) == {"sub-p_T1w", "sub-p_FLAIR"}
    names = [f"sub-p_desc-filled_{contrast}{end}" for contrast in ("FLAIR", "T1w") for end in (".json", ".nii.gz")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    sidecar = json.loads((tmp_path / "out" / "sub-p_desc-filled_T1w.json").read_text())
    assert (sidecar["Contrasts"], sidecar["Threshold"]) == (["T1w", "FLAIR"], 0.3)
    assert sidecar["FilledVolumeMl"] == filled["sub-p_T1w"]["filled_ml"] > 0
    stamp = (tmp_path / "out" / names[1]).stat().st_mtime_ns
    assert command("detect", *about, "--fill", "--no-progress")[0] == 0
    assert (tmp_path / "out" / names[1]).stat().st_mtime_ns == stamp
    code, printed = command("detect", *about, "--fill", "--fill-margin-mm", 6)
    assert (code, "filled scans made with other settings exist" in printed.err) == (73, True)


@pytest.fixture
def detected(person, small_model, command, tmp_path):
    """The folder of an exam, and the table of its findings."""
    scans = [row.image for row in Manifest.read(person) if row.subject == "p"]
    inputs = [word for scan in scans for word in ("-i", scan)]
    about = ["-o", tmp_path / "out", "-m", small_model, "--threshold", "0.3", "--device", "cpu", "--no-progress"]
    code, printed = command("detect", "--exam", *inputs, *about)
    assert code == 0, printed.err
    return tmp_path / "out", lambda: read_table(tmp_path / "out" / "sub-p_desc-exam_findings.tsv", what="a table").rows


def test_the_page_of_an_exam_is_made_again_with_another_threshold_and_back(detected, command):
    out, findings = detected
    before, page = findings(), out / "sub-p_desc-exam_report.html"
    page.unlink()
    code, printed = command("report", out, "--json")
    assert code == 0, printed.err
    assert json.loads(printed.out)["pages"] == [str(page)]
    assert findings() == before
    first = page.read_bytes()
    assert b"exam-level score" in first
    code, printed = command("report", out, "--threshold", 0.5)
    assert code == 0, printed.err
    for contrast in ("T1w", "FLAIR"):
        score = nibabel.load(out / f"sub-p_rec-{contrast}_desc-exam_probseg.nii.gz").get_fdata()
        mask = nibabel.load(out / f"sub-p_rec-{contrast}_desc-exam_mask.nii.gz").get_fdata()
        assert np.array_equal(mask > 0, score >= 0.5)
    made = read_exam_provenance(out / "sub-p_desc-exam_provenance.json")
    assert (made.threshold.value, made.n_findings) == (0.5, len(findings()))
    assert findings() != before
    assert command("report", out, "--threshold", 0.3)[0] == 0
    for row, old in zip(findings(), before, strict=True):
        for column in (
            "volume_ml",
            "peak_score",
            "mean_score",
            "i",
            "j",
            "k",
            "region",
            "share_T1w",
            "share_FLAIR",
            "peak_T1w",
            "peak_FLAIR",
        ):
            assert row[column] == old[column]
    assert page.read_bytes() != first, "its threshold is one that was set by hand"
    (out / "sub-p_desc-exam_display.npz").write_bytes(b"damaged")
    code, printed = command("report", out)
    assert (code, "the volumes of a page must be intact" in printed.err) == (65, True)


def test_the_methods_of_an_exam_are_those_of_its_reference(detected, command):
    out, _ = detected
    path = out / "sub-p_desc-exam_provenance.json"
    made = json.loads(path.read_text())
    assert made["scans"][0]["contrast"] == "T1w"
    own = {"contrasts": [["T1w"], ["FLAIR"], []], "neighbours_each": [[], [], []]}
    own |= {"through_plane_by_contrast": {"T1w": [3.0, 0.0]}}
    made["scans"][0]["provenance"]["method"] |= own
    path.write_text(json.dumps(made))
    code, printed = command("report", out)
    assert code == 0, printed.err
    page = (out / "sub-p_desc-exam_report.html").read_text()
    assert "A segmentation network trained on T1w scans processed" in page
    assert "smoothed across slices (Gaussian, standard deviation 3 mm)" in page


def test_an_exam_is_reviewed_as_a_scan_is(detected):
    out, findings = detected
    server = open_server(out)
    try:
        visit = server.visit
        assert visit.start == "/sub-p_desc-exam_report.html"
        _, served = visit.read(visit.start)
        assert b'id="review"' in served
        about = ViewedScan.at(out / visit.start[1:]).review()
        decision = Decide(do="decide", mask_sha256=about["mask_sha256"], lesion=1, decision="accepted", note="seen")
        assert visit.change(visit.start, decision)["decisions"]["1"]["note"] == "seen"
        (row,) = read_table(out / "sub-p_desc-exam_review.tsv", what="a table").rows
        assert (row["decision"], row["volume_ml"]) == ("accepted", findings()[0]["volume_ml"])
        save = Save(do="save", mask_sha256=about["mask_sha256"], threshold=0.5, min_lesion_mm3=0)
        assert visit.change(visit.start, save)["mask_sha256"] != about["mask_sha256"]
    finally:
        server.stop()
    assert read_exam_provenance(out / "sub-p_desc-exam_provenance.json").threshold.value == 0.5


@pytest.mark.slow
def test_evaluate_compares_exams_with_each_contrast_alone(person, small_model, command, tmp_path):
    about = ["--manifest", person, "--threshold", "0.3", "-o", tmp_path / "out", "--device", "cpu", "--no-progress"]
    code, printed = command("evaluate", small_model, *about, "--exams", "--json")
    assert code == 0, printed.err
    found = json.loads(printed.out)
    methods = {entry["method"] for entry in found["summaries"]}
    assert methods == {"model", "mean of scores", "T1w alone", "FLAIR alone"}
    assert found["provenance"]["scans"] == "exams: all scans of a subject and session together, fused by root_odds"
    scored = {row["scan_id"] for row in read_table(tmp_path / "out" / "scans.tsv", what="a table").rows}
    assert scored == {"sub-p_FLAIR+T1w", "sub-h_FLAIR+T1w"}
    assert {row["modality"] for row in read_table(tmp_path / "out" / "scans.tsv", what="a table").rows} == {"FLAIR+T1w"}
    whole = (tmp_path / "out" / "summary.json").read_bytes()
    (tmp_path / "out" / "summary.json").unlink()
    for part in (1, 0):
        assert not (tmp_path / "out" / "summary.json").exists()
        where = ("--part-id", part, "--num-parts", 2)
        assert command("evaluate", small_model, *about, "--exams", *where)[0] == 0
    assert (tmp_path / "out" / "summary.json").read_bytes() == whole
    code, printed = command("evaluate", small_model, *about, "--exams", "--baselines")
    assert (code, "exams are evaluated on the grid of their reference scan" in printed.err) == (2, True)


@pytest.mark.slow
def test_thresholds_of_exams_are_calibrated_beside_those_of_scans(small_cohort, person, small_model, command, tmp_path):
    manifest = small_cohort(HEALTHY, "healthy")
    about = ["--manifest", manifest, "--device", "cpu", "--no-progress"]
    code, printed = command("calibrate", small_model, *about, "--exams", "-o", tmp_path / "early")
    assert (code, "run halebrain calibrate without --exams and --name first" in printed.err) == (66, True)
    named = tmp_path / "named"
    assert command("calibrate", small_model, *about, "--name", "ours", "-o", named)[0] == 0
    code, printed = command("calibrate", named, *about, "--exams")
    assert (code, "got thresholds of named data sets alone" in printed.err) == (66, True)
    code, printed = command("calibrate", small_model, *about)
    assert code == 0, printed.err
    scans = [row.image for row in Manifest.read(person) if row.subject == "p"]
    inputs = [word for scan in scans for word in ("-i", scan)]
    detect = ["detect", "--exam", *inputs, "-m", small_model, "--device", "cpu", "--no-progress", "--json"]
    at_a_number = [*detect, "--threshold", "0.3", "-o", tmp_path / "before"]
    for _ in range(2):
        code, printed = command(*at_a_number)
        assert (code, json.loads(printed.out)["exams"][0]["exam_score_percentile"]) == (0, None)
    code, printed = command("calibrate", small_model, *about, "--exams", "--json")
    assert code == 0, printed.err
    table = json.loads(printed.out)["modalities"]
    assert set(table) == {"FLAIR", "FLAIR+T1w", "T1w"}
    code, printed = command(*at_a_number)
    assert (code, "other settings exist, got another calibration" in printed.err) == (73, True), "has a percentile now"
    code, printed = command(*detect, "-o", tmp_path / "calibrated")
    assert code == 0, printed.err
    (exam,) = json.loads(printed.out)["exams"]
    assert exam["threshold"]["value"] == table["FLAIR+T1w"]["fpr:0.01"]["value"]
    assert exam["threshold"]["n_scans"] == 5
    assert exam["exam_score_percentile"] is not None
    code, printed = command(*detect, "-o", tmp_path / "mean", "--fusion", "mean")
    (exam,) = json.loads(printed.out)["exams"]
    assert "not calibrated on exams" in exam["threshold"]["method"]
    assert exam["exam_score_percentile"] is None
    # Another data set changes nothing of them, and the model says so by keeping them.
    code, printed = command("calibrate", small_model, *about, "--name", "ours")
    assert code == 0, printed.err
    assert "thresholds of exams" not in printed.err
    assert "FLAIR+T1w" in load_bundle(small_model).calibration["modalities"]


def with_mask_on_flair_alone(manifest, path):
    """Write the table of a cohort whose T1w scans state neither lesion nor pathology, and return its path."""
    rows = Manifest.read(manifest)
    bare = [replace(row, lesion=None, pathology=None) if row.modality == "T1w" else row for row in rows]
    replace(rows, records=tuple(bare)).write(path)
    return path


@pytest.mark.slow
def test_a_mask_on_one_contrast_is_that_of_the_whole_exam(person, small_model, command, tmp_path):
    about = ["--threshold", "0.3", "--pathology", "ms", "--exams", "--device", "cpu", "--no-progress"]
    (tmp_path / "tables").mkdir()
    one = with_mask_on_flair_alone(person, tmp_path / "tables" / "one.tsv")
    tables = []
    for number, manifest in enumerate((person, one)):
        code, printed = command("evaluate", small_model, "--manifest", manifest, *about, "-o", tmp_path / f"{number}")
        assert code == 0, printed.err
        tables.append(read_table(tmp_path / f"{number}" / "scans.tsv", what="a table").rows)
    assert {row["scan_id"] for row in tables[1]} == {"sub-p_FLAIR+T1w"}
    assert tables[0] == tables[1], "as with a mask on each contrast"


def test_a_mask_moves_with_the_scan_that_it_was_drawn_on():
    # A scan of voxels of 2 mm, which a shift of 6 mm brings to the reference of 1 mm.
    own = SimpleNamespace(
        volume=Volume(np.zeros((8, 8, 8), np.float32), np.diag([2.0, 2, 2, 1])), to_reference=np.eye(4)
    )
    own.to_reference[0, 3] = 6.0
    reference = SimpleNamespace(volume=Volume(np.zeros((24, 16, 16), np.float32), np.eye(4)), to_reference=np.eye(4))
    lesion = np.zeros((8, 8, 8), bool)
    lesion[3, 4, 4] = True  # at 6, 8, 8 mm
    moved = _moved(lesion, own, reference)
    assert np.argwhere(moved).tolist() == [[12, 8, 8]]
    assert _moved(lesion, own, own) is lesion


def test_an_exam_whose_annotated_scan_cannot_be_used_fails(person, small_model, command, tmp_path):
    one = with_mask_on_flair_alone(person, tmp_path / "one.tsv")
    next(row.image for row in Manifest.read(one) if row.scan_id == "sub-p_FLAIR").write_bytes(b"damaged")
    about = ["--threshold", "0.3", "--exams", "-o", tmp_path / "out", "--device", "cpu", "--no-progress"]
    code, printed = command("evaluate", small_model, "--manifest", one, *about)
    assert code == 3
    assert "sub-p: the annotated scan of an exam must be usable, got sub-p_FLAIR (" in printed.err
    assert {row["scan_id"] for row in read_table(tmp_path / "out" / "scans.tsv", what="a table").rows} == {
        "sub-h_FLAIR+T1w"
    }


@pytest.mark.slow
def test_patients_with_a_mask_on_one_contrast_calibrate_exams(small_cohort, small_model, command, tmp_path):
    manifest = small_cohort(HEALTHY, "healthy")
    patients = small_cohort([("q", modality, "val", "ms") for modality in ("T1w", "FLAIR")], "patients")
    (tmp_path / "tables").mkdir()
    one = with_mask_on_flair_alone(patients, tmp_path / "tables" / "one.tsv")
    about = ["--manifest", manifest, "--device", "cpu", "--no-progress"]
    assert command("calibrate", small_model, *about)[0] == 0
    code, printed = command(
        "calibrate", small_model, *about, "--patients", one, "--exams", "--pathology", "ms", "--json"
    )
    assert code == 0, printed.err
    assert "dice" in json.loads(printed.out)["modalities"]["FLAIR+T1w"]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (("ms", None), ("ms", "ms")),
        (("ms", "tumour"), ("ms", "tumour")),
        ((None, "healthy"), (None, "healthy")),
        ((None, "ms"), ("ms", "ms")),
    ],
)
def test_a_pathology_holds_for_the_exam(stated, expected):
    masks, (flair, t1) = (Path("mask.nii"), None), stated
    records = [
        ScanRecord("p", Path(f"{modality}.nii"), modality, pathology=pathology, lesion=mask)
        for modality, pathology, mask in zip(("FLAIR", "T1w"), (flair, t1), masks, strict=True)
    ]
    assert tuple(row.pathology for row in with_exam_pathologies(Manifest(tuple(records)))) == expected


def test_exams_keep_contrasts_without_a_mask_and_no_second_scan_of_one_with():
    def row(subject, modality, *, entities=None, **about):
        return ScanRecord(subject, Path(f"{subject}_{modality}.nii"), modality, entities=entities, **about)

    kept = [row("p", "FLAIR", lesion=Path("mask.nii")), row("p", "T1w"), row("h", "FLAIR", pathology="healthy")]
    left = [row("p", "FLAIR", entities="run-2"), row("q", "T1w")]
    found = of_exams(Manifest((*kept, *left)), lambda r: r.is_annotated or r.is_healthy)
    assert list(found) == kept


def test_an_exam_gets_no_row_whose_disease_or_health_the_selection_left_out():
    def row(modality, **about):
        return ScanRecord("p", Path(f"p_{modality}.nii"), modality, **about)

    kept = [row("FLAIR", pathology="ms", lesion=Path("mask.nii")), row("T1w")]
    left = [row("T2w", pathology="tumour", lesion=Path("other.nii")), row("PDw", pathology="healthy")]
    assert list(of_exams(Manifest((*kept, *left)), lambda r: r.pathology == "ms")) == kept


def test_exams_of_one_person_are_not_enough_people(monkeypatch):
    exams = [SimpleNamespace(name=f"sub-h_ses-{number}", scans=[]) for number in range(MIN_HEALTHY_SCANS)]
    scored = SimpleNamespace(
        lesion=np.zeros(1, bool),
        record=SimpleNamespace(is_healthy=True),
        found=SimpleNamespace(made=SimpleNamespace(not_used={})),
    )
    monkeypatch.setattr(evaluate_exams, "exams_of_manifest", lambda rows: exams)
    monkeypatch.setattr(evaluate_exams, "score_exam", lambda *_, **__: scored)
    kept = [("FLAIR+T1w", SimpleNamespace(subject="h"))]
    monkeypatch.setattr(evaluate_exams, "_scored_subsets", lambda *_: kept)
    about = {"fusion": "mean", "population_fraction": 0.5, "failures": Failures(None)}
    rows = Manifest((ScanRecord("h", Path("h.nii"), "FLAIR"),))
    with pytest.raises(MissingInputError, match=r"healthy people with the same contrasts, got 1 of FLAIR\+T1w"):
        evaluate_exams.fit_exam_calibration(None, rows, None, **about)


@pytest.mark.slow
def test_evaluations_and_calibrations_report_the_scans_that_they_leave_out(
    small_cohort, small_model, command, tmp_path
):
    doubled = [(f"v{n}", modality, "val", "healthy") for n in range(5) for modality in ("T1w", "FLAIR")]
    manifest = small_cohort(doubled, "healthy")
    rows = Manifest.read(manifest)
    shutil.copy(rows.records[0].image, tmp_path / "second.nii.gz")
    second = replace(rows.records[0], image=tmp_path / "second.nii.gz", entities="acq-second")
    replace(rows, records=(*rows.records, second)).write(tmp_path / "both.tsv")
    about = ["--manifest", tmp_path / "both.tsv", "--device", "cpu", "--no-progress"]
    assert command("calibrate", small_model, *about)[0] == 0
    code, printed = command("calibrate", small_model, *about, "--exams")
    assert code == 0, printed.err
    assert "is not used: a second T1w" in printed.err


@pytest.fixture
def dataset(person, tmp_path):
    """A BIDS data set of the person, with two scans."""
    anat = tmp_path / "study" / "sub-p" / "anat"
    anat.mkdir(parents=True)
    for row in Manifest.read(person):
        if row.subject == "p":
            shutil.copy(row.image, anat / f"sub-p_{row.modality}.nii.gz")
    about = {"Name": "study", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (tmp_path / "study" / "dataset_description.json").write_text(json.dumps(about))
    return tmp_path / "study"


def test_the_bids_app_gives_one_answer_for_a_session(dataset, small_model, command, tmp_path):
    about = ["-m", small_model, "--threshold", "0.3", "--skip-bids-validation", "--no-progress"]
    about += ["--modality", "T1w", "--modality", "FLAIR"]
    code, printed = command("bids", dataset, tmp_path / "derivative", "participant", *about, "--json")
    assert code == 0, printed.err
    (exam,) = json.loads(printed.out)["exams"]
    assert exam["exam"] == "sub-p"
    anat = tmp_path / "derivative" / "sub-p" / "anat"
    assert (anat / "sub-p_desc-exam_report.html").is_file()
    assert (anat / "sub-p_rec-FLAIR_desc-exam_mask.nii.gz").is_file()
    sidecar = json.loads((anat / "sub-p_rec-FLAIR_desc-exam_mask.json").read_text())
    assert sidecar["Sources"] == ["bids:raw:sub-p/anat/sub-p_T1w.nii.gz", "bids:raw:sub-p/anat/sub-p_FLAIR.nii.gz"]
    code, printed = command("bids", dataset, tmp_path / "derivative", "group")
    assert code == 0, printed.err
    (row,) = read_table(tmp_path / "derivative" / "group_anomaly.tsv", what="a table").rows
    assert (row["participant_id"], row["modality"], row["status"]) == ("sub-p", "FLAIR+T1w", "done")
    page = (tmp_path / "derivative" / "index.html").read_text()
    assert "sub-p/anat/sub-p_desc-exam_report.html" in page
    # The former option for what is the default now is understood, and finds the same result.
    code, printed = command("bids", dataset, tmp_path / "derivative", "participant", *about, "--exams")
    assert (code, "--exams is the default now" in printed.err) == (0, True)
    for other in ("--exams", "--fusion=mean"):
        code, printed = command("bids", dataset, tmp_path / "other", "participant", *about, "--each-scan", other)
        assert (code, "--each-scan exclude each other" in printed.err) == (2, True)
    assert not (tmp_path / "other").exists()


def test_the_derivative_of_exams_is_valid_bids(dataset, small_model, command, tmp_path, validator):
    about = ["-m", small_model, "--threshold", "0.3", "--skip-bids-validation", "--no-progress"]
    about += ["--modality", "T1w", "--modality", "FLAIR"]
    code, printed = command("bids", dataset, tmp_path / "derivative", "participant", *about)
    assert code == 0, printed.err
    refuse_invalid(validator, tmp_path / "derivative")
