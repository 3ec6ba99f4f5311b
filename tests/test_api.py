"""The Python face calls what the command calls, and gives what it promises."""

import json
import subprocess
import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest

import halebrain
from halebrain import api
from halebrain.core.errors import DataError, UnavailableError, UsageError
from halebrain.core.messages import log_message
from halebrain.io.manifest import Manifest
from halebrain.models.bundle import load_bundle
from halebrain.workflows import detect as workflow

MAPS = ("reconstruction", "residual", "uncertainty", "mask", "brain_mask")
SCORES = ("score", "probability")
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


def test_the_command_and_the_function_call_the_same_with_the_same(command, bundled, scan, tmp_path, monkeypatch):
    """What follows in `find_anomalies` decides every number, so the results need not be compared."""
    calls = []

    def note(detector, volume, working, scan, *, notes, steps=None):
        calls.append((detector, volume, working, scan, notes))
        raise UnavailableError("no network runs here")

    assert api.find_anomalies is workflow.find_anomalies
    for module in (api, workflow):
        monkeypatch.setattr(module, "find_anomalies", note)
    options = ("--threshold", "0.05", "--device", "cpu", "--seed", 3, "--draws", 2, "--no-progress")
    code, said = command("detect", "-i", scan, "-o", tmp_path / "out", *options)
    assert (code, said.err) == (UnavailableError.exit_code, "halebrain: no network runs here\n")
    with pytest.raises(UnavailableError, match="no network runs here"):
        halebrain.detect(scan, **HOW)
    (typed, *theirs), (called, *ours) = calls
    assert replace(typed.settings, notify=log_message) == called.settings
    assert typed.options == called.options
    assert typed.predictor.bundle.sha256 == called.predictor.bundle.sha256
    (volume, working, read, notes), (other_volume, other_working, other, other_notes) = theirs, ours
    np.testing.assert_array_equal(volume.data, other_volume.data)
    np.testing.assert_array_equal(working.image, other_working.image)
    np.testing.assert_array_equal(working.brain_mask, other_working.brain_mask)
    assert (read.name, read.modality, notes) == (other.name, other.modality, other_notes)


@pytest.mark.slow
def test_a_prediction_holds_what_it_promises(bundled, scan):
    image, found = nibabel.load(scan), halebrain.detect(scan, min_lesion_mm3=0, **HOW)
    brain = values(found.brain_mask) > 0
    for name in (*MAPS, *SCORES):
        mapped = getattr(found, name)
        np.testing.assert_array_equal(mapped.affine, image.affine, err_msg=name)
        assert mapped.shape == image.shape
        assert mapped.get_data_dtype() == (np.uint8 if name.endswith("mask") else np.float32)
    for name in SCORES:
        assert values(getattr(found, name)).min() >= 0
        assert values(getattr(found, name)).max() <= 1
    score = values(found.score)
    assert not score[~brain].any()
    np.testing.assert_array_equal(values(found.mask) > 0, (score >= HOW["threshold"]) & brain)
    volumes = [lesion.volume_ml for lesion in found.lesions]
    assert volumes, "a threshold that marks nothing would show nothing"
    assert volumes == sorted(volumes, reverse=True)
    mine = json.loads(json.dumps(found.provenance))
    assert (mine["seed"], mine["draws"], mine["n_lesions"]) == (3, 2, len(volumes))
    assert mine["qc"]["flags"] == found.qc["flags"]
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
