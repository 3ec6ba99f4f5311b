"""Tissues of T1 brains whose truth is known, because we made them."""

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.random import make_generator
from halebrain.simulation.anatomy import CSF, DEEP, GM, VENTRICLE, WM, build_anatomy, sample_anatomy, template_tissues
from halebrain.simulation.tissue_em import segment_t1

SHAPE, SPACING = (64, 64, 52), 3.0
MEANS = {WM: 0.9, GM: 0.5, DEEP: 0.55, CSF: 0.12, VENTRICLE: 0.1}


def make_brain(seed=0, age=None):
    params = sample_anatomy(make_generator(seed))
    if age is not None:
        params = params.model_copy(update={"ventricle_mm": 2.5})
    anatomy = build_anatomy(params, shape=SHAPE, spacing_mm=SPACING)
    tissues, mask = anatomy.tissues.numpy(), anatomy.brain_mask.numpy()
    image = sum(mean * tissues[place] for place, mean in MEANS.items())
    noise = np.random.default_rng(seed).normal(0, 0.02, SHAPE)
    return np.where(mask, image + noise, 0).astype(np.float32), mask, tissues


def segmented(image, mask):
    return segment_t1(image, mask, template_tissues(SHAPE, SPACING), spacing_mm=SPACING)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_tissues_that_made_the_scan_are_found(seed):
    image, mask, truth = make_brain(seed)
    found = segmented(image, mask)
    np.testing.assert_allclose(found.tissues.sum(axis=0)[mask], 1, atol=1e-5)
    assert not found.tissues[:, ~mask].any()
    assert found.means == pytest.approx((0.12, 0.5, 0.9), abs=0.06)
    for one in ([WM], [GM, DEEP], [CSF, VENTRICLE]):
        share, wanted = found.tissues[one].sum(axis=0)[mask], truth[one].sum(axis=0)[mask]
        assert np.corrcoef(share, wanted)[0, 1] > 0.93
        assert share.mean() == pytest.approx(wanted.mean(), abs=0.06)
    ventricle, wanted = found.tissues[VENTRICLE] > 0.5, truth[VENTRICLE] > 0.5
    assert 2 * (ventricle & wanted).sum() / (ventricle.sum() + wanted.sum()) > 0.75


@pytest.mark.slow
def test_wide_ventricles_are_followed_beyond_the_template():
    image, mask, truth = make_brain(3, age=80)
    found = segmented(image, mask)
    assert found.tissues[VENTRICLE].sum() == pytest.approx(truth[VENTRICLE].sum(), rel=0.3)


@pytest.mark.slow
def test_dark_spots_of_the_white_matter_become_white_matter_again():
    image, mask, truth = make_brain(1)
    deep_white = ndimage.binary_erosion(truth[WM] > 0.9, iterations=2)
    far = deep_white & ~ndimage.binary_dilation(truth[VENTRICLE] > 0.1, iterations=4)
    place = tuple(np.argwhere(far)[len(np.argwhere(far)) // 2])
    spot = np.zeros(SHAPE, dtype=bool)
    spot[place] = True
    spot = ndimage.binary_dilation(spot)
    found = segmented(np.where(spot, 0.5, image).astype(np.float32), mask)
    assert (found.tissues[WM][spot] > 0.9).all()


@pytest.mark.slow
def test_another_contrast_is_refused():
    image, mask, _ = make_brain()
    with pytest.raises(DataError, match="white matter brightest"):
        segmented(np.where(mask, 1 - image, 0).astype(np.float32), mask)
