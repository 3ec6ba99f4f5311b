"""Figures of images whose figures are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.provenance import QualityReport
from halebrain.core.types import Volume
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.quality.measurements import (
    cut_off,
    measure_geometry,
    measure_intensities,
    smoothness,
    structure,
)

KNOWN = QualityReport(flags=("thick slices",))
EVERYWHERE = np.ones((30, 30, 30), dtype=bool)


def volume(data, affine=None):
    return Volume(np.asarray(data, dtype=np.float32), np.eye(4) if affine is None else affine)


def intensities(scan):
    return measure_intensities(KNOWN, scan, EVERYWHERE)


def test_grey_levels_are_counted_whatever_their_unit(rng):
    steps = rng.integers(0, 256, EVERYWHERE.shape)
    steps[0, 0, :2] = (0, 255)
    for unit in (1.0, 1 / 255, 2.5, 1e-9):
        found = intensities(volume(steps * unit))
        assert found.grey_levels == 255
        assert found.highest_intensity == pytest.approx(255 * unit, rel=1e-3)
    assert intensities(volume(steps - 100)).grey_levels is None
    assert intensities(volume(rng.random(EVERYWHERE.shape))).grey_levels is None
    assert intensities(volume(steps)).distinct_values == len(np.unique(steps))


def test_uniform_and_clipped_intensities():
    line = np.linspace(1, 2, 27000).reshape(30, 30, 30)
    assert intensities(volume(line)).distance_to_uniform < 0.01
    assert intensities(volume(line**8)).distance_to_uniform > 0.2
    found = intensities(volume(np.minimum(line, 1.75)))
    assert found.saturated_share == pytest.approx(0.25, abs=0.001)


def test_voxels_and_faces_of_the_field_of_view():
    mask = np.zeros((30, 20, 10), dtype=bool)
    mask[5:25, 4:16, 2:8] = True
    scan = volume(mask, np.diag([1.0, 2.0, 4.0, 1.0]))
    expected = {"spacing_max_mm": 4.0, "brain_voxels_across": 6, "cut_face": 0.0, "placements_apart_mm": 0.0}
    assert measure_geometry(KNOWN, scan, mask) == replace(KNOWN, **expected)
    mask[5:15, 4:16, 8:] = True  # half of the section reaches the top
    assert measure_geometry(KNOWN, scan, mask).cut_face == 0.5


def test_what_of_the_template_lies_outside_of_the_scan():
    grid = Grid((20, 20, 20), np.eye(4))
    everywhere = np.ones(grid.shape, dtype=bool)
    assert cut_off(grid, grid, np.eye(4), everywhere) == 0
    assert cut_off(Grid((20, 20, 15), np.eye(4)), grid, np.eye(4), everywhere) == pytest.approx(0.25)


def test_smoothness_rises_with_the_resolution_and_needs_all_axes(rng):
    noise = rng.standard_normal((40, 40, 40)).astype(np.float32)
    mask = np.ones(noise.shape, dtype=bool)
    values = [smoothness(ndimage.gaussian_filter(noise, sigma), mask, 2.0) for sigma in (0.0, 0.8, 1.3)]
    assert values[0] == pytest.approx(0, abs=0.05)
    # Neighbours of noise smoothed by σ voxels correlate by exp(−1/(4σ²)); the high pass takes some of it.
    assert values[1] == pytest.approx(np.exp(-1 / (4 * 0.8**2)), abs=0.06)
    assert values[0] < values[1] < values[2]
    one_axis = ndimage.gaussian_filter1d(noise, 3.0, axis=2)
    assert smoothness(one_axis, mask, 2.0) < 0.1
    assert smoothness(noise, mask, 6.0) is None
    assert smoothness(noise[:5], mask[:5], 2.0) is None


def test_structure_of_noise_and_of_a_slope(rng):
    noise = rng.standard_normal(EVERYWHERE.shape)
    assert structure(volume(noise), EVERYWHERE) == pytest.approx(0, abs=0.03)
    slope = np.indices(EVERYWHERE.shape).sum(axis=0)
    assert structure(volume(slope), EVERYWHERE) == pytest.approx(1, abs=1e-3)
    along_first = ndimage.gaussian_filter1d(ndimage.gaussian_filter1d(noise, 0.6, axis=0), 2.0, axis=2)
    assert structure(volume(along_first), EVERYWHERE) > 0.9
    assert 0.3 < structure(volume(along_first), EVERYWHERE, enough=0.1) < 0.7
    # Half of the variance is noise.
    assert structure(volume(slope / slope.std() + noise), EVERYWHERE) == pytest.approx(0.5, abs=0.05)
