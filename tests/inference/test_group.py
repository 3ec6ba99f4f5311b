"""The table of all results of a derivative."""

import csv
import io
import json

import pytest

from halebrain.core.errors import DataError
from halebrain.inference.group import COLUMNS, group_rows, group_tsv, recorded_failures

HEADER = "lesion\tvolume_ml\tpeak_score\n"


def put(root, name, *, lesions="", **provenance):
    stem = root / "sub-01" / "anat" / f"sub-01_rec-{name}_desc-anomaly"
    stem.parent.mkdir(parents=True, exist_ok=True)
    about = {"input_in_dataset": f"sub-01/anat/sub-01_{name}.nii.gz", "qc": {"flags": []}} | provenance
    stem.with_name(f"{stem.name}_provenance.json").write_text(json.dumps(about))
    stem.with_name(f"{stem.name}_lesions.tsv").write_text(HEADER + lesions)
    return stem


def test_rows_by_hand(tmp_path):
    put(tmp_path, "T2w", n_lesions=0, lesion_volume_ml=0.0)
    put(
        tmp_path,
        "FLAIR",
        lesions="1\t2.5\t0.4\n2\t0.1\t0.9\n",
        n_lesions=2,
        lesion_volume_ml=2.6,
        volume_estimate={"value_ml": 14.2, "low_ml": 9.1, "high_ml": 22.0, "n_patients": 9, "method": "constant ratio"},
        scan_score=0.7,
        qc={"flags": ["look\there", "and there"], "brain_volume_ml": 1200.5},
        threshold={"value": 0.25, "name": "dice"},
        model_sha256="ab",
    )
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "sub-02_FLAIR.json").write_text('{"input_in_dataset": "sub-02/anat/x.nii", "error": "a\\nb"}')
    # A result that a later run should have replaced stays, and says so.
    old = {"input_in_dataset": "sub-01/anat/sub-01_T2w.nii.gz", "error": "once"}
    (tmp_path / "logs" / "sub-01_T2w.json").write_text(json.dumps(old))
    rows = list(csv.reader(io.StringIO(group_tsv(group_rows(tmp_path))), delimiter="\t"))
    assert rows[0] == list(COLUMNS)
    assert rows[1] == [
        *("sub-01", "n/a", "sub-01/anat/sub-01_FLAIR.nii.gz", "FLAIR", "done", "0.7", "0.9", "2", "2.6"),
        *("14.2", "9.1", "22.0"),
        *("1200.5", "0.25", "dice", "2", "look here; and there", "ab"),
    ]
    assert rows[2][3:9] == ["T2w", "done", "n/a", "n/a", "0", "0.0"]
    assert rows[2][list(COLUMNS).index("notes")] == "the result of an earlier run; the last one failed: once"
    assert recorded_failures(tmp_path) == {"sub-02_FLAIR": "a\nb", "sub-01_T2w": "once"}
    assert rows[3][2:5] == ["sub-02/anat/x.nii", "n/a", "failed"]
    assert rows[3][list(COLUMNS).index("notes")] == "a b"
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("place", "person", "session"),
    [
        ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01", "ses-1"),
        ("sub-01/anat/sub-01", "sub-01", None),
        ("sub-A_1/anat/sub-A_1", "sub-A_1", None),
    ],
)
def test_an_exam_that_failed_states_its_participant_and_session(tmp_path, place, person, session):
    (tmp_path / "logs").mkdir()
    record = {"input_in_dataset": place, "error": "no scan can be used"}
    (tmp_path / "logs" / f"{place.rpartition('/')[2]}.json").write_text(json.dumps(record))
    (row,) = group_rows(tmp_path)
    assert (row["participant_id"], row["session_id"], row["scan"]) == (person, session, place)
    assert (row["modality"], row["status"], row["notes"]) == (None, "failed", "no scan can be used")


def test_what_a_killed_run_left_where_it_made_it_is_no_row(tmp_path):
    stem = put(tmp_path, "T2w", n_lesions=0)
    left = stem.parent / ".part-0a1b2c3d.7.9-x"
    left.mkdir()
    for path in (*stem.parent.glob("*.json"), *stem.parent.glob("*.tsv")):
        (left / path.name).write_bytes(path.read_bytes())
    assert [row["scan"] for row in group_rows(tmp_path)] == ["sub-01/anat/sub-01_T2w.nii.gz"]


def test_an_exam_with_a_result_is_one_row_whatever_failed_before(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    own = {"input_in_dataset": "sub-01/anat/sub-01_T1w.nii.gz"}
    made = dict.fromkeys(("exam", "reason", "reference", "reference_reason", "fusion"), "x")
    made |= {"scans": [{"scan": "sub-01_T1w", "provenance": own}], "not_used": {}}
    made |= {"threshold": {"value": 0.3, "name": "dice"}}
    (anat / "sub-01_desc-exam_provenance.json").write_text(json.dumps(made))
    (anat / "sub-01_desc-exam_findings.tsv").write_text(HEADER)
    (tmp_path / "logs").mkdir()
    record = {"input_in_dataset": "sub-01/anat/sub-01", "error": "results made with other settings exist"}
    (tmp_path / "logs" / "sub-01.json").write_text(json.dumps(record))
    (row,) = group_rows(tmp_path)
    assert (row["scan"], row["status"]) == (own["input_in_dataset"], "done")
    assert row["notes"].endswith("the last one failed: results made with other settings exist")


@pytest.mark.parametrize("damage", ["provenance", "no object", "table", "no table"])
def test_a_damaged_result_is_said(tmp_path, damage):
    stem = put(tmp_path, "FLAIR", lesions="1\t2\tmuch\n" if damage == "table" else "")
    if damage in ("provenance", "no object"):
        stem.with_name(f"{stem.name}_provenance.json").write_text("[]" if damage == "no object" else "{")
    if damage == "no table":
        stem.with_name(f"{stem.name}_lesions.tsv").unlink()
    with pytest.raises(DataError, match=r"must be (JSON|a JSON object|complete)"):
        group_rows(tmp_path)
