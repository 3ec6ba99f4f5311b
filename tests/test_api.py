"""The Python face gives what the command writes, number for number."""

import csv
import json
import subprocess
import sys
from dataclasses import astuple, fields

import nibabel
import numpy as np
import pytest

import halebrain
from halebrain.core.errors import DataError, UnavailableError, UsageError
from halebrain.inference.lesions import Lesion
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle

MAPS = {
    "reconstruction": "sub-p_desc-pseudohealthy_FLAIR",
    "residual": "sub-p_desc-residual_FLAIR",
    "uncertainty": "sub-p_desc-uncertainty_FLAIR",
    "mask": "sub-p_rec-FLAIR_desc-anomaly_mask",
    "brain_mask": "sub-p_rec-FLAIR_desc-brain_mask",
}
SCORES = {"score": "sub-p_rec-FLAIR_desc-anomaly_probseg", "probability": "sub-p_rec-FLAIR_desc-segmenter_probseg"}
HOW = {"threshold": 0.05, "device": "cpu", "seed": 3, "draws": 2}


@pytest.fixture
def scan(small_cohort):
    return next(iter(Manifest.read(small_cohort([("p", "FLAIR", "test", "ms")])))).image


def values(image):
    return np.asarray(image.dataobj)


def equal(one, other):
    for name in (*MAPS, *SCORES):
        np.testing.assert_array_equal(values(getattr(one, name)), values(getattr(other, name)), err_msg=name)
        np.testing.assert_array_equal(getattr(one, name).affine, getattr(other, name).affine)
    assert (one.lesions, one.qc) == (other.lesions, other.qc)


@pytest.mark.slow
def test_the_command_and_the_function_give_the_same(command, bundled, scan, tmp_path):
    out = tmp_path / "out"
    options = ("--threshold", "0.05", "--device", "cpu", "--seed", 3, "--draws", 2, "--no-progress")
    assert command("detect", "-i", scan, "-o", out, *options)[0] == 0
    found = halebrain.detect(scan, **HOW)
    for name, file in MAPS.items():
        written = nibabel.load(out / f"{file}.nii.gz")
        np.testing.assert_array_equal(values(getattr(found, name)), values(written), err_msg=name)
        np.testing.assert_array_equal(getattr(found, name).affine, written.affine)
        assert getattr(found, name).get_data_dtype() == written.get_data_dtype()
    for name, file in SCORES.items():
        # On disk a score has 16 bits.
        stored = values(nibabel.load(out / f"{file}.nii.gz")) * 65535
        np.testing.assert_array_equal(np.rint(values(getattr(found, name)).astype(float) * 65535), np.rint(stored))
    with (out / "sub-p_rec-FLAIR_desc-anomaly_lesions.tsv").open() as handle:
        rows = list(csv.reader(handle, delimiter="\t"))
    assert rows[0] == [f.name for f in fields(Lesion)]
    assert rows[1:] == [[str(value) for value in astuple(lesion)] for lesion in found.lesions]
    assert found.lesions, "a threshold that calls nothing would compare nothing"
    told = json.loads((out / "sub-p_rec-FLAIR_desc-anomaly_provenance.json").read_text())
    mine = json.loads(json.dumps(found.provenance))
    assert set(told) - set(mine) == {"input_sha256", "input_in_dataset", "brain_mask_sha256", "scan", "seconds"}
    assert {k: v for k, v in told.items() if k in mine} == {k: v for k, v in mine.items() if k in told}
    assert mine["threshold"]["modality"] == "FLAIR"
    assert mine["threshold"]["modality_known_from"] == "file name"
    assert mine["notice"].startswith("Research use only")


@pytest.mark.slow
def test_an_image_in_memory_is_as_good_as_its_file(bundled, scan):
    image = nibabel.load(scan)
    from_file = halebrain.detect(str(scan), **HOW)
    equal(from_file, halebrain.detect(image, **HOW))
    copy = nibabel.Nifti1Image(np.asarray(image.dataobj).astype(np.float64), image.affine)
    equal(from_file, halebrain.detect(copy, **HOW))


@pytest.mark.slow
def test_a_model_is_given_in_any_way(bundled, scan, small_model):
    loaded = halebrain.load_model()
    assert loaded.sha256 == halebrain.load_model("general").sha256 == halebrain.load_model(small_model).sha256
    plain = halebrain.detect(scan, **HOW)
    for model in (loaded, "general", str(small_model), small_model):
        equal(plain, halebrain.detect(scan, model=model, **HOW))
    assert plain.provenance["model_sha256"] == load_bundle(bundled).sha256


@pytest.mark.slow
def test_a_mask_is_given_in_any_way_and_counts(bundled, scan, tmp_path):
    image = nibabel.load(scan)
    inside = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    inside[: inside.shape[0] // 2] = 0
    mask = nibabel.Nifti1Image(inside, image.affine)
    nibabel.save(mask, tmp_path / "mask.nii.gz")
    first = halebrain.detect(scan, brain_mask=tmp_path / "mask.nii.gz", **HOW)
    for given, masked in ((scan, mask), (image, mask), (image, tmp_path / "mask.nii.gz")):
        equal(first, halebrain.detect(given, brain_mask=masked, **HOW))
    assert not values(first.brain_mask)[: inside.shape[0] // 2].any()
    assert values(first.brain_mask).any()


def test_small_lesions_are_dropped_on_request(bundled, scan):
    assert halebrain.detect(scan, min_lesion_mm3=1e9, **HOW).lesions == ()


def test_refusals_are_those_of_the_command(bundled, scan):
    image = nibabel.load(scan)
    with pytest.raises(UsageError, match="path or a nibabel image"):
        halebrain.detect(np.asarray(image.dataobj), **HOW)
    with pytest.raises(DataError, match="three dimensions"):
        halebrain.detect(nibabel.Nifti1Image(np.zeros((9, 9, 9, 3), np.float32), np.eye(4)), **HOW)
    with pytest.raises(DataError, match="needs an affine"):
        halebrain.detect(nibabel.Nifti1Image(np.asarray(image.dataobj), None), **HOW)
    shifted = nibabel.Nifti1Image(np.ones(image.shape, np.uint8), image.affine + np.eye(4))
    with pytest.raises(DataError, match="on the grid of its scan"):
        halebrain.detect(image, brain_mask=shifted, **HOW)
    with pytest.raises(UsageError, match="stored name"):
        halebrain.detect(image, threshold="fpr:0.5")
    bundled.unlink()
    with pytest.raises(UnavailableError, match="halebrain models import"):
        halebrain.detect(image, **HOW)


@pytest.mark.slow
def test_the_names_are_there_before_anything_is_loaded():
    code = (
        "import sys, halebrain; assert {'detect', 'load_model', 'Prediction'} <= set(dir(halebrain));"
        "assert 'torch' not in sys.modules; halebrain.Prediction; assert 'torch' in sys.modules;"
        "from halebrain import detect; print(hasattr(halebrain, 'nothing'), detect.__module__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "halebrain.api"]
