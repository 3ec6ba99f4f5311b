"""Interface of the registration engines: a brain on a RAS grid and a start in, one affine matrix out.

Affine only: a deformation would take away what is abnormal along with what is different.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from halebrain.core.mask import box_of, dice, masked
from halebrain.core.registry import Registry
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing.geometry import Grid, resample, resample_all
from halebrain.preprocessing.template import Template

BACKGROUND_STEP = 0.1
"""Added to the brain's intensities, so that the darkest tissue differs from the background."""


@dataclass(frozen=True)
class Registration:
    """How the template lies in a scan.

    Args:
        template_to_native: World-to-world matrix `(4, 4)`, mm, RAS: a point of the template to its place in the scan.
        mask_dice: Overlap of the registered brain mask with the template's.
        nmi: Normalised mutual information of brain and template (1 = independent, 2 = the same).
        margin: What brain and template share inside over the most that they share when one is turned by 20° or 40°
            about an axis. Near 1, another placement would do as well.
        scale: Volume of the scan's brain over the template's, by the matrix.
        engine: Name of the engine that found it.
        failed: Whether the registration failed.
    """

    template_to_native: Affine
    mask_dice: float
    nmi: float
    margin: float
    scale: float
    engine: str
    failed: bool


@dataclass(frozen=True)
class Brain:
    """A brain on an axis-aligned RAS grid of 2 mm, for registration: [0.1, 1.1] within the mask, 0 outside."""

    image: Volume
    mask: MaskArray


RegistrationEngine = Callable[[Brain, Affine, Template], Affine]
"""Moving brain, template-to-native matrix to start from, template → refined template-to-native matrix (mm, RAS)."""

REGISTRATION_ENGINES: Registry[RegistrationEngine] = Registry("registration engine")


def prepare_brain(volume: Volume, brain_mask: MaskArray) -> Brain:
    """Return brain and mask on a 2 mm RAS grid around the brain: registration needs no more, and half the time."""
    inside = box_of(brain_mask)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    low, high = np.array([side.start for side in inside]), np.array([side.stop - 1 for side in inside])
    box = (low + corners * (high - low)) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    start, stop = box.min(axis=0) - 8, box.max(axis=0) + 8
    shape = tuple(int(n) for n in np.ceil((stop - start) / 2.0) + 1)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = start
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    source = Grid(volume.shape, volume.affine)
    data, coverage = resample_all([masked(volume.data, brain_mask), brain_mask], source, grid)
    mask = coverage > 0.5
    low_value, high_value = np.percentile(data[mask], [0.5, 99.5])
    scaled = np.clip((data - low_value) / ((high_value - low_value) or 1.0), 0, 1) + BACKGROUND_STEP
    return Brain(Volume(np.where(mask, scaled, 0).astype(np.float32), affine, name=volume.name), mask)


def template_brain(template: Template) -> Volume:
    """Return the atlas as a moving brain is prepared: its brain stands out from the background."""
    inside = np.where(template.mask, template.image.data + BACKGROUND_STEP, 0).astype(np.float32)
    return Volume(inside, template.image.affine, name=template.image.name)


def mask_dice(brain: Brain, template_to_native: Affine, template: Template) -> float:
    """Return the Dice overlap of the brain mask, brought to the atlas, with the atlas's."""
    grid = Grid(template.image.shape, template.image.affine)
    source = Grid(brain.image.shape, brain.image.affine)
    here = resample(brain.mask.astype(np.float32), source, grid, target_to_source=template_to_native) > 0.5
    return dice(here, template.mask)
