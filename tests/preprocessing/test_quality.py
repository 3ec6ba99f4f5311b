"""Quality figures on scans whose defects are made, so that every figure is known."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.types import Volume
from halebrain.data.prepared_set import lesion_lost
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor, WorkingScan
from halebrain.preprocessing.quality.assess import (
    assess,
    group_distances,
    histogram_distance,
    outliers,
    robust_deviations,
)
from halebrain.preprocessing.template import load_template

CONFIG = PreprocessingConfig(registration="none", bias_correction="none")
NOISE = 2.0


def template_scan(*, noise=NOISE, change=None):
    template, mask = load_template(2)
    data = np.where(mask, 100 * template.data / np.median(template.data[mask]), 0).astype(np.float32)
    smooth = ndimage.gaussian_filter(data, 2)
    data = np.where(mask, smooth + noise * np.random.default_rng(0).standard_normal(data.shape), 0).astype(np.float32)
    if change is not None:
        change(data, mask)
    return Volume(data, template.affine), mask.copy()


def measured(volume, mask, lesion=None):
    return assess(volume, Preprocessor(CONFIG).run(volume, brain_mask=mask), lesion)


@pytest.fixture(scope="module")
def good():
    volume, mask = template_scan()
    return measured(volume, mask)


def test_the_template_itself_is_without_fault(good):
    assert good.figures["working_grid_mask_dice"] > 0.99
    assert 1.05 < good.figures["normalised_mutual_information"] <= 2.0
    assert good.figures["cut_off"] == 0
    assert good.figures["gap_slices"] == 0
    assert good.figures["lesion_volume_ml"] is None
    # Its smoothing to 9 mm, in which noise can be measured, is all there is to say.
    assert [flag.split(" or ")[0] for flag in good.flags] == ["as smooth as PET"]
    assert sum(good.histogram) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, 4.0, 8.0])
def test_the_noise_that_was_added_is_measured(noise):
    volume, mask = template_scan(noise=noise)
    snr = measured(volume, mask).figures["snr"]
    assert snr == pytest.approx(float(np.median(volume.data[mask])) / noise, rel=0.15)


@pytest.mark.slow
def test_an_image_independent_of_the_template_shares_no_information(good):
    volume, mask = template_scan()
    # Not of single voxels: a scan of noise alone is refused.
    noise = ndimage.gaussian_filter(np.random.default_rng(1).uniform(1, 100, volume.shape), 0.5).astype(np.float32)
    found = measured(Volume(np.where(mask, noise, 0).astype(np.float32), volume.affine), mask).figures
    assert found["normalised_mutual_information"] == pytest.approx(1, abs=0.01)
    assert found["normalised_mutual_information"] < good.figures["normalised_mutual_information"]


def test_empty_and_repeated_slices_are_counted():
    def spoil(data, mask):
        data[:, :, 40] = 0
        data[:, :, 31] = data[:, :, 30]

    volume, mask = template_scan(change=spoil)
    found = measured(volume, mask)
    assert found.figures["gap_slices"] == 2
    assert any("2 empty or repeated slices" in flag for flag in found.flags)


def test_a_field_of_view_that_ends_within_the_brain_is_named():
    volume, mask = template_scan()
    cut = 25
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] * cut
    found = measured(Volume(volume.data[:, :, cut:].copy(), affine), mask[:, :, cut:])
    assert found.figures["cut_off"] == pytest.approx(mask[:, :, :cut].sum() / mask.sum(), abs=0.01)
    assert any("cut off" in flag for flag in found.flags)


@pytest.mark.slow
def test_masks_that_make_no_sense_are_named():
    volume, mask = template_scan()
    assert "the lesion mask is empty" in measured(volume, mask, np.zeros_like(mask)).flags
    outside = ~ndimage.binary_dilation(mask, iterations=3)
    found = measured(volume, mask, outside)
    assert found.figures["lesion_outside_brain"] == 1
    assert any("100 % of the lesion" in flag for flag in found.flags)
    voxel_ml = 8 / 1000
    lesion = np.zeros_like(mask)
    lesion[40:50, 50:60, 40:50] = mask[40:50, 50:60, 40:50]
    assert measured(volume, mask, lesion).figures["lesion_volume_ml"] == pytest.approx(lesion.sum() * voxel_ml)


@pytest.mark.slow
def test_a_small_head_and_an_8_bit_image_are_named():
    volume, mask = template_scan()
    rendered = np.round(np.clip(255 * volume.data / volume.data.max(), 0, 255)).astype(np.float32)
    small = Volume(rendered, volume.affine @ np.diag([0.7, 0.7, 0.7, 1]))
    flags = " ".join(measured(small, mask).flags)
    assert "not an adult's" in flags
    assert "8-bit" in flags
    assert "overlap" in flags


def test_distance_of_histograms_is_how_far_the_mass_moves():
    assert histogram_distance([1, 0, 0, 0], [0, 0, 0, 1]) == 0.75
    assert histogram_distance([2, 2], [1, 1]) == 0
    assert group_distances([[1, 0], [1, 0], [0, 1]]) == [0.25, 0.25, 0.5]
    assert group_distances([[1, 0]]) == [None]


def test_the_odd_one_out_is_found_and_small_groups_have_none():
    values = [10.0, 10.1, 9.9, 10.2, 9.8, 10.0, 10.1, 9.9, 30.0]
    deviations = robust_deviations(values)
    assert deviations[0] == pytest.approx(0, abs=0.2)
    assert deviations[-1] > 50
    found = outliers([{"snr": value, "undefined": None} for value in values])
    assert [bool(lines) for _, lines in found] == [False] * 8 + [True]
    assert "snr 30" in found[-1][1][0]
    assert robust_deviations(values[-3:]) == [None] * 3
    assert outliers([]) == []


def test_lesion_beyond_the_slices_of_the_grid_is_counted_exactly():
    native = Grid((4, 4, 40), np.eye(4))
    moved = np.eye(4)
    moved[2, 3] = 5  # the template's 0 is at 5 mm of the scan
    # Ten slices of 2 mm from −1 to 19 mm of the template: 4 to 24 mm of the scan.
    grid = Grid((5, 5, 10), np.diag([2.0, 2, 2, 1]))
    scan = SimpleNamespace(native=native, grid=grid, template_to_native=moved)
    lesion = np.zeros((4, 4, 40), dtype=bool)
    assert WorkingScan.share_outside_grid(scan, lesion) == 0
    lesion[0, 0] = True
    assert WorkingScan.share_outside_grid(scan, lesion) == 20 / 40
    lesion[0, 0, :20] = False
    assert WorkingScan.share_outside_grid(scan, lesion) == pytest.approx(16 / 20)
    entry = SimpleNamespace(figures={"lesion_volume_ml": 2.0, "lesion_outside_grid": 0.25})
    older = SimpleNamespace(figures={"lesion_volume_ml": 9.0, "lesion_outside_grid": None})
    assert lesion_lost([entry, older, entry]) == (4.0, 1.0, 2)
