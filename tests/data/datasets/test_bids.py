import pytest

from halebrain.core.errors import MissingInputError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.datasets import bids_manifest, read_source

PEOPLE = "participant_id\tage\tsex\tgroup\tsite\n"


def people(root, *rows):
    (root / "participants.tsv").write_text(PEOPLE + "".join("\t".join(row) + "\n" for row in rows))
    return root


def by_id(result):
    return {record.scan_id: record for record in result.manifest}


def test_reads_people_sessions_runs_and_contrasts(tree):
    root = tree(
        *("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz"),
        *("sub-02/anat/sub-02_run-1_T2w.nii.gz", "sub-02/anat/sub-02_run-2_T2w.nii.gz"),
        *("sub-02/anat/sub-02_ce-gadolinium_T1w.nii.gz", "sub-02/anat/sub-02_acq-3d_FLAIR.nii"),
        *("sub-02/func/sub-02_task-rest_bold.nii.gz", "sub-02/dwi/sub-02_dwi.nii.gz", "dataset_description.json"),
        *("sourcedata/sub-09/anat/sub-09_T1w.nii.gz", "derivatives/x/sub-09/anat/sub-09_T1w.nii.gz"),
    )
    result = read_source("bids", people(root, ["sub-01", "31", "f", "HC", "A"], ["sub-02", "n/a", "M", "stroke", "B"]))
    assert result.problems == ()
    records = by_id(result)
    assert set(records) == {
        *("sub-01_ses-a_T1w", "sub-01_ses-b_T1w", "sub-02_run-1_T2w", "sub-02_run-2_T2w"),
        *("sub-02_ce-gadolinium_T1ce", "sub-02_acq-3d_FLAIR"),
    }
    first, other = records["sub-01_ses-a_T1w"], records["sub-02_run-1_T2w"]
    assert (first.age, first.sex, first.pathology, first.site, first.session) == (31, "F", "healthy", "A", "a")
    assert (other.age, other.sex, other.pathology, other.site) == (None, "M", "stroke", "B")


def test_masks_come_from_derivatives_by_their_entities(tree):
    root = tree(
        *("sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"),
        *("derivatives/lesions/sub-01/anat/sub-01_label-lesion_mask.nii.gz",),
        *("derivatives/bet/sub-01/anat/sub-01_desc-brain_mask.nii.gz",),
        *("derivatives/bet/sub-01/anat/sub-01_space-MNI152NLin6Asym_desc-brain_mask.nii.gz",),
        *("derivatives/lesions/sub-02/anat/sub-02_mod-FLAIR_label-lesion_mask.nii.gz",),
        *("derivatives/seg/sub-02/anat/sub-02_dseg.nii.gz", "derivatives/seg/sub-02/anat/sub-02_label-GM_mask.nii.gz"),
    )
    records = by_id(read_source("bids", people(root, ["sub-01"], ["sub-02"])))
    for name in ("sub-01_T1w", "sub-01_FLAIR"):
        assert records[name].lesion == root / "derivatives/lesions/sub-01/anat/sub-01_label-lesion_mask.nii.gz"
        assert records[name].brain_mask == root / "derivatives/bet/sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert (records["sub-02_T1w"].lesion, records["sub-02_T1w"].brain_mask) == (None, None)


@pytest.mark.parametrize(
    ("mask", "is_lesion"),
    [
        ("sub-01_space-orig_label-L_mask", True),
        ("sub-01_label-L_desc-manual_mask", True),
        ("sub-01_space-orig_label-L_dseg", True),
        ("sub-01_space-orig_label-lesion_mask", True),
        ("sub-01_label-L_desc-brain_mask", False),
        ("sub-01_hemi-L_desc-ribbon_mask", False),
        ("sub-01_label-LV_mask", False),
        (f"sub-01_space-{TEMPLATE_SPACE}_label-L_mask", False),
    ],
)
def test_a_mask_is_a_lesion_by_the_label_of_the_standard(tree, mask, is_lesion):
    root = people(tree("sub-01/anat/sub-01_T1w.nii.gz", f"derivatives/raters/sub-01/anat/{mask}.nii.gz"), ["sub-01"])
    result = read_source("bids", root)
    assert result.problems == ()
    found = result.manifest.records[0].lesion
    assert found == (root / f"derivatives/raters/sub-01/anat/{mask}.nii.gz" if is_lesion else None)


