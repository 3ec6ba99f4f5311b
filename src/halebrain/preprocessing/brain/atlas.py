"""Brain extraction without learned weights: the template's surface, aligned by outline and registration, then refined.

Good enough for an adult's T1, T2 or FLAIR; learned extractors (SynthStrip, HD-BET, deepbet) take precedence over it.
"""

from dataclasses import replace

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.mask import dice
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, background_of, volume_ml
from halebrain.preprocessing.brain.head import align_outline, head_mask, isotropic
from halebrain.preprocessing.brain.prior import load_prior
from halebrain.preprocessing.brain.surface import Surface, fit_surface
from halebrain.preprocessing.itk import one_itk_thread
from halebrain.preprocessing.registration import (
    EngineName,
    Registration,
    prepare_brain,
    register_near,
    register_to_template,
)

_TURNS = 4
_ENGINE: EngineName = "simpleitk"
"""Greedy aligns the outline of a rough mask with the template's, so an error of the mask becomes an error of scale."""
_THIN_MM = 2.5
"""Spacing up to which few voxels suffice for the registration. Thicker slices end elsewhere then."""
_SETTLED = 0.985
"""Dice of two successive masks above which further iterations change nothing relevant."""
_PLAUSIBLE_ML = (800.0, 2000.0)
_LEAST_CONFIDENCE = 0.3


@BRAIN_EXTRACTORS.register("atlas")
def extract_by_atlas(volume: Volume) -> BrainMask:
    """Return the brain of an adult's whole head.

    The outline of the head gives the first place of the template in it; there the surface is fitted; the brain so found
    is registered to the template, the surface fitted again from the better place, until the mask stays.
    """
    prior = load_prior()
    # Air counts as 0 below; in a standardised scan it is negative.
    background = background_of(volume.data)
    if background < 0:
        volume = replace(volume, data=volume.data - np.float32(background))
    small = isotropic(volume)
    head = head_mask(small)
    if not head.any():
        raise _failed(volume, "no head found against the background")
    thin = max(volume.spacing_mm) <= _THIN_MM
    with one_itk_thread():
        place = align_outline(small, head, prior, quick=thin)
    surface = fit_surface(small, prior, place, prior_sigma_mm=6.0)
    rough = surface.mask(small, prior, place)
    registration: Registration | None = None
    for _ in range(_TURNS):
        if not rough.any():
            raise _failed(volume, "the head does not contain the template's brain")
        registration = _register(small, rough, place, registration, quick=thin)
        surface = fit_surface(small, prior, registration.template_to_native, prior_sigma_mm=4.0)
        before, rough = rough, surface.mask(small, prior, registration.template_to_native)
        if dice(before, rough) > _SETTLED:
            break
    assert registration is not None  # the loop ran at least once
    mask = surface.mask(volume, prior, registration.template_to_native)
    size = volume_ml(mask, volume)
    confidence = _confidence(registration, surface, size, head_ml=volume_ml(head, small))
    if confidence < _LEAST_CONFIDENCE:
        raise _failed(volume, f"a brain of {size:.0f} ml with confidence {confidence:.2f}")
    return BrainMask(mask, "atlas", confidence, size, template_to_native=registration.template_to_native)


def _register(
    small: Volume, rough: MaskArray, place: Affine, before: Registration | None, *, quick: bool
) -> Registration:
    """Return the registration of a mask from where the one before ended, or else from the place by the outline.

    `quick`: over few voxels, where that ends surely.
    """
    near = place if before is None else before.template_to_native
    brain = prepare_brain(small, rough)
    found = register_near(brain, near, coarse=before is None) if quick else None
    return found or register_to_template(small, rough, near=near, engine=_ENGINE, brain=brain)


def _confidence(registration: Registration, surface: Surface, size_ml: float, *, head_ml: float) -> float:
    """Return the confidence of the mask, in [0, 1]: fit to the template, edge, volume, and a head around it."""
    fits = np.interp(registration.mask_dice, [0.85, 0.95], [0.0, 1.0])
    has_edge = np.interp(float(np.median(surface.contrast)), [0.08, 0.25], [0.0, 1.0])
    low, high = _PLAUSIBLE_ML
    plausible = np.interp(size_ml, [0.8 * low, low, high, 1.2 * high], [0.0, 1.0, 1.0, 0.0])
    around = np.interp(head_ml / max(size_ml, 1.0), [1.2, 1.5], [0.0, 1.0])
    return float(fits * has_edge * plausible * around * (not registration.failed))


def _failed(volume: Volume, found: str) -> DataError:
    return DataError(
        "the brain must be found in the head",
        received=found,
        where=volume.name,
        remedy="strip it first (HD-BET, SynthStrip, deepbet) or give --brain-mask",
    )
