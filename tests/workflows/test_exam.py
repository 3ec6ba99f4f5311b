"""Detection on exams: files, figures, one scan alone, and bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

import halebrain
from halebrain.cli.detect import exams_summed_up
from halebrain.core.errors import CannotWriteError, DataError, HalebrainError, UsageError
from halebrain.core.exam_provenance import read_exam_provenance
from halebrain.core.progress import ProgressBar
from halebrain.inference.exam_outputs import ExamNames, OwnScore, exam_findings, read_findings
from halebrain.inference.exams import find_exams
from halebrain.inference.fusion import DEFAULT
from halebrain.inference.lesions import lesion_table
from halebrain.io.manifest import Manifest
from halebrain.io.tables import read_table
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.thresholds.calibration import Calibration, Threshold
from halebrain.workflows.detect import detect_scans
from halebrain.workflows.detector import load_detector
from halebrain.workflows.exam import detect_exam, detect_exams
from halebrain.workflows.exam_detector import find_exam
from halebrain.workflows.exam_page import ShownExam
from halebrain.workflows.fill import fill_exam, fill_exams, fill_scan
from halebrain.workflows.remake_exam import remake_locked_exam
from halebrain.workflows.remake_settings import RemakeSettings
from halebrain.workflows.settings import DetectSettings

ROWS = [("p", "T1w", "test", "ms"), ("p", "FLAIR", "test", "ms"), ("q", "T2w", "test", "ms")]


@pytest.fixture
def settings(small_model):
    """Settings that collect what is reported in the list `said`."""
    said = []
    made = DetectSettings(model=small_model, threshold="0.3", device="cpu", notify=said.append)
    return made, said


@pytest.fixture
def exam(small_cohort):
    """A manifest of one person with T1 and FLAIR, whose lesion is the same."""
    return small_cohort(ROWS[:2])


def test_one_answer_on_the_grid_of_every_scan(exam, settings, tmp_path):
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    assert found.exam == "sub-p"
    assert found.contrasts == {"sub-p_T1w": "T1w", "sub-p_FLAIR": "FLAIR"}
    for name in found.contrasts:
        score, mask = (nibabel.load(paths[name]).get_fdata() for paths in (found.scores, found.masks))
        assert np.array_equal(mask > 0, score >= 0.3)
    assert found.report.is_file()
    assert found.provenance.is_file()
    made = read_exam_provenance(found.provenance)
    assert made.reason == "all of subject p in the manifest"
    assert made.reference == "sub-p_T1w"
    assert made.n_findings == len(read_table(found.findings, what="a table").rows)
    assert json.loads(json.dumps(found.to_json(), default=str))["exam"] == "sub-p"


def test_findings_state_what_each_contrast_alone_shows(exam, settings):
    (one,) = find_exams([exam])
    detector = load_detector(settings[0])
    found = find_exam(detector, one)
    assert found.findings, "the untrained model marks something at this threshold"
    for finding in found.findings:
        inside = np.zeros(found.reference.mask.shape, bool)
        inside[finding.lesion.peak] = True
        assert [support.contrast for support in finding.support] == ["T1w", "FLAIR"]
        own = finding.support[0]
        assert own.peak_score is not None
        assert own.peak_score >= found.reference.own.score[inside].max() - 1e-4


def test_the_share_of_a_contrast_is_one_of_what_it_shows_and_is_described_so(exam, settings, tmp_path):
    mask = np.zeros((4, 4, 4), bool)
    mask[:, 1, 1] = True
    inside = np.zeros_like(mask)
    inside[0] = True  # a slab that ends within the finding
    own = OwnScore("sub-p_FLAIR", "FLAIR", np.full(mask.shape, 0.6, np.float32), inside, 0.5)
    lesions = lesion_table(mask, own.score, np.eye(4), np.eye(4))
    ((support,),) = (finding.support for finding in exam_findings(mask, lesions, [own]))
    assert (support.seen, support.share, support.peak_score) == (0.25, 1.0, 0.6)
    at = replace(own, threshold=float(np.float32(0.6)))
    ((support,),) = (finding.support for finding in exam_findings(mask, lesions, [at]))
    assert support.share == 1.0, "as a mask, which holds what reaches its threshold"
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    columns = json.loads(found.findings.with_suffix(".json").read_text())
    assert "Share of what FLAIR shows of the finding" in columns["share_FLAIR"]["Description"]
    assert "share of what it shows of the finding" in found.report.read_text()


def test_one_scan_alone_is_todays_result_to_the_bit(small_cohort, settings, tmp_path):
    manifest = small_cohort(ROWS[1:2])
    (alone,) = detect_scans(manifest, tmp_path / "scan", settings[0]).scans
    (exam,) = detect_exams([manifest], tmp_path / "exam", settings[0]).results
    for one, other in ((alone.score, exam.scores["sub-p_FLAIR"]), (alone.mask, exam.masks["sub-p_FLAIR"])):
        assert np.array_equal(nibabel.load(one).get_fdata(), nibabel.load(other).get_fdata())
    assert exam.exam_score == alone.scan_score
    assert exam.n_findings == alone.n_lesions
    assert exam.findings_ml == alone.lesion_volume_ml
    of_scan, of_exam = (
        json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text(encoding="utf-8"))
        for path in (alone.mask, exam.masks["sub-p_FLAIR"])
    )
    del of_scan["Description"]
    assert of_scan.items() <= of_exam.items()


def test_finished_exams_are_kept_and_those_of_other_settings_refused(exam, settings, tmp_path):
    options, _ = settings
    (first,) = detect_exams([exam], tmp_path / "out", options).results
    written = first.provenance.stat().st_mtime_ns
    (again,) = detect_exams([exam], tmp_path / "out", options).results
    assert again == first
    assert first.provenance.stat().st_mtime_ns == written
    with pytest.raises(CannotWriteError, match="other settings exist, got another fusion"):
        detect_exams([exam], tmp_path / "out", options, fusion="mean")
    with pytest.raises(CannotWriteError, match="got another seed"):
        detect_exams([exam], tmp_path / "out", replace(options, seed=5))
    first.findings.unlink()
    detect_exams([exam], tmp_path / "out", options)
    assert first.findings.is_file()


@pytest.mark.slow
def test_a_scan_that_fits_nobody_is_an_exam_of_its_own_and_reported(small_cohort, settings, tmp_path):
    options, said = settings
    found = detect_exams([small_cohort(ROWS)], tmp_path / "out", options)
    assert [exam.exam for exam in found.results] == ["sub-p", "sub-q"]
    assert any("1 scan without another one" in line and "sub-q" in line for line in said)
    assert found.index is not None
    assert "sub-p" in found.index.read_text()
    said.clear()
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, row in zip(("anna_T1", "boris_FLAIR"), Manifest.read(small_cohort(ROWS[:2], "two")), strict=True):
        shutil.copy(row.image, folder / f"{name}.nii.gz")
    detect_exams([folder], tmp_path / "apart", options)
    assert any("2 scans without another one of the same person" in line for line in said)


def test_a_corrupted_scan_is_flagged_and_the_others_go_on(exam, settings, tmp_path):
    flair = next(row for row in Manifest.read(exam) if row.modality == "FLAIR")
    flair.image.write_bytes(flair.image.read_bytes()[:500])
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    assert list(found.contrasts) == ["sub-p_T1w"]
    assert set(found.not_used) == {"sub-p_FLAIR"}
    assert any(flag.startswith("sub-p_FLAIR is not used: ") for flag in found.flags)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["not readable", "not there"])
def test_of_a_scan_that_is_not_used_any_more_no_file_of_an_earlier_run_stays(exam, settings, tmp_path, how):
    options = replace(settings[0], also_fill=True)
    (found,) = detect_exams([exam], tmp_path / "out", options).results
    of_flair = sorted(path.name for path in found.folder.iterdir() if "FLAIR" in path.name)
    assert len(of_flair) == 14
    flair = next(row for row in Manifest.read(exam) if row.modality == "FLAIR")
    if how == "not readable":
        flair.image.write_bytes(b"no image")
    else:
        Manifest(tuple(row for row in Manifest.read(exam) if row != flair)).write(exam)
    (found,) = detect_exams([exam], tmp_path / "out", replace(options, overwrite=True)).results
    assert list(found.masks) == ["sub-p_T1w"]
    assert [path.name for path in found.folder.iterdir() if "FLAIR" in path.name] == []


def test_of_a_scan_that_is_not_used_any_more_no_filled_one_stays(exam, settings, tmp_path):
    options = replace(settings[0], fill=True)
    fill_exams([exam], tmp_path / "out", options, fusion=DEFAULT)
    flair = next(row for row in Manifest.read(exam) if row.modality == "FLAIR")
    flair.image.write_bytes(b"no image")
    fill_exams([exam], tmp_path / "out", replace(options, overwrite=True), fusion=DEFAULT)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["sub-p_desc-filled_T1w.json", "sub-p_desc-filled_T1w.nii.gz"]


def test_an_exam_whose_maps_should_not_be_relied_on_is_counted_as_one(exam, settings, tmp_path):
    scan = tmp_path / "sub-p_PDw.nii.gz"
    shutil.copy(next(iter(Manifest.read(exam))).image, scan)
    found = detect_exams([scan], tmp_path / "out", settings[0])
    assert "Do not rely on these maps" in found.results[0].report.read_text()
    assert found.results[0].to_json()["out_of_distribution"] is True
    assert exams_summed_up(found).endswith("; 1 unreliable (see the flags)")


def test_a_scan_that_was_mended_since_is_no_finished_exam(exam, settings, tmp_path):
    flair = next(row for row in Manifest.read(exam) if row.modality == "FLAIR")
    whole = flair.image.read_bytes()
    flair.image.write_bytes(whole[:500])
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    assert list(found.not_used) == ["sub-p_FLAIR"]
    detect_exams([exam], tmp_path / "out", settings[0])
    flair.image.write_bytes(whole)
    with pytest.raises(CannotWriteError, match="other settings"):
        detect_exams([exam], tmp_path / "out", settings[0])


def test_an_exam_without_a_usable_scan_fails_with_its_reason(exam, settings, tmp_path):
    for row in Manifest.read(exam):
        row.image.write_bytes(b"no image")
    with pytest.raises(DataError, match="one scan of an exam at least must be usable"):
        detect_exams([exam], tmp_path / "out", settings[0])


def test_an_exam_of_one_scan_fails_with_the_error_of_that_scan(small_cohort, settings, tmp_path):
    (row,) = Manifest.read(small_cohort(ROWS[:1]))
    row.image.write_bytes(b"")
    with pytest.raises(DataError, match=r"^a scan must be a readable NIfTI file, got an empty file"):
        detect_exams([row.image], tmp_path / "out", settings[0])
    row.image.unlink()
    row.image.symlink_to(tmp_path / "gone")
    with pytest.raises(HalebrainError) as raised:
        detect_exams([row.image.parent], tmp_path / "out", settings[0])
    assert "one scan of an exam" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_of_two_scans_of_one_contrast_the_better_is_used_and_that_is_stated(exam, settings, tmp_path):
    manifest = Manifest.read(exam)
    rows = [*manifest, replace(manifest.records[1], entities="run-2", image=manifest.records[0].image)]
    Manifest(tuple(rows)).write(tmp_path / "twice.tsv")
    (found,) = detect_exams([tmp_path / "twice.tsv"], tmp_path / "out", settings[0]).results
    assert sorted(str(contrast) for contrast in found.contrasts.values()) == ["FLAIR", "T1w"]
    ((name, reason),) = found.not_used.items()
    assert "FLAIR" in name
    assert reason.startswith("a second FLAIR")


def test_an_unknown_word_for_a_contrast_is_flagged(exam, settings, tmp_path):
    rows = [replace(row, modality="T9" if row.modality == "FLAIR" else row.modality) for row in Manifest.read(exam)]
    Manifest(tuple(rows)).write(tmp_path / "wrong.tsv")
    (found,) = detect_exams([tmp_path / "wrong.tsv"], tmp_path / "out", settings[0]).results
    assert any("the contrast 'T9' of the manifest is not known" in flag for flag in found.flags)


def test_one_contrast_cannot_be_stated_for_several_scans(exam, settings, tmp_path):
    options, _ = settings
    with pytest.raises(UsageError, match="--modality states the contrast of one scan"):
        detect_exams([exam], tmp_path / "out", replace(options, modality="FLAIR"))


def test_python_gives_what_the_command_writes(exam, settings, tmp_path):
    rows = {row.modality: row.image for row in Manifest.read(exam)}
    about = {"model": settings[0].model, "threshold": 0.3, "device": "cpu"}
    found = halebrain.detect_exam(rows, **about)
    (written,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    score = nibabel.load(written.scores[written.reference]).get_fdata()
    assert np.abs(found.score.get_fdata() - score).max() < 1 / 65535
    assert len(found.findings) == written.n_findings
    in_memory = halebrain.detect_exam({name: nibabel.load(path) for name, path in rows.items()}, **about)
    assert np.array_equal(in_memory.score.get_fdata(), found.score.get_fdata())
    assert [scan.contrast for scan in in_memory.scans] == ["T1w", "FLAIR"]
    saved = in_memory.save(tmp_path / "saved", name="patient")
    assert saved.report == tmp_path / "saved" / "patient_desc-exam_report.html"
    assert Path(saved.findings).is_file()
    assert found.provenance["fusion"] == DEFAULT


def test_dicom_seg_of_scans_that_are_no_dicom_is_refused_before_any_work(exam, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("halebrain.inference.predictor.Predictor.predict_working", None)
    with pytest.raises(UsageError, match="--dicom-seg needs DICOM"):
        detect_exams([exam], tmp_path / "out", replace(settings[0], dicom_seg=True))


@pytest.mark.slow
def test_every_scan_is_filled_where_the_mask_of_the_exam_is_and_nowhere_else(exam, settings, tmp_path):
    options = replace(settings[0], also_fill=True, fill_margin_mm=0.0)
    (found,) = detect_exams([exam], tmp_path / "out", options).results
    inputs = {row.scan_id: row.image for row in Manifest.read(exam)}
    assert set(found.filled) == set(inputs)
    for name, filled in found.filled.items():
        before, after = (nibabel.load(path) for path in (inputs[name], filled))
        changed = np.asanyarray(before.dataobj) != np.asanyarray(after.dataobj)
        assert not (changed & (nibabel.load(found.masks[name]).get_fdata() == 0)).any()
        assert changed.sum() * np.prod(before.header.get_zooms()) / 1000 == pytest.approx(
            found.filled_ml[name], rel=0.2
        )
        assert after.header.binaryblock == before.header.binaryblock
    again = detect_exams([exam], tmp_path / "out", options).results
    assert again == [found]
    with pytest.raises(CannotWriteError, match="other settings"):
        detect_exams([exam], tmp_path / "out", replace(options, fill_margin_mm=2.0))
    rows = {row.modality: row.image for row in Manifest.read(exam)}
    about = {"model": options.model, "threshold": 0.3, "device": "cpu", "fill": True, "fill_margin_mm": 0.0}
    in_memory = halebrain.detect_exam({name: nibabel.load(path) for name, path in rows.items()}, **about)
    for scan, path in zip(in_memory.scans, found.filled.values(), strict=True):
        assert np.array_equal(scan.filled.get_fdata(), nibabel.load(path).get_fdata())


def filling(exam, settings):
    """Return a detector that fills, and the exam."""
    return load_detector(replace(settings[0], fill=True)), next(iter(find_exams([exam])))


def test_the_filled_scan_of_an_exam_is_not_taken_for_that_of_the_scan_alone(exam, settings, tmp_path):
    detector, person = filling(exam, settings)
    fill_exam(detector, person, tmp_path / "out", fusion=DEFAULT)
    with pytest.raises(CannotWriteError, match="another way of filling"):
        fill_scan(detector, person.scans[0], tmp_path / "out")


def calibrated(detector, value):
    """Return a detector whose model stores one threshold."""
    about = {"method": "", "split": "val", "manifest_sha256": "", "n_scans": 1, "achieved": 1.0}
    stored = Calibration(default="ml:1", thresholds={"ml:1": Threshold(value=value, **about)}, subjects=())
    return replace(detector, selector=replace(detector.selector, calibration=stored))


def test_results_of_an_exam_depend_on_the_scale_of_its_scores_at_a_number_too(exam, settings, tmp_path):
    detector, person = load_detector(settings[0]), next(iter(find_exams([exam])))
    first = detect_exam(calibrated(detector, 0.3), person, tmp_path / "out")
    assert detect_exam(calibrated(detector, 0.3), person, tmp_path / "out") == first
    with pytest.raises(CannotWriteError, match="another calibration"):
        detect_exam(calibrated(detector, 0.4), person, tmp_path / "out")


@pytest.mark.slow
def test_the_page_at_another_threshold_states_no_filled_scan(exam, settings, tmp_path):
    said = settings[1]
    (found,) = detect_exams([exam], tmp_path / "out", replace(settings[0], also_fill=True)).results
    assert all(path.is_file() for path in found.filled.values())
    remake_locked_exam(found.provenance, RemakeSettings(threshold=0.5, notify=said.append))
    assert any("the lesion-filled scans of the old mask were removed" in line for line in said)
    assert not any(path.exists() for path in found.filled.values())
    for scan in read_exam_provenance(found.provenance).scans:
        own = scan.provenance
        assert (own.fill_margin_mm, own.fill_mask_sha256, own.filled_ml) == (None, None, None)


def test_filled_scans_of_another_command_stay_beside_an_exam(exam, settings, tmp_path):
    filled = fill_exams([exam], tmp_path / "out", replace(settings[0], fill=True), fusion=DEFAULT).results[0]
    files = {path: path.read_bytes() for path in filled.folder.iterdir()}
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    assert found.folder == filled.folder
    remake_locked_exam(found.provenance, RemakeSettings(threshold=0.5, notify=settings[1].append))
    assert {path: path.read_bytes() for path in files if path.exists()} == files


def test_a_contrast_supports_no_finding_outside_of_its_brain_at_another_threshold(exam, settings, tmp_path):
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    names = ExamNames(found.folder, found.exam)
    shown = ShownExam.of_file(names.display, scans=2)
    unseen = replace(shown, brains=[shown.brains[0], np.zeros_like(shown.brains[1])])
    names.display.write_bytes(unseen.to_file())
    remake_locked_exam(found.provenance, RemakeSettings(threshold=0.35, notify=settings[1].append))
    rows = read_table(names.findings, what="a table").rows
    assert rows
    assert {(row["share_FLAIR"], row["peak_FLAIR"]) for row in rows} == {("n/a", "n/a")}
    assert all(float(row["peak_T1w"]) > 0 for row in rows)


def test_support_at_another_threshold_is_read_where_the_template_places_it(exam, settings, tmp_path):
    (found,) = detect_exams([exam], tmp_path / "out", settings[0]).results
    # The scans lie in template space; here the template lies 12 mm beside them.
    raw = json.loads(found.provenance.read_text())
    for scan in raw["scans"]:
        scan["provenance"]["template_to_native"][0][3] += 12.0
    found.provenance.write_text(json.dumps(raw))
    remake_locked_exam(found.provenance, RemakeSettings(threshold=0.35, notify=settings[1].append))
    made = read_exam_provenance(found.provenance)
    names = ExamNames(found.folder, found.exam)
    shown = ShownExam.of_file(names.display, scans=2)
    image = nibabel.load(names.mask("sub-p_T1w"))
    mask, target = image.get_fdata() > 0, Grid(image.shape, image.affine)
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    back = np.linalg.inv(np.array(made.scans[0].provenance.template_to_native))
    source = Grid(shown.scores[1].shape, shown.affine)
    score, inside = (
        resample(data.astype(np.float32), source, target, target_to_source=back)
        for data in (shown.scores[1], shown.brains[1])
    )
    table, seen = read_findings(names.findings, made), 0
    for finding in table:
        here = (labels == labels[finding.lesion.peak]) & (inside > 0.5)
        support = finding.support[1]
        assert (support.share is None) == (not here.any())
        if here.any():
            seen += 1
            assert support.peak_score == pytest.approx(float(score[here].max()), abs=2e-4)
            share = float((score[here] >= made.scans[1].threshold).mean())
            assert support.share == pytest.approx(share, abs=2e-3)
    assert seen > 0


def test_the_filled_scans_of_an_exam_depend_on_the_scale_of_its_scores_at_a_number_too(exam, settings, tmp_path):
    detector, person = filling(exam, settings)

    def fill(value):
        fill_exam(calibrated(detector, value), person, tmp_path / "out", fusion=DEFAULT)

    fill(0.3)
    fill(0.3)
    with pytest.raises(CannotWriteError, match="another calibration"):
        fill(0.4)


def test_the_number_of_threads_changes_no_bit(exam, settings, tmp_path):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results += detect_exams([exam], tmp_path / str(threads), settings[0]).results
    finally:
        torch.set_num_threads(before)
    for path in results[0].folder.glob("*.nii.gz"):
        assert path.read_bytes() == (results[1].folder / path.name).read_bytes()
    assert results[0].findings.read_text() == results[1].findings.read_text()


def test_the_bar_moves_within_an_exam(exam, settings, tmp_path, monkeypatch):
    reached = []
    monkeypatch.setattr(ProgressBar, "reach", lambda bar, done, message="": reached.append((done, message)))
    detect_exams([exam], tmp_path / "out", settings[0])
    places = [done for done, _ in reached]
    assert places == sorted(places)
    assert sum(0 < done < 1 for done in places) > 6
    assert any(message == "sub-p_FLAIR: networks" for _, message in reached)
    assert places[-1] == 1


def test_results_of_exams_and_of_scans_alone_do_not_share_a_folder(small_cohort, settings, tmp_path):
    manifest, options = small_cohort(ROWS[1:2]), settings[0]
    detect_exams([manifest], tmp_path / "out", options)
    with pytest.raises(CannotWriteError, match="a folder with results of exams holds no others"):
        detect_scans(manifest, tmp_path / "out", options)
    detect_scans(manifest, tmp_path / "scan", options)
    with pytest.raises(CannotWriteError, match="a folder with results of scans alone holds no others"):
        detect_exams([manifest], tmp_path / "scan", options)
