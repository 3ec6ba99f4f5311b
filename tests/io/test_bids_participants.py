"""Whose results a derivative says that it holds."""

import pytest

from halebrain.io.bids_derivative import write_participants


@pytest.fixture
def derivative(tmp_path):
    for name in ("sub-02", "sub-01", "logs"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        (None, "participant_id\nsub-01\nsub-02\n"),
        ("", "participant_id\nsub-01\nsub-02\n"),
        ("subject\tage\n01\t30\n", "participant_id\nsub-01\nsub-02\n"),
        ("participant_id\tage\tage\nsub-01\t3\t4\n", "participant_id\nsub-01\nsub-02\n"),
        ("participant_id\tage\nsub-03\t9\nsub-02\t\n", "participant_id\tage\nsub-01\tn/a\nsub-02\tn/a\n"),
        ("participant_id\tname\tage\nsub-01\tDoe\t9\n", "participant_id\tage\nsub-01\t9\nsub-02\tn/a\n"),
        ('\ufeffsex\tparticipant_id\n"F\tsub-01\t\n', 'sex\tparticipant_id\n"F\tsub-01\nn/a\tsub-02\n'),
        ("Participant_ID;Age\r\nsub-02;9\r\n", "participant_id\tage\nsub-01\tn/a\nsub-02\t9\n"),
        ("participant_id\tage\n01\t30\nsub-02\t40\n", "participant_id\tage\nsub-01\t30\nsub-02\t40\n"),
        ("participant_id\tage\nsub-01\t3\tmore\n", "participant_id\nsub-01\nsub-02\n"),
    ],
)
def test_rows_are_those_of_the_raw_table(derivative, tmp_path, raw, written):
    if raw is not None:
        (tmp_path / "raw" / "participants.tsv").write_text(raw, encoding="utf-8")
    path = write_participants(derivative, tmp_path / "raw")
    assert path is not None
    assert path.read_text(encoding="utf-8") == written
    assert not (derivative / "participants.json").exists()


def test_bytes_that_are_no_text_are_no_table(derivative, tmp_path):
    (tmp_path / "raw" / "participants.tsv").write_bytes(b"participant_id\n\xff\xfe\n")
    (tmp_path / "raw" / "participants.json").write_text("no json")
    path = write_participants(derivative, tmp_path / "raw")
    assert path is not None
    assert path.read_text() == "participant_id\nsub-01\nsub-02\n"


def test_without_results_there_are_no_participants(tmp_path):
    (tmp_path / "out").mkdir()
    assert write_participants(tmp_path / "out", tmp_path / "raw") is None
    assert not list((tmp_path / "out").iterdir())
