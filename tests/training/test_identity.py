"""A run is the same run only where everything that it depends on is the same."""

from pathlib import Path

import pytest

from halebrain.core.errors import DataError
from halebrain.data.slices import DataConfig
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.training.reconstructor import ReconstructorTraining
from halebrain.training.runs import read_training_manifest, run_identity
from halebrain.training.segmenter import _is_annotated


def manifest(*subjects):
    return Manifest(tuple(ScanRecord(subject=s, image=Path(s), modality="T1w", split="train") for s in subjects))


BASE = ReconstructorTraining()


def test_the_place_of_files_does_not_matter():
    moved = BASE.model_copy(update={"data": BASE.data.model_copy(update={"manifest": Path("x"), "cache": Path("y")})})
    assert run_identity(BASE, manifest("a", "b")) == run_identity(moved, manifest("b", "a"))


@pytest.mark.parametrize("changed", ["seed", "data", "modalities", "model"])
def test_everything_else_does(changed):
    config, rows, others = BASE, manifest("a"), ["hash"]
    if changed == "seed":
        config = BASE.model_copy(update={"seed": 5})
    elif changed == "data":
        rows = manifest("a", "b")
    elif changed == "modalities":
        config = BASE.model_copy(update={"data": BASE.data.model_copy(update={"modalities": ("T1w",)})})
    else:
        others = ["other"]
    assert run_identity(config, rows, *others) != run_identity(BASE, manifest("a"), "hash")


def test_which_scans_count_several_times_matters_and_only_then(tmp_path):
    tables = {}
    for subject in ("a", "b"):
        scan = tmp_path / f"{subject}.nii.gz"
        scan.touch()
        tables[subject] = tmp_path / f"{subject}.tsv"
        Manifest((ScanRecord(subject=subject, image=scan, modality="T1w", split="train"),)).write(tables[subject])

    def identity(further, weight):
        data = DataConfig(more_manifests=(tables[further],), oversample_factor=weight)
        return run_identity(BASE.model_copy(update={"data": data}), manifest("a", "b"))

    assert identity("a", 1) == identity("b", 1) == run_identity(BASE, manifest("a", "b"))
    assert len({identity("a", 1), identity("a", 3), identity("b", 3), identity("b", (3,))}) == 4


def test_a_healthy_scan_with_an_empty_mask_is_not_annotated():
    record = ScanRecord(subject="a", image=Path("a"), modality="T1w", lesion=Path("m"), pathology="healthy")
    assert not _is_annotated(record, None)


def test_tables_are_read_as_one_and_a_scan_in_both_is_refused(tmp_path):
    for name, subject in (("a", "one"), ("b", "two")):
        scan = tmp_path / f"{subject}.nii.gz"
        scan.touch()
        record = ScanRecord(subject=subject, image=scan, modality="T1w", split="train", pathology="healthy")
        Manifest((record,), source=tmp_path).write(tmp_path / f"{name}.tsv")
    first, second = tmp_path / "a.tsv", tmp_path / "b.tsv"
    both = read_training_manifest(DataConfig(manifest=first, more_manifests=(second,)))
    assert both.subjects() == ["one", "two"]
    with pytest.raises(DataError):
        read_training_manifest(DataConfig(manifest=first, more_manifests=(first,)))