def test_two_masks_of_equal_right_are_none_and_a_problem(tree):
    root = tree(
        "sub-01/anat/sub-01_T1w.nii.gz", *(f"derivatives/{r}/sub-01_label-lesion_mask.nii.gz" for r in ("r1", "r2"))
    )
    result = read_source("bids", people(root, ["sub-01"]))
    assert result.manifest.records[0].lesion is None
    assert len(result.problems) == 1
    assert "2 lesion masks" in result.problems[0]


def test_a_subject_without_a_scan_and_a_missing_table_are_named(tree):
    root = people(tree("sub-01/anat/sub-01_T1w.nii.gz"), ["sub-01"], ["sub-07"])
    assert read_source("bids", root).problems == ("sub-07: in participants.tsv, but without a scan",)
    (root / "participants.tsv").unlink()
    assert "participants.tsv" in read_source("bids", root).problems[0]


def test_derived_scans_are_named_until_asked_for(tree):
    scan = f"sub-01_space-{TEMPLATE_SPACE}_desc-preproc_T1w.nii.gz"
    root = people(tree(scan, "sub-02_T1w.nii.gz"), ["sub-01"], ["sub-02"])
    result = read_source("bids", root)
    assert result.manifest.subjects() == ["02"]
    ((left, reason),) = result.left_out
    assert left == scan
    assert "named as derived" in reason
    taken = by_id(read_source("bids", root, {"derived": True}))
    record = taken[f"sub-01_space-{TEMPLATE_SPACE}_desc-preproc_T1w"]
    assert record.space == TEMPLATE_SPACE
    (root / "sub-02_T1w.nii.gz").unlink()
    with pytest.raises(MissingInputError, match="named as derived"):
        read_source("bids", root)


def test_settings_say_who_is_healthy_and_what_is_read(tree):
    root = people(tree("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"), ["sub-01", "", "", "Gesund"])
    settings = {"healthy_groups": ["gesund"], "pathology": "ms", "modalities": ["T1w", "T2w"]}
    assert [r.pathology for r in read_source("bids", root, settings).manifest] == ["healthy", "ms"]
    only = read_source("bids", root, settings | {"modalities": ["T2w"]})
    assert [r.modality for r in only.manifest] == ["T2w"]


def test_rows_of_one_person_that_differ_are_reported_and_not_guessed(tree):
    root = people(
        tree("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"),
        *(["sub-01", "31", "F", "HC", "A"], ["sub-01", "32", "F", "ms", "A"], ["sub-02", "40", "F", "HC", "A"]),
        *(["sub-02", "40", "F", "HC", "A"], ["n/a", "50", "M", "HC", "A"]),
    )
    result = read_source("bids", root)
    one, two = result.manifest
    assert (one.age, one.sex, one.pathology, one.site) == (None, "F", "HC+ms", "A")
    assert (two.age, two.pathology) == (40, "healthy")
    assert result.problems == (
        "participants.tsv: 1 row without a participant_id left out",
        "sub-01: 2 rows in participants.tsv differ in age, group; groups are joined, the others are left out",
    )


