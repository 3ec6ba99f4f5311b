"""Which scans an adaptation learns from, and what it says of them."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from halebrain.adaptation.scans import choose_scans
from halebrain.core.errors import MissingInputError
from halebrain.io.manifest import Manifest, ScanRecord


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
    assert "t: not scored before and after" in text
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
