"""Reconstruction quality by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from halebrain.evaluation.reconstruction_quality import LevelQuality, reconstruction_quality, summarise_levels

SHAPE = (12, 12, 3)
LESION, BRAIN = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
LESION[4:6, 4:6, 1] = True
BRAIN[1:11, 1:11] = True


def measure(reconstructed, *, known=True):
    """A lesion of 0.8 in a brain of 0.4; the reconstruction has 0.5 outside of it."""
    healthy = np.full(SHAPE, 0.4, dtype=np.float32)
    image, reconstruction = healthy.copy(), np.full(SHAPE, 0.5, dtype=np.float32)
    image[LESION], reconstruction[LESION] = 0.8, reconstructed
    return reconstruction_quality(image, reconstruction, LESION, BRAIN, healthy=healthy if known else None)


@pytest.mark.parametrize(("reconstructed", "removed"), [(0.4, 1.0), (0.8, 0.0), (0.5, 0.75), (1.0, -0.5)])
def test_by_hand(reconstructed, removed):
    quality = measure(reconstructed)
    assert quality.lesion_removed == pytest.approx(removed, abs=1e-5)
    assert quality.error_inside == pytest.approx(abs(reconstructed - 0.4), abs=1e-6)
    assert quality.error_outside == pytest.approx(0.1, abs=1e-6)
    assert quality.residual_contrast == pytest.approx(abs(0.8 - reconstructed) / 0.1, abs=1e-4)
    assert quality.psnr_outside == pytest.approx(20.0, abs=1e-3)
    if reconstructed != 0.4:
        assert quality.psnr_inside == pytest.approx(-20 * math.log10(abs(reconstructed - 0.4)), abs=1e-3)


def test_a_perfect_reconstruction_is_perfect():
    healthy = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    image = np.where(LESION, healthy + 0.5, healthy).astype(np.float32)
    quality = reconstruction_quality(image, healthy, LESION, BRAIN, healthy=healthy)
    assert (quality.lesion_removed, quality.error_outside, quality.psnr_inside) == (1.0, 0.0, math.inf)
    assert quality.ssim_inside == pytest.approx(1.0, abs=1e-5)
    assert quality.residual_contrast > 1e3


def test_on_a_real_patient_only_what_can_be_known():
    quality = measure(0.5, known=False)
    assert quality.residual_contrast == pytest.approx(3.0, abs=1e-3)
    assert quality.error_outside == pytest.approx(0.1, abs=1e-6)
    for name in ("error_inside", "lesion_removed", "psnr_inside", "ssim_inside"):
        assert math.isnan(getattr(quality, name)), name


def test_a_lesion_is_needed():
    ones, none = np.ones(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=bool)
    with pytest.raises(ValueError, match="needs a lesion"):
        reconstruction_quality(ones, ones, none, ~none)


def test_the_contrast_is_relative_to_the_95th_percentile_of_the_rest():
    image, reconstruction = np.full(SHAPE, 0.4, np.float32), np.full(SHAPE, 0.4, np.float32)
    image[LESION] = 0.9
    outside = BRAIN & ~LESION
    steps = np.linspace(0, 0.1, int(outside.sum()), dtype=np.float32)
    reconstruction[outside] += steps
    quality = reconstruction_quality(image, reconstruction, LESION, BRAIN)
    assert quality.residual_contrast == pytest.approx(0.5 / np.percentile(steps, 95), rel=1e-4)


def test_a_perfect_scan_takes_no_part_in_the_mean_of_decibels():
    own = [measure(0.5), measure(0.6), measure(0.4 + 1e-9)]
    own[2] = replace(own[2], psnr_inside=math.inf)
    found = summarise_levels([LevelQuality(f"s{n}", f"s{n}", "300", one) for n, one in enumerate(own)], seed=0)
    interval = found["300", "psnr_inside"]
    assert (interval.n_scans, interval.n_undefined) == (2, 1)
    assert interval.mean == pytest.approx((own[0].psnr_inside + own[1].psnr_inside) / 2)
