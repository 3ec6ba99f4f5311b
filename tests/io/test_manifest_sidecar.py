import json
from dataclasses import replace
from pathlib import Path

import pytest

from halebrain.core.errors import ConfigError, DataError, MissingInputError
from halebrain.io import manifest as manifest_module
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.manifest_sidecar import COLUMNS, Origin, read_origin, sidecar_path, write_sidecar

ORIGIN = Origin(source="ixi", settings={"part": "pre"}, problems=2, split_seed=7, split_fractions={"train": 1.0})


@pytest.fixture
def manifest():
    rows = [("1", "T1w", "train", "healthy"), ("1", "T2w", "train", "healthy"), ("2", "T1w", "test", None)]
    return Manifest(
        tuple(ScanRecord(s, Path(f"{s}{m}.nii"), m, split=split, pathology=p, site="é") for s, m, split, p in rows)
    )


def test_every_column_of_the_table_is_described_and_no_other():
    assert tuple(COLUMNS) == manifest_module.COLUMNS
    assert all(entry["Description"] for entry in COLUMNS.values())


def test_the_origin_survives_and_the_counts_are_those_of_the_table(tmp_path, manifest):
    table = tmp_path / "manifest.tsv"
    path = write_sidecar(manifest, table, ORIGIN)
    assert path == sidecar_path(table) == tmp_path / "manifest.json"
    assert read_origin(manifest, table) == ORIGIN
    said = json.loads(path.read_text(encoding="utf-8"))
    assert said["age"]["Units"] == "year"
    assert set(said["split"]["Levels"]) == {"train", "val", "test"}
    assert said["HaleBrain"]["Counts"] == {
        "scans": 3,
        "subjects": 2,
        "subjects_by_split": {"test": 1, "train": 1},
        "scans_by_split": {"test": 1, "train": 2},
        "scans_by_modality": {"T1w": 2, "T2w": 1},
        "scans_by_pathology": {"healthy": 2, "n/a": 1},
        "scans_by_site": {"é": 3},
    }


def test_no_folder_of_the_machine_stands_in_it(tmp_path, manifest):
    origin = Origin(source="table", settings={"table": "/home/me/scans.csv", "more": [{"a": "/home/me/x"}]})
    text = write_sidecar(manifest, tmp_path / "m.tsv", origin).read_text()
    assert "/home" not in text
    assert str(tmp_path) not in text
    assert read_origin(manifest, tmp_path / "m.tsv").settings == {"table": "scans.csv", "more": [{"a": "x"}]}


def test_a_table_that_was_changed_since_is_refused(tmp_path, manifest):
    write_sidecar(manifest, tmp_path / "m.tsv", ORIGIN)
    changed = Manifest((*manifest.records[:2], replace(manifest.records[2], split="val")))
    with pytest.raises(DataError, match=r"m\.tsv.*remove m\.json"):
        read_origin(changed, tmp_path / "m.tsv")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, MissingInputError),
        ("{", DataError),
        ("[]", DataError),
        ("{}", DataError),
        ('{"HaleBrain": {"Fingerprint": "x", "Origin": null}}', DataError),
        ('{"HaleBrain": {"Fingerprint": "FP", "Origin": {"sorce": "ixi"}}}', ConfigError),
    ],
)
def test_refuses_a_sidecar_that_says_nothing(tmp_path, manifest, text, kind):
    if text is not None:
        (tmp_path / "m.json").write_text(text.replace("FP", manifest.fingerprint()))
    with pytest.raises(kind, match=r"m\.json"):
        read_origin(manifest, tmp_path / "m.tsv")
