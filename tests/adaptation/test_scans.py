"""Which scans an adaptation learns from, and what it says of them."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from halebrain.adaptation.scans import choose_scans, with_exam_masks
from halebrain.core.errors import MissingInputError
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.nifti import write_volume


def row(subject, pathology, split=None, *, annotated=True, modality="FLAIR"):
    lesion = Path("l.nii") if annotated and pathology != "healthy" else None
    return ScanRecord(subject, Path(f"{subject}.nii"), modality, lesion=lesion, split=split, pathology=pathology)


def model(*, train=(), seen=()):
    def seen_subjects(*kinds):
        return dict.fromkeys([*train, *(seen if "val_subjects" in kinds else ())], "stage2")

    return SimpleNamespace(
        seen_subjects=seen_subjects,
        calibration_subjects=dict,
        modalities=("FLAIR",),
    )


def chosen(rows, bundle=None, **settings):
    return choose_scans(Manifest(tuple(rows)), bundle or model(), **{"max_healthy": 6, "seed": 0} | settings)


def test_scans_go_where_they_belong():
    rows = [
        row("a", "wmh", "train"),
        row("b", "wmh"),
        row("t", "wmh", "test"),
        row("s", "stroke", "train"),
        row("h", "healthy"),
        row("k", "healthy", "test"),
        row("u", "wmh", annotated=False),
    ]
    scans = chosen(rows, pathologies=("wmh",))
    found = [m.subjects() for m in (scans.annotated, scans.healthy, scans.held_out)]
    assert found == [["a", "b"], ["h"], ["k", "s", "t"]]
    assert len(scans.notes) == 1
    assert "1 scan has no lesion mask and is not declared healthy: it is not used" in scans.notes[0]
    assert chosen(rows).annotated.subjects() == ["a", "b", "s"]


def test_what_a_user_should_know_is_said():
    rows = [row("a", "wmh"), row("t", "wmh", "test"), row("c", "wmh", modality="T1w")]
    scans = chosen(rows, model(train=["a"], seen=["t"]))
    text = "\n".join(scans.notes)
    assert "a: the model was trained on them" in text
    assert "t: not scored before and after, as the model was trained or calibrated with them" in text
    assert len(scans.held_out) == 0
    assert "never saw T1w" in text


def test_many_scans_are_fine_with_a_note():
    scans = chosen([row(f"s{n}", "wmh") for n in range(21)])
    assert len(scans.annotated) == 21
    assert "21 annotated subjects are enough to train" in scans.notes[0]
    assert not chosen([row(f"s{n}", "wmh") for n in range(20)]).notes


def test_no_more_healthy_than_asked_for():
    rows = [row("a", "wmh"), *(row(f"h{n}", "healthy") for n in range(9))]
    assert len(chosen(rows).healthy) == 6
    assert len(chosen(rows, max_healthy=0).healthy) == 0


def test_nothing_to_learn_from():
    with pytest.raises(MissingInputError, match="no scan with a lesion mask"):
        chosen([row("u", "wmh", annotated=False)])


def test_a_mask_serves_every_contrast_of_its_exam_on_its_grid(tmp_path):
    """T1 and FLAIR of a visit share a grid; the T2 has another one, and the second visit has no mask."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    for name, shape in (("flair", (30, 32, 30)), ("t1", (30, 32, 30)), ("t2", (30, 32, 12)), ("later", (30, 32, 30))):
        write_volume(tmp_path / f"{name}.nii", np.random.default_rng(0).random(shape).astype(np.float32), affine)
    lesion = np.zeros((30, 32, 30), np.uint8)
    lesion[10:14, 10:14, 10:14] = 1
    write_volume(tmp_path / "lesion.nii", lesion, affine, dtype=np.uint8)
    about = {"flair": ("FLAIR", "1"), "t1": ("T1w", "1"), "t2": ("T2w", "1"), "later": ("FLAIR", "2")}
    rows = [
        ScanRecord("a", tmp_path / f"{name}.nii", modality, session=session, pathology="ms")
        for name, (modality, session) in about.items()
    ]
    rows[0] = replace(rows[0], lesion=tmp_path / "lesion.nii")
    found, notes = with_exam_masks(Manifest(tuple(rows)))
    assert [record.lesion is not None for record in found] == [True, True, False, False]
    assert notes == [
        "sub-a_ses-1_T1w: the mask of another scan of the exam is used, which lies on the same grid",
        "sub-a_ses-1_T2w: the mask of another scan of the exam lies on another grid: resample it to use it",
    ]
