import numpy as np
import pytest

from halebrain.core.errors import ConfigError, DataError
from halebrain.core.mask import box_of
from halebrain.core.types import Volume
from halebrain.preprocessing.brain import BRAIN_EXTRACTORS, from_given_mask
from halebrain.preprocessing.brain.given import extract_stripped
from halebrain.preprocessing.template import load_template


@pytest.fixture
def stripped(rng):
    template, mask = load_template(2)
    noisy = template.data + rng.normal(0, 0.02, template.shape)
    return Volume(np.where(mask, noisy.clip(0.01), 0).astype(np.float32), template.affine, name="x.nii.gz"), mask


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("background", [0.0, -5.0])
def test_a_stripped_scan_shows_its_own_brain(stripped, background):
    volume, mask = stripped
    data = np.where(mask, volume.data, background).astype(np.float32)
    found = extract_stripped(Volume(data, volume.affine))
    assert dice(found.mask, mask) > 0.98
    assert found.confidence > 0.95
    assert found.volume_ml == pytest.approx(mask.sum() * 8 / 1000, rel=0.05)


@pytest.mark.parametrize("margin", [0, 1, 9])
def test_the_field_of_view_around_a_stripped_brain_does_not_matter(stripped, margin):
    volume, mask = stripped
    hollow = volume.data[box_of(mask)].copy()
    hollow[40:44, 40:44, 40:44] = 0  # filled again
    tight = extract_stripped(Volume(np.pad(hollow, margin), volume.affine))
    wide = extract_stripped(Volume(np.pad(hollow, 20), volume.affine))
    inner = (slice(20 - margin, margin - 20),) * 3
    assert np.array_equal(tight.mask, wide.mask[inner])
    assert tight.mask[margin + 41, margin + 41, margin + 41]


def test_a_whole_head_is_refused(stripped, rng):
    volume, mask = stripped
    # A shell of fat around the brain, and scanner noise in the air.
    index = np.indices(mask.shape).reshape(3, -1).T
    radius = np.linalg.norm((index - np.array(mask.shape) / 2) / (np.array(mask.shape) / 2), axis=1)
    shell = ((radius > 0.85) & (radius < 0.98)).reshape(mask.shape)
    head = volume.data + shell * 1.0 + np.abs(rng.normal(0, 0.01, mask.shape))
    with pytest.raises(DataError, match="skull-stripped"):
        extract_stripped(Volume(head.astype(np.float32), volume.affine, name="head.nii.gz"))


@pytest.mark.parametrize("unit", [1.0, 1e-9])
def test_noise_in_the_air_shows_a_slab_of_a_head_whatever_its_unit(stripped, rng, unit):
    volume, _ = stripped
    noisy = volume.data + np.abs(rng.normal(0, 0.001, volume.shape))
    slab = Volume((unit * noisy).astype(np.float32)[:, :, 20:70], volume.affine)
    with pytest.raises(DataError, match=r"whole head: .* 0% of the background empty"):
        extract_stripped(slab)


def test_a_scrap_of_tissue_is_refused(stripped):
    volume, mask = stripped
    scrap = np.where(mask, volume.data, 0)
    middle = [n // 2 for n in mask.shape]
    scrap[:, :, middle[2] :] = 0
    scrap[: middle[0]] = 0
    scrap[:, : middle[1]] = 0
    with pytest.raises(DataError, match="too little tissue"):
        extract_stripped(Volume(scrap.astype(np.float32), volume.affine))


def test_a_given_mask_is_taken_as_it_is(stripped):
    volume, mask = stripped
    found = from_given_mask(volume, mask)
    np.testing.assert_array_equal(found.mask, mask)
    assert (found.method, found.confidence) == ("given", 1.0)


@pytest.mark.parametrize("wrong", ["shape", "small", "full"])
def test_a_mask_that_cannot_be_a_brain_is_refused(stripped, wrong):
    volume, mask = stripped
    masks = {"shape": mask[1:], "small": np.zeros_like(mask), "full": np.ones_like(mask)}
    with pytest.raises(DataError):
        from_given_mask(volume, masks[wrong])


def test_an_unknown_extractor_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'stripped'"):
        BRAIN_EXTRACTORS.get("striped")


def test_a_scan_standardised_inside_its_brain_shows_all_of_it(stripped):
    volume, mask = stripped
    inside = volume.data[mask]
    data = np.where(mask, (volume.data - inside.mean()) / inside.std(), 0).astype(np.float32)
    assert dice(extract_stripped(Volume(data, volume.affine)).mask, mask) > 0.97


def test_the_volume_of_a_mask_on_oblique_axes_is_that_of_its_voxels(stripped):
    volume, mask = stripped
    sheared = volume.affine.copy()
    sheared[0, 2] = 1.5
    found = from_given_mask(Volume(volume.data, sheared), mask)
    assert found.volume_ml == pytest.approx(mask.sum() * 8 / 1000)
