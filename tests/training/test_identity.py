"""A run is the same run only where everything that it depends on is the same."""

from pathlib import Path

import pytest

from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.training.reconstructor import ReconstructorTraining, run_identity
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


def test_a_healthy_scan_with_an_empty_mask_is_not_annotated():
    record = ScanRecord(subject="a", image=Path("a"), modality="T1w", lesion=Path("m"), pathology="healthy")
    assert not _is_annotated(record, None)
