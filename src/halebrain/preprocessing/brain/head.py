"""Position of the head, and a first estimate of the position of the brain, from the outline of the head.

The outline (skin against air) is visible in every contrast, so this step does not depend on the contrast.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from halebrain.core.mask import largest_component
from halebrain.core.parallel import map_threads
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.preprocessing.brain.prior import BrainPrior
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.itk import LPS, matrix_ras, to_itk

_Point = npt.NDArray[np.float64]
_SEED = 20240703
_SKIN_MM = 13.0
"""From the surface of the brain to the skin: CSF, skull and scalp of an adult above the ears."""
_LOWEST_MM = -20.0
"""Below this height in template space the outline is face and neck, whose shape is not informative."""
_SCALE = 0.93
"""An adult's brain against the template's, along an axis."""
_PITCHES = (0.0, -0.3, 0.3)
"""Rotations about the left–right axis, in radians, from which is started."""


def isotropic(volume: Volume, spacing_mm: float = 2.0) -> Volume:
    """Return the whole field of view on an axis-aligned RAS grid."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (np.array(volume.shape) - 1)
    box = apply_affine(volume.affine, corners.astype(float))
    low, high = box.min(axis=0), box.max(axis=0)
    i, j, k = (int(n) for n in np.ceil((high - low) / spacing_mm) + 1)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = low
    data = resample(volume.data, Grid(volume.shape, volume.affine), Grid((i, j, k), affine))
    return Volume(data, affine, name=volume.name)


def head_mask(volume: Volume) -> MaskArray:
    """Return the head of a scan on a 2 mm grid: the largest component above noise, filled; may be empty."""
    data = volume.data
    positive = data[data > 0]
    if positive.size == 0:
        return np.zeros(volume.shape, dtype=bool)
    bright = float(np.percentile(positive, 98))
    border = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])
    border = border[border > 0]
    noise = float(np.percentile(border, 90)) if border.size > 50 else 0.0
    opened = ndimage.binary_opening(data > min(max(0.1 * bright, 1.5 * noise), 0.3 * bright))
    largest = largest_component(opened)
    # Air in sinuses and ears is open to the outside in one slice and closed in the next.
    closed = ndimage.binary_closing(np.pad(largest, 6), iterations=5)[6:-6, 6:-6, 6:-6]
    filled = np.stack([ndimage.binary_fill_holes(closed[:, :, k]) for k in range(closed.shape[2])], axis=2)
    return np.asarray(filled, dtype=bool)


def align_outline(head: Volume, mask: MaskArray, prior: BrainPrior, *, quick: bool = False) -> Affine:
    """Return template-to-native (world, mm, RAS) of the best similarity between the template's outline and the head.

    `quick`: in a fifth of the time, from one voxel of the outline in eight; up to 1.5 mm elsewhere.
    """
    import SimpleITK as sitk  # noqa: N813

    every = 2 if quick else 1
    distance, affine = prior.distance_mm[::every, ::every, ::every], prior.affine @ np.diag([every] * 3 + [1])
    height = affine[2, 3] + affine[2, 2] * np.arange(distance.shape[2])
    region = ((distance < 30) & (height > _LOWEST_MM)[None, None, :]).astype(np.float32)
    outline = np.clip(0.5 - (distance - _SKIN_MM) / 8, 0, 1).astype(np.float32)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.5)
    centre, target = _centres(prior, head, mask)

    def align(pitch: float) -> tuple[float, Any]:
        # Separate images: no other thread may touch what a filter of ITK reads.
        fixed, moving = to_itk(outline, affine), to_itk(soft, head.affine)
        fixed_region = sitk.Cast(to_itk(region, affine), sitk.sitkUInt8)
        start = sitk.Similarity3DTransform()
        start.SetCenter((LPS[:3, :3] @ centre).tolist())
        start.SetTranslation((LPS[:3, :3] @ (target - centre)).tolist())
        start.SetRotation([1.0, 0.0, 0.0], pitch)
        start.SetScale(_SCALE)
        method = _method(fixed_region, start, quick=quick)
        method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-2, 60, relaxationFactor=0.6)
        method.SetOptimizerScalesFromPhysicalShift()
        method.Execute(fixed, moving)
        return float(_method(fixed_region, start, quick=quick).MetricEvaluate(fixed, moving)), start

    found = map_threads(align, _PITCHES, threads=torch.get_num_threads())
    return matrix_ras(min(found, key=lambda one: one[0])[1])


def _method(region: Any, transform: Any, *, quick: bool) -> Any:
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.4 if quick else 0.05, _SEED)  # as many voxels
    # The gradient at these voxels alone, and not of the whole image by a filter, which takes most of the time.
    method.SetMetricUseMovingImageGradientFilter(not quick)
    method.SetMetricUseFixedImageGradientFilter(not quick)
    method.SetMetricFixedMask(region)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, inPlace=True)
    return method


def _centres(prior: BrainPrior, head: Volume, mask: MaskArray) -> tuple[_Point, _Point]:
    """Return the middle of the template's brain, and where it is expected in the head: so far below the vertex."""
    brain = apply_affine(prior.affine, np.argwhere(prior.distance_mm < 0).astype(float))
    points = apply_affine(head.affine, np.argwhere(mask).astype(float))
    vertex = float(np.percentile(points[:, 2], 99.9))
    target = np.median(points[points[:, 2] > vertex - 150], axis=0)
    centre = brain.mean(axis=0)
    target[2] = vertex - _SKIN_MM - _SCALE * (float(brain[:, 2].max()) - centre[2])
    return centre, target
