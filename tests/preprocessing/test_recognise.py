import numpy as np
import pytest

from halebrain.preprocessing.geometry import working_grid
from halebrain.preprocessing.quality.contrast import (
    TissueLevels,
    contrast_flag,
    is_sure,
    measure_levels,
    recognise_contrast,
    tissue_priors,
)
from halebrain.preprocessing.template import template_on


def levels(white, cortex, deep, fluid, spread=0.02):
    return TissueLevels(white, cortex, deep, fluid, spread)


@pytest.mark.parametrize(
    ("found", "contrast"),
    [
        (levels(0.9, 0.6, 0.7, 0.1), "T1w"),
        (levels(0.7, 0.68, 0.64, 0.0), "T1w"),  # with contrast agent: vessels are the brightest
        (levels(0.2, 0.3, 0.3, 0.95), "T2w"),
        (levels(0.65, 0.8, 0.75, 0.1), "FLAIR"),
        (levels(0.3, 0.6, 0.5, 0.8), "unknown"),  # proton density
        (levels(0.05, 0.24, 0.52, 1.0), "T2w"),  # ventricles so wide that they lie where the nuclei do in others
        (levels(0.3, 0.9, 0.9, 0.1), "unknown"),  # FDG-PET
        (levels(0.5, 0.52, 0.4, 0.6), "unknown"),  # susceptibility
        (levels(0.7, 0.2, 0.25, 0.1), "unknown"),  # fractional anisotropy
        (levels(0.9, 0.6, 0.7, 0.1, spread=0.4), "unknown"),  # nothing stands out of the noise
        (levels(0.5, 0.5, 0.5, 0.5), "unknown"),
    ],
)
def test_the_order_of_tissues_is_the_contrast(found, contrast):
    assert recognise_contrast(found) == contrast


def test_grey_matter_between_fluid_and_white_matter():
    assert levels(1.0, 0.6, 0.8, 0.0).grey_position == pytest.approx(0.7)
    assert levels(1.0, 0.6, 0.8, 0.0, spread=0.1).separation == pytest.approx(10)
    assert is_sure(levels(1.0, 0.6, 0.8, 0.0))
    assert not is_sure(levels(1.0, 0.95, 0.95, 0.0))
    assert is_sure(levels(0.0, 0.04, 0.04, 1.0))


def test_levels_of_a_painted_brain_are_those_painted_and_lesions_hardly_move_them():
    grid = working_grid()
    _, mask = template_on(grid)
    priors = tissue_priors(grid)
    image = np.full(grid.shape, 0.5, np.float32)
    for place, value in ((priors.white, 0.9), (priors.cortex, 0.6), (priors.deep, 0.7), (priors.ventricle, 0.1)):
        image[place] = value
    found = measure_levels(image, mask, grid)
    assert (found.white, found.cortex, found.deep, found.fluid) == pytest.approx((0.9, 0.6, 0.7, 0.1), abs=1e-6)
    assert found.spread == 0
    image[:40, 30:70, 30:60] = 0.0  # a third of one hemisphere
    lesioned = measure_levels(image, mask, grid)
    assert (lesioned.white, lesioned.cortex, lesioned.deep) == pytest.approx((0.9, 0.6, 0.7), abs=1e-6)


def test_places_of_tissues_do_not_overlap_and_are_symmetric():
    priors = tissue_priors(working_grid())
    places = [priors.white, priors.cortex, priors.deep, priors.ventricle]
    assert sum(place.astype(int) for place in places).max() == 1
    for place in places:
        assert place.sum() > 500
        assert abs(int(place[:48].sum()) - int(place[48:].sum())) < 0.1 * place.sum()


def test_too_little_brain_has_no_levels():
    grid = working_grid()
    mask = template_on(grid)[1].copy()
    mask[:, :, 20:] = False
    assert measure_levels(np.ones(grid.shape, np.float32), mask, grid) is None


@pytest.mark.parametrize(
    ("named", "seen", "words"),
    [
        ("FLAIR", "T1w", "looks like T1w"),
        ("T1ce", "T2w", "looks like T2w"),
        ("T2w", "FLAIR", "looks like FLAIR"),
        ("PDw", "T2w", "its name says PDw"),
        ("swi", None, "its name says swi"),
        ("T1w", "T1w", None),
        ("T1ce", "T1w", None),
        ("T1w", "unknown", None),
        ("T1w", None, None),
        (None, "T1w", None),
        ("random", "T1w", None),
    ],
)
def test_a_name_against_what_is_seen(named, seen, words):
    line = contrast_flag(named, seen)
    assert line is None if words is None else words in line
