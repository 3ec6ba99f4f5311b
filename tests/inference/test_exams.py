"""Which scans of an input form an exam, and why."""

import json

import nibabel
import numpy as np
import pytest
from dicom_maker import Maker
from pydicom.uid import generate_uid

from halebrain.core.errors import DataError, UsageError
from halebrain.inference.exams import (
    Exam,
    _named_apart,
    contrast_by_name,
    exams_of_manifest,
    find_exams,
    given_exam,
    is_known_contrast,
)
from halebrain.io.manifest import Manifest, ScanRecord


@pytest.fixture
def files(tmp_path, rng):
    """Write scans of noise below a folder, by relative path, and return it."""

    def make(*names, folder="input"):
        root = tmp_path / folder
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            data = rng.random((20, 20, 20)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(data, np.diag([8.0, 8, 8, 1])), root / name)
        return root

    return make


def found_in(*sources):
    """Return exam → names of its scans."""
    return {exam.name: sorted(scan.name for scan in exam.scans) for exam in find_exams(sources)}


def test_scans_that_are_given_in_python_never_share_a_name(files):
    root = files("T1_3.nii.gz", "a/T1.nii.gz", "b/T1.nii.gz")
    names = [scan.name for scan in given_exam([root / "T1_3.nii.gz", root / "a/T1.nii.gz", root / "b/T1.nii.gz"]).scans]
    assert names == ["T1_3", "T1", "T1_3_3"]


