"""`halebrain folds`: tables that a benchmark reads; wrong options and folders are refused and nothing is written."""

import json

import pytest

from halebrain.io.manifest import Manifest
from halebrain.io.manifest_sidecar import sidecar_path

HEALTHY = [(f"h{n}", "T1w", "train", "healthy") for n in range(9)]
TUMOURS = [(f"t{n}", "T1w", "train", "tumour") for n in range(6)]
OPTIONS = ("--folds", 2, "--val", 2, "--test", 3, "--weak", "tumour=2:1")


@pytest.fixture
def tables(small_cohort):
    return "--manifest", small_cohort(HEALTHY, "ixi"), "--manifest", small_cohort(TUMOURS, "brats")


def test_the_tables_of_two_data_sets_become_folds(command, tables, tmp_path):
    out = tmp_path / "folds"
    code, said = command("folds", *tables, "-o", out, *OPTIONS, "--json")
    assert code == 0, said.err
    found = json.loads(said.out)
    assert found["folds"] == [str(out / "fold0.tsv"), str(out / "fold1.tsv")]
    assert found["subjects"][1] == {
        "train": {"healthy": 4, "tumour": 2},
        "val": {"healthy": 2, "tumour": 1},
        "test": {"healthy": 3, "tumour": 3},
    }
    assert "are replaced" in said.err
    fold = Manifest.read(out / "fold1.tsv")
    assert len(fold) == 15
    assert all(record.image.is_file() for record in fold)
    about = json.loads(sidecar_path(out / "fold1.tsv").read_text())["HaleBrain"]
    assert about["Origin"]["fold"] == "2 of 2"
    assert about["Counts"]["subjects_by_split"] == {"test": 6, "train": 6, "val": 3}

    code, said = command("folds", *tables, "-o", out, *OPTIONS)
    assert code == 73
    assert "--overwrite" in said.err
    assert command("folds", *tables, "-o", out, *OPTIONS[2:], "--folds", 1, "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["fold0.json", "fold0.tsv"]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (("--weak", "stroke=2"), 2, "--weak takes DISEASE=TRAIN:VAL, got 'stroke=2'"),
        (("--weak", "tumour=1:1"), 2, "--weak takes each disease once, got tumour"),
        (("--weak", "healthy=1:1"), 2, "--weak is for diseases"),
        (("--weak", "stroke=1:1"), 65, "a disease of --weak needs annotated scans, got stroke"),
        (("--test", 7), 65, "got 9, of which 0 remain for training"),
        (("--manifest", "no.tsv"), 66, "must exist"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(command, tables, tmp_path, changes, code, words):
    out = tmp_path / "folds"
    found, said = command("folds", *tables, "-o", out, *OPTIONS, *changes)
    assert found == code
    assert words in said.err
    assert not out.exists()


def test_a_scan_in_two_tables_is_refused(command, small_cohort, tmp_path):
    tables = ("--manifest", small_cohort(HEALTHY, "a"), "--manifest", small_cohort(HEALTHY, "b"))
    code, said = command("folds", *tables, "-o", tmp_path / "folds", *OPTIONS[:6])
    assert code == 65
    assert "a scan must be listed once" in said.err


def test_a_folder_of_other_things_is_not_replaced(command, tables, tmp_path):
    (tmp_path / "folds").mkdir()
    (tmp_path / "folds" / "mine.txt").write_text("mine")
    code, said = command("folds", *tables, "-o", tmp_path / "folds", *OPTIONS, "--overwrite")
    assert code == 73
    assert "got mine.txt" in said.err
    assert (tmp_path / "folds" / "mine.txt").is_file()
