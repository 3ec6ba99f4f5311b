"""Where a derivative may lie, and what it says of itself."""

import json

import pytest

from halebrain.core.errors import CannotWriteError, DataError, UsageError
from halebrain.io.bids_derivative import COHORT, PREPARED, begin_derivative, check_place, describe


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.8.0", "DatasetDOI": "doi:10.1/x"}'
    )
    return folder


@pytest.mark.parametrize("place", [".", "out", "sub-01", "sub-01/derivatives/halebrain", "derivatives"])
def test_no_result_among_raw_data(raw, place):
    with pytest.raises(UsageError, match=r"must not be written into the raw data.*derivatives/halebrain"):
        begin_derivative(raw / place, raw)
    assert sorted(path.name for path in raw.iterdir()) == ["dataset_description.json"]


def test_a_link_into_raw_data_is_seen_through(raw, tmp_path):
    (raw / "sub-01").mkdir()
    (tmp_path / "link").symlink_to(raw / "sub-01")
    with pytest.raises(UsageError, match="raw data"):
        check_place(tmp_path / "link", raw)


def test_the_folder_says_whose_it_is(raw):
    with pytest.raises(UsageError, match="'halebrain' in the name"):
        check_place(raw / "derivatives" / "other", raw)
    check_place(raw / "derivatives" / "halebrain-v1", raw)
    check_place(raw / "derivatives" / "halebrain" / "deeper", raw)


@pytest.mark.parametrize(("place", "link"), [("raw/derivatives/halebrain", "../.."), ("out", "../raw")])
def test_what_it_says(raw, tmp_path, place, link):
    begin_derivative(tmp_path / place, raw)
    said = json.loads((tmp_path / place / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative"
    assert said["GeneratedBy"][0]["Name"] == "halebrain"
    assert said["DatasetLinks"] == {"raw": link}
    assert said["SourceDatasets"] == [{"DOI": "doi:10.1/x"}]
    assert (tmp_path / place / ".bidsignore").is_file()


def test_what_is_there_already_stays(raw, tmp_path):
    begin_derivative(tmp_path / "out", raw)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    begin_derivative(tmp_path / "out", raw)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps


@pytest.mark.parametrize(
    "said", ['{"Name": "x"}', '{"GeneratedBy": [{"Name": "fMRIPrep"}]}', '{"GeneratedBy": ["odd"]}']
)
def test_another_data_set_is_left_alone(raw, tmp_path, said):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_description.json").write_text(said)
    with pytest.raises(CannotWriteError, match="their own folder"):
        begin_derivative(tmp_path / "out", raw)
    assert (tmp_path / "out" / "dataset_description.json").read_text() == said


@pytest.mark.parametrize("title", [COHORT, PREPARED])
def test_a_cohort_and_prepared_scans_are_no_place_for_results(raw, tmp_path, title):
    (tmp_path / "out").mkdir()
    said = json.dumps(describe(title, "made here"))
    (tmp_path / "out" / "dataset_description.json").write_text(said)
    with pytest.raises(CannotWriteError, match="their own folder"):
        begin_derivative(tmp_path / "out", raw)
    assert (tmp_path / "out" / "dataset_description.json").read_text() == said


@pytest.mark.parametrize("said", ["[]", "no json"])
def test_a_damaged_description_is_said(raw, tmp_path, said):
    (raw / "dataset_description.json").write_text(said)
    with pytest.raises(DataError, match="must be"):
        begin_derivative(tmp_path / "out", raw)