def test_a_list_of_scans_elsewhere_names_exams_by_what_tells_them_apart(tmp_path):
    lines = []
    for name in ("study/a/p1_T1.nii.gz", "study/a/p1_FLAIR.nii.gz", "study/b/p2_T1.nii.gz", "study/b/p2_FLAIR.nii.gz"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        lines.append(str(path))
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "scans.txt"
    listed.write_text("\n".join(lines), encoding="utf-8")
    assert [exam.name for exam in find_exams([listed])] == ["a_p1", "b_p2"]
    listed.write_text("\n".join(lines[:2]), encoding="utf-8")
    assert [exam.name for exam in find_exams([listed])] == ["p1"]


def test_files_whose_names_differ_in_the_contrast_alone_are_an_exam(files):
    root = files("p1_T1.nii.gz", "p1_FLAIR.nii.gz", "p2_t2.nii.gz", "p2_t1ce.nii.gz", "other.nii.gz")
    assert found_in(root) == {"p1": ["p1_FLAIR", "p1_T1"], "p2": ["p2_t1ce", "p2_t2"], "other": ["other"]}
    exams = find_exams([root])
    assert [exam.is_alone for exam in exams] == [True, False, False]
    assert exams[0].reason == "no other scan of the input belongs to it"
    assert exams[1].reason == "their names are equal but for the contrast"


@pytest.mark.parametrize(
    "names",
    [
        ("ann/T1.nii.gz", "ann/FLAIR.nii.gz", "bob/T1.nii.gz", "bob/FLAIR.nii.gz"),
        ("ann/T1/scan.nii.gz", "ann/FLAIR/scan.nii.gz", "bob/T1/scan.nii.gz", "bob/FLAIR/scan.nii.gz"),
    ],
)
def test_the_contrast_may_be_the_name_of_a_folder(files, names):
    exams = find_exams([files(*names)])
    people = [{scan.image.relative_to(scan.root).parts[0] for scan in exam.scans} for exam in exams]
    assert people == [{"ann"}, {"bob"}]
    assert all(len(exam.scans) == 2 for exam in exams)


@pytest.mark.parametrize(
    ("names", "exams"),
    [
        (("a/s1_2_T1", "a/s1_2_T2", "a/s1-2_T1", "a/s1-2_T2"), [{"s1_2_T1", "s1_2_T2"}, {"s1-2_T1", "s1-2_T2"}]),
        (("s1-T1", "S1_T2"), [{"s1-T1", "S1_T2"}]),
        (("s1-T1-a", "s1_T2_a"), [{"s1-T1-a", "s1_T2_a"}]),
        (("s1_T1", "s1__T1", "s1_T2"), [{"s1_T1", "s1__T1", "s1_T2"}]),
        (("sub-1_run-1_T1w", "sub-1_run-2_T1w"), [{"sub-1_run-1_T1w", "sub-1_run-2_T1w"}]),
    ],
)
def test_separators_tell_people_apart_only_where_a_contrast_is_there_twice(files, names, exams):
    found = find_exams([files(*(f"{name}.nii.gz" for name in names))])
    sets = [{scan.name.rpartition("/")[2] for scan in exam.scans} for exam in found]
    assert sorted(map(sorted, sets)) == sorted(map(sorted, exams))
    assert len({exam.name for exam in found}) == len(exams)


def test_capitals_tell_people_apart_where_a_contrast_is_there_twice(files):
    root = files("annA_T1.nii.gz", "annA_T2.nii.gz", "anna_T1.nii.gz", "anna_T2.nii.gz")
    if len(list(root.iterdir())) < 4:
        pytest.skip("names that differ in capitals are one file here")
    found = find_exams([root])
    assert sorted(sorted(scan.name for scan in exam.scans) for exam in found) == [
        ["annA_T1", "annA_T2"],
        ["anna_T1", "anna_T2"],
    ]


def test_people_of_one_contrast_each_are_not_mixed(files):
    root = files("ann_T1.nii.gz", "bob_FLAIR.nii.gz")
    assert found_in(root) == {"ann_T1": ["ann_T1"], "bob_FLAIR": ["bob_FLAIR"]}


def test_a_folder_of_bare_contrasts_is_one_exam_with_its_name(files):
    assert found_in(files("T1.nii.gz", "T2.nii.gz", "FLAIR.nii.gz", folder="patient")) == {
        "patient": ["FLAIR", "T1", "T2"]
    }


def test_masks_and_results_are_left_out_with_a_reason(files):
    found = find_exams([files("p1_T1.nii.gz", "p1_FLAIR.nii.gz", "p1_mask.nii.gz")])
    assert len(found) == 1
    assert [one.reason for one in found.left_out] == ["named as masks"]


def test_bids_groups_by_subject_and_session_and_knows_contrast_agents(files):
    root = files(
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_ce-gd_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
    )
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    exams = {exam.name: exam for exam in find_exams([root])}
    assert set(exams) == {"sub-01_ses-1", "sub-01_ses-2", "sub-02"}
    first = exams["sub-01_ses-1"]
    assert sorted(str(contrast_by_name(scan)) for scan in first.scans) == ["T1ce", "T1w"]
    assert first.reason == "all of subject 01, session 1 in the BIDS data set"
    assert first.in_dataset is not None
    assert first.in_dataset.as_posix() == "sub-01/ses-1/anat"
    assert exams["sub-01_ses-2"].is_alone


def test_bids_names_group_without_a_data_set(files):
    root = files("sub-01_acq-a_T1w.nii.gz", "sub-01_run-2_FLAIR.nii.gz", "sub-02_T1w.nii.gz")
    assert found_in(root) == {"sub-01": ["sub-01_acq-a_T1w", "sub-01_run-2_FLAIR"], "sub-02_T1w": ["sub-02_T1w"]}


@pytest.mark.parametrize("folders", [("siteA", "siteB"), ("baseline", "followup"), ("01/ses-1", "01/ses-2")])
def test_bids_names_in_two_folders_are_two_exams(files, folders):
    names = [f"{folder}/sub-01_{contrast}.nii.gz" for folder in folders for contrast in ("T1w", "FLAIR")]
    exams = {exam.name: exam for exam in find_exams([files(*names, "sub-02/sub-02_T1w.nii.gz")])}
    labels = [folder.replace("/", "_") for folder in folders]
    assert set(exams) == {*(f"{label}_sub-01" for label in labels), "sub-02_T1w"}
    for folder, label in zip(folders, labels, strict=True):
        scans = exams[f"{label}_sub-01"].scans
        assert {scan.image.parent.relative_to(scan.root).as_posix() for scan in scans} == {folder}
        assert len(scans) == 2


def test_a_name_without_a_contrast_is_of_the_subject_that_it_states(files):
    assert found_in(files("sub-01.nii.gz", "sub-01_FLAIR.nii.gz")) == {"sub-01": ["sub-01", "sub-01_FLAIR"]}


def test_a_contrast_of_one_site_is_not_fused_with_that_of_another(files):
    root = files("siteA/sub-01_T1w.nii.gz", "siteB/sub-01_FLAIR.nii.gz")
    assert found_in(root) == {"sub-01_T1w": ["sub-01_T1w"], "sub-01_FLAIR": ["sub-01_FLAIR"]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("anat/sub-01_ses-1", "anat/sub-01_ses-1"),
        ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-1/anat/sub-01_ses-1"),
        ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-1/perf/sub-01_ses-1"),
        ("study/raw/sub-01/sub-01_ses-1", "study/raw/sub-01/ses-1/sub-01_ses-1"),
        ("T1/sub-01_ses-1", "FLAIR/sub-01_ses-1"),
        ("images_T1w/sub-01_ses-1", "images_FLAIR/sub-01_ses-1"),
    ],
)
def test_folders_as_in_bids_or_of_contrasts_are_no_other_exam(files, first, second):
    root = files(f"{first}_T1w.nii.gz", f"{second}_FLAIR.nii.gz", "study/sub-02_ses-1_FLAIR.nii.gz")
    found = found_in(root)
    assert found["sub-01_ses-1"] == ["sub-01_ses-1_FLAIR", "sub-01_ses-1_T1w"]
    assert set(found) == {"sub-01_ses-1", "sub-02_ses-1_FLAIR"}


