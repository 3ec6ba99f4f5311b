"""One rule for masks: the volume that is meant comes out, whoever made the file, or a line says why not."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.io.masks import look_at_values, mask_from
from halebrain.io.volume import read_mask

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (40, 48, 40)
TRUE_VOXELS = 1000
"""8 ml at 2 mm: a cube of 20 mm."""


@pytest.fixture
def cube():
    truth = np.zeros(SHAPE, np.float32)
    truth[10:20, 12:22, 14:24] = 1
    return truth


@pytest.fixture
def spline(cube):
    """The cube after a shift by a third of a voxel along each axis and back, by cubic splines: it rings."""
    there = ndimage.shift(cube, [1 / 3] * 3, order=3)
    return ndimage.shift(there, [-1 / 3] * 3, order=3).astype(np.float32)


def mask_and_notes(values, **how):
    notes = []
    return mask_from(np.asarray(values, np.float32), Path("m.nii"), notes, **how), notes


def ml(mask):
    return mask.sum() * 8 / 1000


@pytest.mark.parametrize("top", [1, 100, 255])
def test_a_mask_with_ringing_keeps_its_volume(cube, spline, top):
    assert ml(spline > 0) > 50  # what "above 0" would make of it
    mask, notes = mask_and_notes(spline * top)
    np.testing.assert_array_equal(mask, cube > 0)
    assert ml(mask) == 8
    assert len(notes) == 1
    assert f"hold fractions; cut at {top / 2:g}, values below 0 (down to -" in notes[0]


@pytest.mark.parametrize("top", [100, 255])
def test_ringing_that_was_rounded_to_whole_numbers_keeps_its_volume(cube, spline, top):
    mask, notes = mask_and_notes(np.rint(spline * top))
    assert ml(mask) == 8
    assert f"steps up to {top}; cut at {top / 2:g}" in notes[0]


@pytest.mark.parametrize("value", [1, 4, 255, 1.0003, 0.99999, 0.5, 1 / 255, 1e5])
def test_one_value_beside_0_is_a_mask(cube, value):
    mask, notes = mask_and_notes(cube * np.float32(value))
    np.testing.assert_array_equal(mask, cube > 0)
    assert notes == []


def test_a_probability_is_cut_at_one_half_with_the_share_of_fractions(cube):
    probability = cube.copy()
    probability[9], probability[10, 12:22, 14:24] = 0.4, 0.6  # 1920 voxels of 0.4, 100 of 0.6, 900 of 1
    mask, notes = mask_and_notes(probability)
    assert ml(mask) == 8
    assert notes == ["m.nii: 69 % of its voxels other than 0 hold fractions; cut at 0.5"]


def test_labels_that_are_nearly_whole_are_labels():
    values = np.zeros((8, 8, 8))
    values[1], values[3], values[5] = 1.00002, 1.99995, 4.0004
    assert look_at_values(values.astype(np.float32), "m").labels == (1, 2, 4)
    assert mask_and_notes(values)[0].sum() == 3 * 64
    assert mask_and_notes(values, labels=(2, 4))[0].sum() == 2 * 64
    with pytest.raises(DataError, match="got 1, 2, 4"):
        mask_and_notes(values, labels=None)


def test_a_single_label_that_is_not_the_named_one_is_none(cube):
    assert mask_and_notes(4 * cube, labels=(4,))[0].sum() == TRUE_VOXELS
    assert mask_and_notes(4 * cube, labels=(1,))[0].sum() == 0
    assert mask_and_notes(4 * cube, labels=None)[0].sum() == TRUE_VOXELS


def test_values_below_0_are_background_and_said(cube):
    mask, notes = mask_and_notes(np.where(cube > 0, 2, -1))
    assert mask.sum() == TRUE_VOXELS
    assert "values below 0 (down to -1)" in notes[0]


def test_nothing_is_a_mask_too():
    mask, notes = mask_and_notes(np.zeros((8, 8, 8)))
    assert not mask.any()
    assert notes == []


@pytest.mark.parametrize("kind", ["scan", "whole scan", "standardised", "interpolated labels"])
def test_what_is_no_mask_is_refused(rng, cube, kind):
    scan = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1) * 400 + 500
    values = {
        "scan": scan,
        "whole scan": np.rint(np.clip(scan, 0, None)),
        "standardised": (scan - scan.mean()) / scan.std(),
        "interpolated labels": ndimage.uniform_filter(cube + 3 * np.roll(cube, 10, 0), 3),
    }[kind]
    with pytest.raises(DataError, match="a mask must hold integers, or fractions from 0 to 1, got values from"):
        mask_and_notes(values)


def test_many_regions_are_labels(rng):
    regions = np.kron(np.arange(1, 61).reshape(5, 4, 3), np.ones((4, 4, 4)))
    found = look_at_values(regions.astype(np.float32), "m")
    assert (found.kind, len(found.labels)) == ("labels", 60)
    assert not found.is_graded


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(cube, bad):
    cube[0, 0, 0] = bad
    with pytest.raises(DataError, match="finite, got 1 NaN"):
        mask_and_notes(cube)


@pytest.mark.parametrize(("high", "graded"), [(0.004, True), (0.4, True), (1.0, True), (40.0, True)])
def test_a_map_of_any_height_is_graded(rng, high, graded):
    assert look_at_values((rng.random(SHAPE) * high).astype(np.float32), "m").is_graded is graded


def test_a_mask_file_is_read_by_the_rule_and_turned(tmp_path, cube, spline):
    like = Volume(np.ones(SHAPE, np.float32), AFFINE, name="scan.nii")
    image = nibabel.Nifti1Image(spline, AFFINE)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), nibabel.orientations.axcodes2ornt("PSL"))
    turned = image.as_reoriented(turn)
    assert turned.shape != SHAPE
    nibabel.save(turned, tmp_path / "m.nii.gz")
    notes = []
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz", like, notes), cube > 0)
    assert notes[0] == "m.nii.gz: reoriented to match scan.nii"
    assert "cut at 0.5" in notes[1]
    np.testing.assert_array_equal(read_mask(turned, like), cube > 0)


def test_what_nobody_takes_is_logged(tmp_path, spline, caplog):
    like = Volume(np.ones(SHAPE, np.float32), AFFINE, name="scan.nii")
    nibabel.save(nibabel.Nifti1Image(spline, AFFINE), tmp_path / "m.nii.gz")
    read_mask(tmp_path / "m.nii.gz", like)
    assert "m.nii.gz" in caplog.text
    assert "cut at 0.5" in caplog.text
