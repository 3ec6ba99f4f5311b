"""One reader for every table: whatever a spreadsheet makes of a file, the cells are the same, or one line says why."""

from pathlib import Path

import pytest

from halebrain.core.errors import DataError, MissingInputError
from halebrain.data.datasets import read_source
from halebrain.inference.scans import find_scans
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tables import parse_number, read_lines, read_table

PLAIN = "subject\timage\tmodality\tage\n01\ta.nii.gz\tT1w\t40.5\n02\tb.nii.gz\tFLAIR\t\n"


def written(tmp_path: Path, name: str, raw: bytes) -> Path:
    for scan in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / scan).touch()
    (tmp_path / name).write_bytes(raw)
    return tmp_path / name


FORMS = {
    "plain": PLAIN.encode(),
    "mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "semicolon": PLAIN.replace("\t", ";").replace("40.5", "40,5").encode(),
    "comma": PLAIN.replace("\t", ",").encode(),
    "crlf": PLAIN.replace("\n", "\r\n").encode(),
    "cr": PLAIN.replace("\n", "\r").encode(),
    "empty rows": b"\n" + PLAIN.replace("\n", "\n\n \t\t \t\n").encode(),
    "trailing delimiters": PLAIN.replace("\n", "\t\t\n").encode(),
    "case and spaces": PLAIN.replace("subject\timage\tmodality\tage", " Subject\tIMAGE \tModality\t Age").encode(),
    "quotes": PLAIN.replace("\t", '"\t"').replace("\n", '"\n"').encode()[:-1].join([b'"', b""]),
    "excel": b"\xef\xbb\xbfsep=;\r\n" + PLAIN.replace("\t", ";").replace("\n", ";\r\n").encode(),
}


@pytest.mark.parametrize("name", ["m.tsv", "m.CSV", "m.TSV", "m.txt", "m"])
@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_is_the_same_in_whatever_form(tmp_path, form, name):
    path = written(tmp_path, name, FORMS[form])
    assert Manifest.read(path).records == (
        ScanRecord("01", tmp_path / "a.nii.gz", "T1w", age=40.5),
        ScanRecord("02", tmp_path / "b.nii.gz", "FLAIR"),
    )


@pytest.mark.parametrize("form", FORMS)
def test_other_tables_are_too(tmp_path, form):
    path = written(tmp_path, "people.csv", FORMS[form])
    found = read_source("table", path)
    assert [(r.subject, r.modality, r.age) for r in found.manifest] == [("01", "T1w", 40.5), ("02", "FLAIR", None)]
    assert found.problems == ()
    rows = [{name.lower(): cell for name, cell in row.items()} for row in read_table(path, what="a table").rows]
    assert [row["modality"].strip() for row in rows] == ["T1w", "FLAIR"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\xff\xfe" + "subject\timage\n".encode("utf-16-le"), "must be UTF-8 text, got UTF-16"),
        ("subject\timage\n".encode("utf-16-le"), "must be UTF-8 text, got zero bytes"),
        ("subject\tgr\u00f6\u00dfe\n".encode("latin-1"), "must be UTF-8 text, got byte 10"),
        (b"", "needs a header"),
        (b"\n\t\t\n", "needs a header"),
        (b"age,Age \n1,2\n", "name each column once, got 'Age' twice"),
        (b"a,b\n1,2\n1,2,3\n", "3 for 2 columns in '.*, line 3'"),
        (b'a,b\n1,"2\n3,4\n', "close the quote"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, raw, said):
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(DataError, match=said) as caught:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
    assert "t.csv" in str(caught.value)


def test_a_table_that_is_not_there_is_said(tmp_path):
    with pytest.raises(MissingInputError, match="a manifest must exist"):
        Manifest.read(tmp_path / "m.tsv")
    (tmp_path / "m.tsv").symlink_to(".git/annex/objects/x")
    with pytest.raises(MissingInputError, match="datalad get"):
        Manifest.read(tmp_path / "m.tsv")


def test_lines_count_as_an_editor_counts_them(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n\n1,2\n")
    assert read_table(tmp_path / "t.csv").lines == (3,)
    (tmp_path / "s.csv").write_text("sep=;\na;b\n\n1;2\n")
    assert read_table(tmp_path / "s.csv").lines == (4,)


def test_one_column_may_hold_other_delimiters(tmp_path):
    (tmp_path / "t.tsv").write_text("note\nold, but well\n")
    assert read_table(tmp_path / "t.tsv").rows == ({"note": "old, but well"},)


@pytest.mark.parametrize("name", ["scans.txt", "SCANS.TXT"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_list_is_the_same_with_a_mark_and_any_end_of_line(tmp_path, name, end):
    path = written(tmp_path, name, b"\xef\xbb\xbf" + end.join(["a.nii.gz", "", "# no", " b.nii.gz "]).encode())
    assert read_lines(path, what="a list of scans") == ["a.nii.gz", "b.nii.gz"]
    assert [scan.name for scan in find_scans(path)] == ["a", "b"]


def test_a_manifest_in_capitals_is_one_to_detect(tmp_path):
    path = written(tmp_path, "M.CSV", FORMS["semicolon"])
    assert [scan.name for scan in find_scans(path)] == ["sub-01_T1w", "sub-02_FLAIR"]


@pytest.mark.parametrize("text", ["", "nan", "inf", "1_0", "4,0,5", "old"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        parse_number(text)


def test_empty_lines_above_the_header_count_in_line_numbers(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\r\n\r\na,b\r\n1,2\r\n3,4,5\r\n")
    with pytest.raises(DataError, match="line 5"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("sep=;\na;b\n1;2\n3;4;5\n")
    with pytest.raises(DataError, match="line 4"):
        read_table(tmp_path / "t.csv")
