"""Rigid, then affine registration by ANTs (Avants et al. 2011), for whoever has it: slower, with another optimiser.

Affine only: a deformation would take away what is abnormal along with what is different.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.leftovers import scratch_folder
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.itk import LPS, one_itk_thread
from halebrain.preprocessing.registration import Registration, assess, isotropic_brain
from halebrain.preprocessing.template import Template

_SEED = 20240703
_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


def load_ants() -> Any:
    """Return the module of antspyx.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import ants
    except ImportError as error:
        raise UnavailableError(
            "registration by ANTs needs the package antspyx",
            remedy="pip install 'halebrain[ants]', or take registration: affine",
        ) from error
    return ants


def register_by_ants(volume: Volume, brain_mask: MaskArray, *, template: Template) -> Registration:
    """Register the brain in `volume` to the atlas.

    Args:
        volume: Native scan, any contrast.
        brain_mask: Bool, on its grid.
        template: The atlas.

    Raises:
        UnavailableError: antspyx is not installed.
        DataError: ANTs gave up.
    """
    import SimpleITK as sitk  # noqa: N813

    ants = load_ants()
    # Off, the switch only hands on the seed; on, it would refuse mutual information.
    ants.config.set_ants_deterministic(on=False, seed_value=_SEED)
    moving, moving_mask = isotropic_brain(volume, brain_mask)
    inside = np.where(template.mask, template.image.data + 0.1, 0).astype(np.float32)
    with _one_thread(), scratch_folder() as folder:
        fixed_image = _to_ants(ants, inside, template.image.affine)
        moving_image = _to_ants(ants, moving.data, moving.affine)
        transform: list[str] = []
        for stage in ("Rigid", "Affine"):
            try:
                found = ants.registration(
                    fixed_image,
                    moving_image,
                    type_of_transform=stage,
                    initial_transform=transform or None,
                    outprefix=str(folder / stage),
                )
            except (RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[-160:]
                raise DataError(
                    "a scan must register to the template",
                    received=reason,
                    where=volume.name,
                    remedy="check its orientation and brain mask, or take registration=affine",
                ) from error
            transform = list(found["fwdtransforms"])
        affine = sitk.AffineTransform(sitk.ReadTransform(transform[0]))
    with one_itk_thread():
        return assess(affine, moving, moving_mask, template)


def _to_ants(ants: Any, data: FloatArray, affine: Affine) -> Any:
    """Return an axis-aligned RAS array as an image of ANTs, whose world is LPS."""
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
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
