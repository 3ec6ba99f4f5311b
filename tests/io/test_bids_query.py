"""Which scans a choice leaves."""

import json

import pytest

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.io.bids_query import BidsQuery, read_rules, select_scans

FILES = (
    "sub-01/anat/sub-01_run-1_T1w.nii.gz",
    "sub-01/anat/sub-01_run-02_T1w.nii.gz",
    "sub-01/anat/sub-01_FLAIR.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-hi_T1w.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_ce-gad_T1w.nii",
    "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
    "sub-02/ses-b/func/sub-02_ses-b_task-x_bold.nii.gz",
)


@pytest.fixture
def dataset(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def chosen(dataset, **query):
    return [path.name.partition(".")[0].removeprefix("sub-") for path in select_scans(dataset, BidsQuery(**query))]


ALL = ["01_FLAIR", "01_run-02_T1w", "01_run-1_T1w", "02_ses-a_acq-hi_T1w", "02_ses-b_T2w", "02_ses-b_ce-gad_T1w"]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ({}, ALL),
        ({"participants": ("sub-01",)}, ALL[:3]),
        ({"participants": ("02", "01")}, ALL),
        ({"sessions": ("a",)}, [ALL[3]]),
        ({"sessions": ("ses-b", "a")}, ALL[3:]),
        ({"modalities": ("T1w",)}, [ALL[1], ALL[2], ALL[3], ALL[5]]),
        ({"modalities": ("T1ce", "T2w")}, [ALL[4], ALL[5]]),
        ({"rules": {"t1w": {"run": 2}}}, [ALL[0], ALL[1], ALL[4]]),
        ({"rules": {"t1w": {"run": None, "ce": None}}}, [ALL[0], ALL[3], ALL[4]]),
        ({"rules": {"t1w": {"acq": "*"}, "flair": {"ses": "x"}}}, [ALL[3], ALL[4]]),
        ({"rules": {"t1w": {"run": [1, None], "extension": ".nii.gz"}}}, [ALL[0], ALL[2], ALL[3], ALL[4]]),
        ({"rules": {"t1w": {"datatype": "anat", "suffix": "T1w"}}}, ALL),
    ],
)
def test_what_is_left(dataset, query, left):
    assert chosen(dataset, **query) == left


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"participants": ("03", "01")}, r"got 03; there are 01, 02$"),
        ({"sessions": ("c",)}, r"got c; there are a, b$"),
        ({"modalities": ("t1w",)}, "did you mean 'T1w'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_known(dataset, query, said):
    with pytest.raises(UsageError, match=said):
        chosen(dataset, **query)


def test_a_scan_with_an_odd_name_is_not_dropped(dataset):
    (dataset / "sub-01/anat/sub-01_what-1_run-1_T2w.nii.gz").touch()
    assert chosen(dataset, participants=("01",), modalities=("T2w",)) == ["01_what-1_run-1_T2w"]
    assert chosen(dataset, participants=("01",), rules={"t2w": {"run": 2}}) == ALL[:3]


def test_nothing_left_is_said(dataset):
    said = r"at least one scan, got FLAIR, T1w only in .*; looked for T2w; --modality FLAIR T1w takes what is there$"
    with pytest.raises(MissingInputError, match=said):
        chosen(dataset, participants=("01",), modalities=("T2w",))
    with pytest.raises(MissingInputError, match=r"looked for T1w, T2w, FLAIR, inplaneT2$"):
        chosen(dataset, participants=("01",), sessions=("a",))


def test_a_filter_file_by_long_and_short_names(tmp_path):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"T1w": {"session": "a", "acq": None}, "bold": {"task": "rest"}}))
    assert read_rules(path) == ({"t1w": {"ses": "a", "acq": None}}, ("bold",))


@pytest.mark.parametrize(("text", "said"), [("{", "JSON"), ("[]", "object of objects"), ('{"t1w": 1}', "of objects")])
def test_a_filter_file_that_is_none(tmp_path, text, said):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read_rules(tmp_path / "f.json")


def test_an_unknown_key_names_the_nearest(tmp_path):
    (tmp_path / "f.json").write_text('{"t1w": {"sesion": "a"}}')
    with pytest.raises(DataError, match="did you mean 'session'"):
        read_rules(tmp_path / "f.json")
    with pytest.raises(MissingInputError):
        read_rules(tmp_path / "none.json")
