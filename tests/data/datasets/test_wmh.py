import pytest

from halebrain.core.errors import ConfigError
from halebrain.data.datasets import read_source


def patient(folder, *contrasts):
    names = [f"{folder}/{part}/{c}.nii.gz" for part in ("pre", "orig") for c in contrasts or ("FLAIR", "T1")]
    return [*names, f"{folder}/orig/3DT1.nii.gz", f"{folder}/wmh.nii.gz"]


PETMR = "test/Amsterdam/Philips_VU .PETMR_01./160"
OTHER = "additional_annotations/observer_o3/training/Utrecht/0/result.nii.gz"


def test_reads_the_layout_of_2017(tree):
    root = tree(*patient("Utrecht/0"), *patient("Singapore/50"), *patient("Amsterdam/GE3T/100"))
    result = read_source("wmh", root)
    assert result.problems == ()
    assert result.manifest.subjects() == ["GE3T100", "Singapore50", "Utrecht0"]
    assert {r.site for r in result.manifest} == {"GE3T", "Singapore", "Utrecht"}
    assert len(result.manifest) == 6
    assert all(r.image.parent.name == "pre" and r.lesion and r.lesion.name == "wmh.nii.gz" for r in result.manifest)


def test_reads_the_layout_of_2022_and_keeps_its_split_when_asked(tree):
    root = tree(*patient("training/Utrecht/0"), *patient(PETMR), OTHER)
    assert {r.split for r in read_source("wmh", root).manifest} == {None}
    result = read_source("wmh", root, {"keep_split": True, "part": "orig"})
    assert {r.subject: r.split for r in result.manifest} == {"Utrecht0": "train", "PhilipsVUPETMR01160": "test"}
    assert {r.image.parent.name for r in result.manifest} == {"orig"}


def test_what_is_missing_is_named(tree):
    root = tree(*patient("Utrecht/0"), *patient("Utrecht/2", "FLAIR"))
    (root / "Utrecht/0/wmh.nii.gz").unlink()
    assert read_source("wmh", root).problems == (
        "Utrecht/0: no wmh.nii.gz; its scans are listed without a lesion",
        "Utrecht/2: no T1",
    )


def test_an_unknown_setting_is_an_error_with_the_closest_one(tree):
    with pytest.raises(ConfigError, match="did you mean 'keep_split'"):
        read_source("wmh", tree(*patient("Utrecht/0")), {"keep_splits": True})