def test_folders_of_points_in_time_are_not_taken_for_contrasts(files):
    names = [f"T{time}/sub-01_{contrast}.nii.gz" for time in (1, 2) for contrast in ("FLAIR", "PDw")]
    assert set(found_in(files(*names))) == {"T1_sub-01", "T2_sub-01"}


def test_exams_that_would_share_a_name_are_told_apart():
    names = [exam.name for exam in _named_apart([Exam(name, (), "") for name in ("a", "a", "a_2", "a", "a_2")])]
    assert names == ["a", "a_3", "a_2", "a_4", "a_2_2"]


def test_a_manifest_groups_by_subject_and_session(files, tmp_path):
    root = files("a.nii.gz", "b.nii.gz", "c.nii.gz")
    rows = [("1", "a", "T1w", "x"), ("1", "b", "FLAIR", "x"), ("1", "c", "FLAIR", "y")]
    manifest = Manifest(tuple(ScanRecord(s, root / f"{f}.nii.gz", m, session=e) for s, f, m, e in rows))
    manifest.write(tmp_path / "m.tsv")
    assert found_in(tmp_path / "m.tsv") == {
        "sub-1_ses-x": ["sub-1_ses-x_FLAIR", "sub-1_ses-x_T1w"],
        "sub-1_ses-y": ["sub-1_ses-y_FLAIR"],
    }
    exams = exams_of_manifest(manifest)
    assert (exams[0].subject, exams[0].session) == ("1", "x")
    assert exams[0].reason == "all of subject 1, session x in the manifest"


def test_several_inputs_are_one_exam_whatever_their_names(files):
    root = files("one.nii.gz", "two.nii.gz")
    (exam,) = find_exams([root / "one.nii.gz", root / "two.nii.gz"])
    assert (exam.name, exam.reason, len(exam.scans)) == ("exam", "given together", 2)


def test_several_inputs_with_the_same_name_are_told_apart_by_their_folders(files):
    root = files("T1/scan.nii.gz", "FLAIR/scan.nii.gz")
    (exam,) = find_exams([root / "T1" / "scan.nii.gz", root / "FLAIR" / "scan.nii.gz"])
    assert [scan.name for scan in exam.scans] == ["T1_scan", "FLAIR_scan"]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("sub-01_T1w", "sub-02_FLAIR", "one person, got sub-01, sub-02"),
        ("sub-01_ses-1_T1w", "sub-01_ses-2_FLAIR", "one session, got ses-1, ses-2"),
    ],
)
def test_two_people_and_two_sessions_are_refused(files, first, second, said):
    root = files(f"{first}.nii.gz", f"{second}.nii.gz")
    with pytest.raises(UsageError, match=said):
        find_exams([root / f"{first}.nii.gz", root / f"{second}.nii.gz"])


def test_a_folder_among_several_inputs_is_refused(files):
    root, other = files("a_T1.nii.gz", "b_T1.nii.gz"), files("FLAIR.nii.gz", folder="other")
    with pytest.raises(UsageError, match="one scan each, got 2 scans"):
        find_exams([root, other / "FLAIR.nii.gz"])


def test_the_same_scan_twice_is_refused(files):
    root = files("T1.nii.gz")
    with pytest.raises(UsageError, match="different names"):
        find_exams([root / "T1.nii.gz", root / "T1.nii.gz"])


def test_series_of_one_dicom_study_are_an_exam(tmp_path, rng):
    study, other = generate_uid(), generate_uid()
    for number, (name, uid) in enumerate([("a", study), ("b", study), ("c", other)], start=3):
        Maker(rng.random((12, 10, 9)).astype(np.float32), number=number, study=uid).write(tmp_path / "export" / name)
    exams = sorted(find_exams([tmp_path / "export"]), key=lambda exam: len(exam.scans))
    assert [len(exam.scans) for exam in exams] == [1, 2]
    assert exams[1].reason == "series of one DICOM study"
    with pytest.raises(DataError, match="2 DICOM studies"):
        find_exams([tmp_path / "export" / "a", tmp_path / "export" / "c"])


def test_a_dicom_folder_of_several_series_is_one_exam(tmp_path, rng):
    study = generate_uid()
    for number in (3, 4):
        Maker(rng.random((12, 10, 9)).astype(np.float32), number=number, study=study).write(tmp_path / "export")
    (exam,) = find_exams([tmp_path / "export"])
    assert (exam.name, [scan.name for scan in exam.scans]) == ("export", ["export_3", "export_4"])


def test_words_for_contrasts_are_known_or_not():
    assert is_known_contrast("t1")
    assert is_known_contrast("PDw")
    assert not is_known_contrast("T9")
