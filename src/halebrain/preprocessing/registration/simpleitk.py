"""Affine registration by SimpleITK (Lowekamp et al. 2013), Mattes mutual information. ITK's LPS stays inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from halebrain.core.types import Affine, Volume
from halebrain.preprocessing.itk import LPS, matrix_ras, one_itk_thread, to_itk
from halebrain.preprocessing.registration.base import REGISTRATION_ENGINES, Brain, template_brain
from halebrain.preprocessing.template import Template

_SEED = 20240703
_ITERATIONS = 100
_Stage = tuple[list[int], list[float], float]
_COARSE: _Stage = ([4, 2], [2.0, 0.0], 1.0)
_FINE: _Stage = ([1], [0.0], 0.5)
"""Shrink factors and smoothing in mm of the levels, and the first step. A blur at the last level lands 0.3 mm off;
larger steps sometimes diverge."""
_SAMPLES, _FEW_SAMPLES = 0.25, 0.08
"""Shares of the atlas's voxels that are compared."""


@REGISTRATION_ENGINES.register("simpleitk")
def register_by_simpleitk(brain: Brain, start: Affine, template: Template) -> Affine:
    """Return the template-to-native matrix near `start`."""
    return _register(brain, start, template, (_COARSE, _FINE), samples=_SAMPLES)


def approach(brain: Brain, start: Affine, template: Template, *, coarse: bool) -> Affine:
    """Return a template-to-native matrix near `start` from fewer voxels, in a third of the time.

    For a brain mask that is not final; `coarse`: by the first levels alone instead of the last one alone.
    """
    return _register(brain, start, template, (_COARSE,) if coarse else (_FINE,), samples=_FEW_SAMPLES)


def _register(brain: Brain, start: Affine, template: Template, stages: Sequence[_Stage], *, samples: float) -> Affine:
    import SimpleITK as sitk  # noqa: N813

    atlas = template_brain(template)
    fixed, moving = _image(atlas), _image(brain.image)
    affine = sitk.AffineTransform(3)
    centre = LPS @ template.image.affine @ np.append(np.argwhere(template.mask).mean(axis=0), 1.0)
    affine.SetCenter(centre[:3].tolist())
    lps = LPS @ start @ LPS
    affine.SetMatrix(lps[:3, :3].flatten().tolist())
    affine.SetTranslation((lps[:3, 3] + lps[:3, :3] @ centre[:3] - centre[:3]).tolist())
    with one_itk_thread():
        for stage in stages:
            affine = _optimise(fixed, moving, affine, stage, samples)
    return matrix_ras(affine)


def _image(volume: Volume) -> Any:
    return to_itk(volume.data, volume.affine)


def _optimise(fixed: Any, moving: Any, transform: Any, stage: _Stage, samples: float) -> Any:
    import SimpleITK as sitk  # noqa: N813

    shrink, sigmas_mm, step = stage
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(samples, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3, _ITERATIONS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(sigmas_mm)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)
    return transform
