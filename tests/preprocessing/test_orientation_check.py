"""Scans that are turned over, no MR, of a child or cut: named, not passed."""

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.quality.assess import assess
from halebrain.preprocessing.quality.measurements import normalised_mutual_information, orientation_ratio
from halebrain.preprocessing.template import load_template

TURNED = "upside down or back to front"


def brain(*, contrast="T1w", axes=(), scale=1.0):
    """Return the template's brain, a little nodded and smaller, whose header may lie about its orientation."""
    template, mask = load_template(2)
    data = np.where(mask, template.data / template.data[mask].max(), 0)
    if contrast == "T2w":
        data = np.where(mask, 1.3 - data, 0)
    data = data + np.where(mask, np.random.default_rng(0).normal(0, 0.02, data.shape), 0)
    affine = template.affine.copy()
    affine[:3] *= 0.95 * scale
    return Volume(np.flip(data, axes).astype(np.float32).copy(), affine, name=f"{contrast}.nii.gz")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contrast", "axes"),
    [
        ("T1w", ()),
        pytest.param("T1w", (2,), marks=pytest.mark.slow),
        pytest.param("T2w", (), marks=pytest.mark.sweep),
        pytest.param("T2w", (1,), marks=pytest.mark.sweep),
    ],
)
def test_a_header_that_lies_is_found_out(contrast, axes):
    scan = Preprocessor(PreprocessingConfig(bias_correction="none")).run(brain(contrast=contrast, axes=axes))
    assert any(TURNED in flag for flag in scan.qc.flags) == bool(axes)
    assert (scan.qc.orientation_ratio > 1.5) == (not axes)


def test_information_is_shared_with_itself_and_not_with_noise():
    rng = np.random.default_rng(0)
    one, other = rng.random((30, 30, 30)), rng.random((30, 30, 30))
    everywhere = np.ones(one.shape, dtype=bool)
    assert normalised_mutual_information(one, one, everywhere) == pytest.approx(2)
    assert normalised_mutual_information(one, other, everywhere) == pytest.approx(1, abs=0.01)
    assert orientation_ratio(one, ~everywhere, one, everywhere) is None


def test_ct_is_refused():
    volume = brain()
    hounsfield = np.where(volume.data > 0, 30 + 20 * volume.data, -1000).astype(np.float32)
    with pytest.raises(DataError, match=r"must be MR, got intensities in Hounsfield units.* in 'ct\.nii'"):
        Preprocessor(PreprocessingConfig()).run(Volume(hounsfield, volume.affine, name="ct.nii"))


@pytest.mark.slow
@pytest.mark.parametrize("background", [0, -1024])
def test_a_standardised_scan_is_no_ct(background):
    volume = brain()
    inside = volume.data > 0
    standardised = (volume.data - volume.data[inside].mean()) / volume.data[inside].std()
    data = np.where(inside, standardised, background).astype(np.float32)
    scan = Preprocessor(PreprocessingConfig(bias_correction="none")).run(Volume(data, volume.affine))
    assert scan.qc.registration_mask_dice > 0.95
    assert scan.qc.brain_volume_ml == pytest.approx(inside.sum() * np.prod(volume.spacing_mm) / 1000, rel=0.02)


def test_a_stripped_ct_is_refused_too():
    """Brain of 20 to 45 HU on a background of −1024, with the noise of a scanner."""
    volume = brain()
    noise = np.random.default_rng(0).normal(0, 4, volume.shape)
    data = np.where(volume.data > 0, 20 + 25 * volume.data / volume.data.max() + noise, -1024).astype(np.float32)
    with pytest.raises(DataError, match="must be MR, got intensities in Hounsfield units"):
        Preprocessor(PreprocessingConfig()).run(Volume(data, volume.affine, name="ct.nii"))


@pytest.mark.slow
def test_the_brain_of_a_small_child_is_named():
    volume = brain(scale=0.75)
    quality = assess(volume, Preprocessor(PreprocessingConfig(bias_correction="none")).run(volume))
    assert any("not an adult's" in flag for flag in quality.flags)
