"""The volume of the ventricles, on brains whose ventricles are known."""

import numpy as np
import pytest
import torch

from halebrain.core.random import make_generator
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.quality.contrast import measure_levels
from halebrain.preprocessing.quality.ventricles import ventricles_ml
from halebrain.simulation.anatomy import TISSUES, build_anatomy, sample_anatomy
from halebrain.simulation.config import grid_shape

LEVELS = {"T1w": (0.9, 0.65, 0.7, 0.1, 0.1), "T2w": (0.35, 0.5, 0.45, 0.95, 0.95), "FLAIR": (0.5, 0.6, 0.6, 0.1, 0.1)}
"""Brightness of the tissues, in the order of `TISSUES`."""


def brain(ventricle_mm):
    """Return tissues, brain mask and grid of a person whose ventricles are so much wider than the template's."""
    params = sample_anatomy(make_generator(4, "person"), age_range=(40, 40))
    anatomy = build_anatomy(
        params.model_copy(update={"ventricle_mm": ventricle_mm}), shape=grid_shape(2.0), spacing_mm=2.0
    )
    return anatomy.tissues, anatomy.brain_mask, anatomy.grid


@pytest.fixture(scope="module", params=[0.0, 4.0, 9.0])
def person(request):
    return brain(request.param)


def painted(tissues, modality):
    rng = np.random.default_rng(0)
    image = torch.einsum("tijk,t->ijk", tissues, torch.tensor(LEVELS[modality])).numpy()
    return (image + rng.normal(0, 0.02, image.shape)).astype(np.float32)


@pytest.mark.parametrize("modality", LEVELS)
def test_the_volume_is_that_of_the_anatomy(person, modality):
    tissues, mask, grid = person
    image, inside = painted(tissues, modality), mask.numpy()
    true_ml = float(tissues[TISSUES.index("ventricle")].sum()) * 8 / 1000
    levels = measure_levels(image, inside, grid)
    found = ventricles_ml(image, inside, grid, levels)
    if true_ml < 100:
        assert found == pytest.approx(true_ml, rel=0.25, abs=5)
    else:  # the widest ventricles come near the surface, where they are not told from sulci
        assert 60 < found < true_ml
    # Any unit, any sign of the scale.
    again = measure_levels(1000 * image, inside, grid)
    assert ventricles_ml(1000 * image, inside, grid, again) == pytest.approx(found, rel=1e-3)


def test_fluid_that_is_not_joined_to_the_ventricles_does_not_count(person):
    tissues, mask, grid = person
    image, inside = painted(tissues, "T1w"), mask.numpy()
    levels = measure_levels(image, inside, grid)
    before = ventricles_ml(image, inside, grid, levels)
    i, j, k = (round(n) for n in (np.linalg.inv(grid.affine) @ [-40, -30, 38, 1])[:3])
    image[i - 2 : i + 3, j - 2 : j + 3, k - 2 : k + 3] = LEVELS["T1w"][3]
    assert inside[i, j, k]
    assert ventricles_ml(image, inside, grid, levels) == pytest.approx(before, abs=0.2)


def test_a_brain_without_fluid_in_it_has_none():
    tissues, mask, grid = brain(0.0)
    image = painted(tissues, "T1w")
    levels = measure_levels(image, mask.numpy(), grid)
    assert ventricles_ml(np.full_like(image, levels.white), mask.numpy(), Grid(grid.shape, grid.affine), levels) == 0