def test_no_session_makes_a_patient_healthy_and_a_bad_table_stops_nobody(tree):
    names = ("sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz")
    root = people(tree(*names), ["sub-01", "60", "F", "ms"], ["sub-02", "40", "F", "HC"])
    (root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tage\tgroup\nses-a\t735\tcontrol\n")
    (root / "sub-02/sub-02_sessions.tsv").write_bytes("session_id\tgroup\nses-a\tgrö\n".encode("latin-1"))
    result = read_source("bids", root)
    assert [(r.age, r.pathology) for r in result.manifest] == [(60, "ms"), (40, "healthy")]
    assert "sub-01_ses-a: '735' is not a valid age" in result.problems[0]
    assert "sub-02_sessions.tsv: cannot be used: " in result.problems[1]


def test_the_table_of_sessions_takes_precedence_over_that_of_people(tree):
    sessions = [f"sub-01/ses-{name}/anat/sub-01_ses-{name}_T1w.nii.gz" for name in "abc"]
    root = people(tree(*sessions, "sub-02/anat/sub-02_T1w.nii.gz"), ["sub-01", "60", "F", "HC", "A"], ["sub-02", "40"])
    rows = "session_id\tage\tdiagnosis\nses-a\t61.5\tn/a\nses-b\t63\tstroke\nses-b\t64\tstroke\n"
    (root / "sub-01/sub-01_sessions.tsv").write_text(rows)
    result = read_source("bids", root)
    assert [(r.session, r.age, r.pathology, r.sex) for r in result.manifest] == [
        *(("a", 61.5, "healthy", "F"), ("b", 60, "stroke", "F"), ("c", 60, "healthy", "F"), (None, 40, None, None))
    ]
    differ = "2 rows in sub-01_sessions.tsv differ in age; groups are joined, the others are left out"
    assert result.problems == (f"sub-01_ses-b: {differ}",)


def test_what_is_wrong_with_a_data_set_is_told_where_no_file_takes_it(tree, caplog):
    names = [f"sub-{n:02d}" for n in range(1, 13)]
    root = people(tree("sub-01/anat/sub-01_T1w.nii.gz"), *([name] for name in names))
    bids_manifest(root)
    assert "sub-02: in participants.tsv, but without a scan" in caplog.text
    assert "1 more problem" in caplog.text
    assert "sub-12" not in caplog.text


def test_scans_without_a_row_and_ages_that_are_none_are_reported(tree):
    root = tree("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    result = read_source("bids", people(root, ["sub-01", "-9", "F", "Healthy_Controls", "A"]))
    assert [record.pathology for record in result.manifest] == ["healthy", None]
    assert result.problems == (
        "sub-01: '-9' is not a valid age; it is left out",
        "sub-02: not in participants.tsv; listed without age, sex, site and group",
    )


def test_a_scan_in_the_folder_of_another_subject_is_reported(tree):
    root = tree("sub-01/ses-a/anat/sub-02_ses-a_T1w.nii.gz", "sub-03/ses-a/anat/sub-03_ses-b_T1w.nii.gz")
    result = read_source("bids", people(root, ["sub-02"], ["sub-03"]))
    assert [record.exam_id for record in result.manifest] == ["sub-02_ses-a", "sub-03_ses-b"]
    of = "is of another {} than the file name, which is used"
    assert result.problems == (
        f"sub-01/ses-a/anat/sub-02_ses-a_T1w.nii.gz: the folder 'sub-01' {of.format('subject')}",
        f"sub-03/ses-a/anat/sub-03_ses-b_T1w.nii.gz: the folder 'ses-a' {of.format('session')}",
    )


def test_a_brain_tumour_is_a_lesion_and_the_brain_stem_is_no_brain(tree):
    names = ("sub-01_label-BrainTumor_mask", "sub-01_label-brainstem_mask")
    root = tree("sub-01/anat/sub-01_T1w.nii.gz", *(f"derivatives/x/sub-01/anat/{name}.nii.gz" for name in names))
    (record,) = read_source("bids", people(root, ["sub-01"])).manifest
    assert (record.lesion, record.brain_mask) == (root / f"derivatives/x/sub-01/anat/{names[0]}.nii.gz", None)
