"""Rigid, then affine registration of a brain to the template (SimpleITK, Mattes mutual information).

Staged because a single affine stage lands millimetres off. Works on world points in RAS; ITK's LPS stays inside.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing.geometry import Grid, resample
from halebrain.preprocessing.itk import LPS, matrix_ras, one_itk_thread, to_itk
from halebrain.preprocessing.template import Template, find_template

_SEED = 20240703
_FAILED_DICE = 0.80
"""Below this overlap with the template's brain the registration is not to be trusted."""
_RETRY_DICE = 0.88
_START_PITCHES = (0.0, -0.35, 0.35)
"""Rotations about the left–right axis, in radians, that are tried in turn: heads are nodded more than turned."""


@dataclass(frozen=True)
class Registration:
    """How the template lies in a scan.

    Args:
        template_to_native: World-to-world matrix `(4, 4)`, mm, RAS: a point of the template to its place in the scan.
        mask_dice: Overlap of the registered brain mask with the template's.
        mutual_information: Mattes mutual information reached (higher = better).
        scale: Volume of the scan's brain over the template's, by the matrix.
        failed: Whether the result is not to be trusted.
    """

    template_to_native: Affine
    mask_dice: float
    mutual_information: float
    scale: float
    failed: bool


def register_to_template(
    volume: Volume, brain_mask: MaskArray, *, near: Affine | None = None, template: Template | None = None
) -> Registration:
    """Register the brain in `volume` to the template, trying other starts where the first ends badly.

    Args:
        volume: Native scan, any contrast.
        brain_mask: Bool, on its grid.
        near: Template-to-native matrix known to be close: only refined, unless that ends badly.
        template: The atlas; `None` = the MNI template.
    """
    atlas = find_template() if template is None else template
    moving, moving_mask = isotropic_brain(volume, brain_mask)
    best: Registration | None = None
    starts: list[Affine | float] = list(_START_PITCHES) if near is None else [near, *_START_PITCHES]
    for start in starts:
        with one_itk_thread():
            found = _attempt(moving, moving_mask, start, atlas)
        if best is None or found.mask_dice > best.mask_dice:
            best = found
        if best.mask_dice >= _RETRY_DICE:
            break
    assert best is not None  # the loop ran at least once
    return best


def isotropic_brain(volume: Volume, brain_mask: MaskArray) -> tuple[Volume, MaskArray]:
    """Return brain and mask on a 2 mm RAS grid around the brain: registration needs no more, and half the time."""
    index = np.argwhere(brain_mask)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    low, high = index.min(axis=0), index.max(axis=0)
    box = (low + corners * (high - low)) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    start, stop = box.min(axis=0) - 8, box.max(axis=0) + 8
    shape = tuple(int(n) for n in np.ceil((stop - start) / 2.0) + 1)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = start
    grid = Grid((shape[0], shape[1], shape[2]), affine)
    source = Grid(volume.shape, volume.affine)
    data = resample(np.where(brain_mask, volume.data, 0), source, grid)
    mask = resample(brain_mask.astype(np.float32), source, grid) > 0.5
    low_value, high_value = np.percentile(data[mask], [0.5, 99.5])
    scaled = np.where(mask, np.clip((data - low_value) / max(high_value - low_value, 1e-9), 0, 1) + 0.1, 0)
    return Volume(scaled.astype(np.float32), affine), mask


def _attempt(moving: Volume, moving_mask: MaskArray, start: Affine | float, template: Template) -> Registration:
    """Register from a matrix, or from centroid upon centroid with a pitch in radians."""
    import SimpleITK as sitk  # noqa: N813

    fixed_image = template_image(template)
    moving_image = to_itk(moving.data, moving.affine)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(_centroid_lps(template.mask, template.image.affine))
    if isinstance(start, float):
        rigid = sitk.Euler3DTransform()
        rigid.SetCenter(affine.GetCenter())
        offset = np.array(_centroid_lps(moving_mask, moving.affine)) - np.array(rigid.GetCenter())
        rigid.SetTranslation(offset.tolist())
        rigid.SetRotation(start, 0.0, 0.0)
        rigid = _optimise(fixed_image, moving_image, rigid, shrink=(4, 2), step=1.0, iterations=60)
        affine.SetMatrix(rigid.GetMatrix())
        affine.SetTranslation(rigid.GetTranslation())
    else:
        lps, centre = LPS @ start @ LPS, np.array(affine.GetCenter())
        affine.SetMatrix(lps[:3, :3].flatten().tolist())
        affine.SetTranslation((lps[:3, 3] + lps[:3, :3] @ centre - centre).tolist())
    affine = _optimise(fixed_image, moving_image, affine, shrink=(2, 1), step=0.5, iterations=60)
    return assess(affine, moving, moving_mask, template)


def _optimise(fixed: Any, moving: Any, transform: Any, *, shrink: tuple[int, int], step: float, iterations: int) -> Any:
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.25, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, iterations, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel([float(s) for s in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform


def template_image(template: Template) -> Any:
    """Return the atlas as an ITK image; its brain stands out from the background."""
    return to_itk(np.where(template.mask, template.image.data + 0.1, 0), template.image.affine)


def assess(affine: Any, moving: Volume, moving_mask: MaskArray, template: Template) -> Registration:
    """Return how well an ITK affine (atlas to scan) brings a brain on an axis-aligned RAS grid to the atlas."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.25, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(affine)
    information = -float(method.MetricEvaluate(template_image(template), to_itk(moving.data, moving.affine)))
    matrix = matrix_ras(affine)
    grid = Grid(template.image.shape, template.image.affine)
    warped = resample(
        moving_mask.astype(np.float32),
        Grid(moving.shape, moving.affine),
        grid,
        target_to_source=matrix,
    )
    brain = warped > 0.5
    dice = 2 * float((brain & template.mask).sum()) / max(float(brain.sum() + template.mask.sum()), 1.0)
    scale = float(np.linalg.det(matrix[:3, :3]))
    return Registration(matrix, dice, information, scale, dice < _FAILED_DICE or not 0.35 < scale < 2.0)


def _centroid_lps(mask: MaskArray, affine: Affine) -> list[float]:
    centre = np.argwhere(mask).mean(axis=0)
    world = LPS @ affine @ np.append(centre, 1.0)
    return [float(v) for v in world[:3]]
