import json
from pathlib import Path

import pytest

from halebrain.io import manifest as manifest_module
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.manifest_sidecar import COLUMNS, Origin, sidecar_path, write_sidecar

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
    said = json.loads(path.read_text(encoding="utf-8"))
    assert said["HaleBrain"]["Fingerprint"] == manifest.fingerprint()
    assert Origin.model_validate(said["HaleBrain"]["Origin"]) == ORIGIN
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
    assert json.loads(text)["HaleBrain"]["Origin"]["settings"] == {"table": "scans.csv", "more": [{"a": "x"}]}
