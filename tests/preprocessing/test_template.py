"""An atlas of the user's own: found, checked, and the working grid goes with it."""

import sys

import numpy as np
import pytest
from nilearn import datasets

from halebrain.core.config import parse_config
from halebrain.core.errors import ConfigError, DataError, MissingInputError, UnavailableError
from halebrain.core.types import TEMPLATE_SPACE, Volume
from halebrain.io.nifti import write_volume
from halebrain.preprocessing.geometry import WORKING_CENTRE_MM, apply_affine, working_grid
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.registration import register_to_template
from halebrain.preprocessing.template import find_template, load_template, load_tissue_maps

SHIFT_MM = np.array([30.0, 40.0, -20.0])


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """The template in scanner units, elsewhere in space and with axes flipped, as a user's own atlas; and its mask."""
    folder = tmp_path_factory.mktemp("atlas")
    template, mask = load_template(2)
    affine = template.affine.copy()
    affine[:3, 3] += SHIFT_MM
    flipped = affine @ np.array([[-1, 0, 0, mask.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    stripped = np.where(mask, 200 + 900 * template.data, 0).astype(np.float32)[::-1]
    write_volume(folder / "atlas.nii.gz", stripped, flipped)
    write_volume(folder / "whole.nii.gz", stripped + 50, flipped)
    write_volume(folder / "mask.nii.gz", mask[::-1].astype(np.uint8), flipped, dtype=np.uint8)
    return folder


def brain_of_the_template():
    template, mask = load_template(2)
    return Volume(np.where(mask, template.data * 700, 0).astype(np.float32), template.affine, name="x.nii.gz"), mask


def test_the_template_stays_what_it_was():
    template, mask = load_template(2)
    found = find_template()
    assert found.centre_mm == WORKING_CENTRE_MM
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(found.image.data[mask], template.data[mask])


@pytest.mark.parametrize("spacing_mm", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_the_template_is_what_nilearn_loads_to_the_bit(spacing_mm):
    image, brain = (
        load(resolution=spacing_mm) for load in (datasets.load_mni152_template, datasets.load_mni152_brain_mask)
    )
    volume, mask = load_template(spacing_mm)
    expected = np.asarray(image.get_fdata(), dtype=np.float32)
    np.testing.assert_array_equal(volume.data, expected)
    np.testing.assert_array_equal(volume.affine, image.affine)
    np.testing.assert_array_equal(mask, brain.get_fdata() > 0)
    assert (volume.data.dtype, volume.data.strides) == (np.float32, expected.strides)


@pytest.mark.slow
def test_its_tissues_are_what_nilearn_loads_to_the_bit():
    maps = load_tissue_maps()
    for data, load in ((maps.grey, datasets.load_mni152_gm_template), (maps.white, datasets.load_mni152_wm_template)):
        image = load(resolution=1)
        np.testing.assert_array_equal(data, np.asarray(image.get_fdata(), dtype=np.float32))
        np.testing.assert_array_equal(maps.grid.affine, image.affine)
    np.testing.assert_array_equal(maps.brain, datasets.load_mni152_brain_mask(resolution=1).get_fdata() > 0)


@pytest.mark.parametrize(("name", "mask"), [("atlas", None), ("atlas", "mask"), ("whole", "mask")])
def test_an_atlas_comes_onto_a_plain_grid_around_its_brain(atlas, name, mask):
    found = find_template(atlas / f"{name}.nii.gz", None if mask is None else atlas / f"{mask}.nii.gz")
    np.testing.assert_allclose(found.image.affine[:3, :3], np.diag([2.0, 2.0, 2.0]))
    assert (found.image.data.min(), found.image.data.max()) == (0, 1)
    assert not found.image.data[~found.mask].any()
    _, own = load_template(2)
    assert found.mask.sum() == pytest.approx(own.sum(), rel=0.02)
    corners = np.stack([np.argwhere(own).min(axis=0), np.argwhere(own).max(axis=0)]).astype(float)
    low, high = apply_affine(load_template(2)[0].affine, corners)
    np.testing.assert_allclose(found.centre_mm, (low + high) / 2 + SHIFT_MM, atol=1.0)


@pytest.mark.slow
def test_a_scan_is_brought_to_the_atlas(atlas):
    volume, mask = brain_of_the_template()
    found = register_to_template(volume, mask, template=find_template(atlas / "atlas.nii.gz"))
    assert not found.failed
    points = np.argwhere(mask)[::50].astype(float)
    moved = apply_affine(found.template_to_native, apply_affine(volume.affine, points) + SHIFT_MM)
    assert np.linalg.norm(moved - apply_affine(volume.affine, points), axis=1).max() < 2.0


@pytest.mark.slow
def test_the_working_grid_lies_on_the_atlas(atlas):
    config = PreprocessingConfig(template=atlas / "atlas.nii.gz", bias_correction="none")
    pipeline = Preprocessor(config)
    volume, mask = brain_of_the_template()
    # That the scan lies in the space of another template does not spare it the way to this one.
    result = pipeline.run(volume, brain_mask=mask, space=TEMPLATE_SPACE)
    np.testing.assert_allclose(result.template_to_native[:3, 3], -SHIFT_MM, atol=2.0)
    assert result.qc.registration_mask_dice > 0.95
    middle = np.argwhere(result.brain_mask)
    assert np.abs((middle.min(axis=0) + middle.max(axis=0)) / 2 - (np.array(config.shape) - 1) / 2).max() < 2


def test_what_is_no_atlas_is_refused(atlas, tmp_path):
    with pytest.raises(MissingInputError):
        find_template(tmp_path / "nothing.nii.gz")
    with pytest.raises(DataError, match="200 to 2500 ml"):
        find_template(atlas / "whole.nii.gz")
    write_volume(tmp_path / "flat.nii.gz", np.pad(np.ones((50, 50, 50), np.float32), 9), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(DataError, match="must vary"):
        find_template(tmp_path / "flat.nii.gz")
    with pytest.raises(ConfigError, match="template_mask goes with template"):
        parse_config(PreprocessingConfig, {"template_mask": "mask.nii.gz"})


def test_a_configuration_without_an_atlas_reads_as_before():
    dump = PreprocessingConfig().model_dump(mode="json")
    assert set(dump) == {
        *("shape", "spacing_mm", "brain", "registration", "bias_correction", "denoising_iterations"),
        *("low_percentile", "high_percentile"),
    }
    own = PreprocessingConfig.model_validate({"template": "atlas.nii.gz"})
    assert own.model_dump(mode="json")["template"] == "atlas.nii.gz"
    assert PreprocessingConfig.model_validate(own.model_dump(mode="json")) == own


def test_ants_is_asked_for_before_the_first_scan(monkeypatch):
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(UnavailableError, match=r"halebrain\[ants\]"):
        Preprocessor(PreprocessingConfig(registration="ants"))


@pytest.mark.slow
def test_ants_finds_a_known_movement():
    pytest.importorskip("ants")
    volume, mask = brain_of_the_template()
    shift = np.eye(4)
    shift[:3, 3] = SHIFT_MM
    moved = Volume(volume.data, shift @ volume.affine, name="moved")
    found = register_to_template(moved, mask, engine="ants")
    again = register_to_template(moved, mask, engine="ants")
    assert not found.failed
    points = apply_affine(volume.affine, np.argwhere(mask)[::50].astype(float))
    error = np.linalg.norm(apply_affine(found.template_to_native, points) - points - SHIFT_MM, axis=1)
    assert error.max() < 2.0
    np.testing.assert_array_equal(found.template_to_native, again.template_to_native)


def test_no_extraction_takes_the_whole_field_and_says_so():
    volume, _ = brain_of_the_template()
    config = PreprocessingConfig(brain="none", bias_correction="none", registration="none")
    result = Preprocessor(config).run(volume)
    assert result.native_brain_mask.all()
    assert any("whole field" in flag for flag in result.qc.flags)
    assert result.qc.brain_method == "none"


def test_the_slices_of_the_paper_are_those_between_fifteen_cut_at_each_end_of_the_brain_of_the_atlas(atlas):
    centre = find_template(atlas / "atlas.nii.gz").centre_mm
    whole, cut = (working_grid((96, 96, count), 2.0, centre) for count in (80, 50))
    moved = np.eye(4)
    moved[2, 3] = 15  # slice 0 of the 50 is slice 15 of the 80, and slice 49 is slice 64
    np.testing.assert_allclose(cut.affine, whole.affine @ moved)
