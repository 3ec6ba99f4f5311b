from pathlib import Path

import pytest

from halebrain.core.errors import ConfigError, DataError
from halebrain.data.datasets import add_people
from halebrain.io.manifest import Manifest, ScanRecord


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "people.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def scan(subject, **more):
    return ScanRecord(subject, Path(f"{subject}{more.get('session', '')}.nii"), "T1w", **more)


def test_fills_what_the_manifest_lacks_for_every_scan_of_a_subject(write):
    manifest = Manifest((scan("01a", session="1"), scan("01a", session="2"), scan("02", age=30.0)))
    table = write("participant_id,Age,Gender,Center,Dx\nsub-01_a,41,female,A,HC\nsub-02,30,m,B,stroke\n")
    result = add_people(manifest, table)
    assert result.problems == ()
    assert [(r.age, r.sex, r.site, r.pathology) for r in result.manifest] == [
        (41.0, "F", "A", "healthy"),
        (41.0, "F", "A", "healthy"),
        (30.0, "M", "B", "stroke"),
    ]
    assert [r.image for r in result.manifest] == [r.image for r in manifest]


def test_a_row_of_a_session_is_about_that_session(write):
    manifest = Manifest((scan("1", session="a"), scan("1", session="b"), scan("1", session="c")))
    result = add_people(manifest, write("id;session;age\n1;ses-a;40\n1;ses-b;42,5\n"))
    assert [r.age for r in result.manifest] == [40.0, 42.5, None]
    assert result.problems == ("sub-1: not in people.csv",)


def test_what_contradicts_is_named_and_changes_nothing(write):
    manifest = Manifest((scan("1", sex="M"), scan("2")))
    result = add_people(manifest, write("id,age,sex\n1,n/a,F\n2,40,F\n2,41,F\n"))
    assert [(r.age, r.sex) for r in result.manifest] == [(None, "M"), (None, "F")]
    assert result.problems == (
        "sub-1: with people.csv its sex is 'F' and 'M'; it is kept unchanged",
        "sub-2: with people.csv its age is '40.0' and '41.0'; it is left out",
    )


@pytest.mark.parametrize(
    ("text", "columns", "kind", "word"),
    [
        ("name,age\n1,40\n", None, DataError, "column for the subject"),
        ("id,height\n1,40\n", None, DataError, "one of age, sex, site, pathology"),
        ("id,age\n", None, DataError, "no row"),
        ("id,Alter\n1,40\n", {"age": "altr"}, ConfigError, "did you mean 'Alter'"),
        ("id,Alter\n1,40\n", {"agee": "Alter"}, ConfigError, "did you mean 'age'"),
    ],
)
def test_refuses_tables_that_say_nothing(write, text, columns, kind, word):
    with pytest.raises(kind) as caught:
        add_people(Manifest((scan("1"),)), write(text), columns)
    assert word in str(caught.value)
    assert add_people(Manifest((scan("1"),)), write("id,Alter\n1,40\n"), {"age": "alter"}).manifest.records[0].age == 40
