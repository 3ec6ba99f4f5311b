"""Affine registration by ANTs (Avants et al. 2011), if installed: slower, with another optimiser."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import Affine, Volume
from halebrain.preprocessing.itk import LPS, matrix_ras
from halebrain.preprocessing.registration.base import REGISTRATION_ENGINES, Brain, template_brain
from halebrain.preprocessing.template import Template

_SEED = 20240703
_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def load_ants() -> Any:
    """Return the module of antspyx."""
    try:
        import ants
    except ImportError as error:
        raise UnavailableError(
            "registration by ANTs needs the package antspyx",
            remedy="pip install 'halebrain[ants]', or use registration: affine",
        ) from error
    return ants


@REGISTRATION_ENGINES.register("ants")
def register_by_ants(brain: Brain, start: Affine, template: Template) -> Affine:
    """Return the template-to-native matrix near `start`: rigid, then affine."""
    import SimpleITK as sitk  # noqa: N813

    ants = load_ants()
    # Off, the switch only hands on the seed; on, it would refuse mutual information.
    ants.config.set_ants_deterministic(on=False, seed_value=_SEED)
    lps = LPS @ start @ LPS
    begin = sitk.AffineTransform(lps[:3, :3].flatten().tolist(), lps[:3, 3].tolist())
    with _one_thread(), scratch_folder() as folder:
        fixed_image, moving_image = _to_ants(ants, template_brain(template)), _to_ants(ants, brain.image)
        transform = [str(folder / "start.mat")]
        sitk.WriteTransform(begin, transform[0])
        for stage in ("Rigid", "Affine"):
            try:
                found = ants.registration(
                    fixed_image,
                    moving_image,
                    type_of_transform=stage,
                    initial_transform=transform,
                    outprefix=str(folder / stage),
                )
            except (RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[-160:]
                raise DataError(
                    "a scan must register to the template",
                    received=reason,
                    where=brain.image.name,
                    remedy="check its orientation and brain mask, or use registration: affine",
                ) from error
            transform = list(found["fwdtransforms"])
        return matrix_ras(sitk.AffineTransform(sitk.ReadTransform(transform[0])))


def _to_ants(ants: Any, volume: Volume) -> Any:
    """Return an axis-aligned RAS volume as an image of ANTs, whose world is LPS."""
    lps = LPS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(volume.data, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep ANTs to one thread: its sums over several are not bit-stable. It looks once, at its first image."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_THREADS)
        else:
            os.environ[_THREADS] = before
