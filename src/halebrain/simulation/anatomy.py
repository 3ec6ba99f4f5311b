"""Anatomy: tissue fractions of one virtual brain, from the template's, warped, with new folds.

Source of the tissue maps: ICBM 2009a Nonlinear Symmetric (Fonov et al. 2009, 2011), as nilearn ships them.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage

from halebrain.core.config import GrowingConfig
from halebrain.core.random import branch
from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid, resample, working_grid
from halebrain.preprocessing.template import load_tissue_maps
from halebrain.simulation.fields import (
    Shape,
    compose,
    coordinates_mm,
    exponentiate,
    sample,
    smooth_noise,
    smooth_vectors,
)

TISSUES = ("wm", "gm", "deep", "csf", "ventricle")
"""White matter, cortex, deep grey nuclei, CSF of sulci and cisterns, CSF of the ventricles."""
WM, GM, DEEP, CSF, VENTRICLE = range(5)
_WIDEST_MM = 9.0
"""How far the walls of the ventricles of a healthy person of 85 years may lie outside those of most people of that
age: 2 mm are about 45 ml of ventricle, 6 mm 95 ml and 10 mm 150 ml."""


class AnatomyParams(GrowingConfig):
    """What was drawn for one brain.

    Args:
        age: Years; widens ventricles and sulci.
        scale: Size along each axis, as is left after registration.
        rotation_degrees: About each axis.
        translation_mm: Along each axis.
        warp_mm: Amplitude of the smooth deformation.
        ventricle_mm: How far the walls of the ventricles move outwards (negative = narrower).
        sulcus: Shift of the balance from cortex to CSF; 0 = as the template.
        folding: Strength of the individual folding.
        sharpness: Power of the tissue maps; higher = crisper borders than the average brain's.
        seed: Seed of the fields.
        base: Name of the anatomy that is deformed; `None` = the template's.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"base"})

    age: float
    scale: tuple[float, float, float]
    rotation_degrees: tuple[float, float, float]
    translation_mm: tuple[float, float, float]
    warp_mm: float
    ventricle_mm: float
    sulcus: float
    folding: float
    sharpness: float
    seed: int
    base: str | None = None


@dataclass(frozen=True)
class Anatomy:
    """One brain on its grid.

    Args:
        tissues: Fractions `(5, i, j, k)` in the order of `TISSUES`, summing to 1 inside the brain and 0 outside.
        brain_mask: Bool `(i, j, k)`.
        ventricle_distance_mm: Distance to the ventricles, 0 inside them.
        surface_distance_mm: Depth below the surface of the brain, 0 outside.
        grid: Where it lies.
    """

    tissues: torch.Tensor
    brain_mask: torch.Tensor
    ventricle_distance_mm: torch.Tensor
    surface_distance_mm: torch.Tensor
    grid: Grid

    @property
    def spacing_mm(self) -> float:
        """Voxel size."""
        return self.grid.spacing_mm[0]

    @property
    def shape(self) -> Shape:
        """Voxels along each axis."""
        return self.grid.shape

    def positions_mm(self) -> torch.Tensor:
        """Return the world coordinates of every voxel, `(3, i, j, k)`."""
        return coordinates_mm(self.shape, torch.from_numpy(self.grid.affine).float())

    def noise(self, wavelength_mm: float, seed: int) -> torch.Tensor:
        """Return a random field on the grid of zero mean and unit variance; see `smooth_noise`."""
        return smooth_noise(self.shape, wavelength_mm=wavelength_mm, spacing_mm=self.spacing_mm, seed=seed)


def sample_anatomy(generator: torch.Generator, *, age_range: tuple[float, float] = (20, 85)) -> AnatomyParams:
    """Draw a brain; ventricles and sulci widen with age, with spread between people.

    From 55 years on the spread has a long tail, as among healthy old people: most have ventricles of 30 to 60 ml, some
    of 150 ml. The tail has its own random stream.
    """
    u, n = torch.rand(8, generator=generator).tolist(), torch.randn(12, generator=generator).tolist()
    age = age_range[0] + (age_range[1] - age_range[0]) * u[0]
    decades = (age - 45) / 10
    tail = float(torch.rand((), generator=branch(generator, "old"))) ** 3 * max(0.0, age - 55) / 30
    return AnatomyParams(
        age=round(age, 1),
        scale=(1 + 0.025 * n[0], 1 + 0.025 * n[1], 1 + 0.025 * n[2]),
        rotation_degrees=(1.5 * n[3], 0.7 * n[4], 0.7 * n[5]),
        translation_mm=(0.8 * n[6], 1.5 * n[7], 1.5 * n[8]),
        warp_mm=0.9 + 1.1 * u[1],
        ventricle_mm=min(11.0, max(-1.0, 0.2 + 0.45 * decades + 0.8 * n[9]) + _WIDEST_MM * tail),
        sulcus=0.28 * decades + 0.35 * n[10] + 0.6 * tail,
        folding=0.8 + 0.5 * u[2],
        sharpness=2.0 + 1.0 * u[3],
        seed=int(torch.randint(2**40, (), generator=generator)),
    )


def build_anatomy(params: AnatomyParams, *, shape: Shape, spacing_mm: float, base: FloatArray | None = None) -> Anatomy:
    """Return the tissues of the brain that `params` describes; pure.

    `base`: tissues of the brain that is deformed, `(5, i, j, k)`; `None` = the template's, with new folds.
    """
    if base is None:
        atlas = _load_atlas(shape, spacing_mm)
    else:
        atlas = _atlas_of(base, base.sum(axis=0), base[VENTRICLE] > 0.5, working_grid(shape, spacing_mm))
    displacement = _displacement(params, atlas, shape, spacing_mm)
    channels = torch.cat([atlas.tissues, atlas.brain[None], atlas.ventricle_distance_mm[None]])
    warped = sample(channels, displacement, spacing_mm)
    brain_mask = warped[5] > 0.5
    distance = ndimage.distance_transform_edt(brain_mask.numpy(), sampling=spacing_mm)
    depth = torch.from_numpy(distance.astype(np.float32))
    if base is None:
        tissues = _fold(warped[:5], depth, params, shape, spacing_mm) * brain_mask
    else:  # real folds need no others
        tissues = warped[:5] / warped[:5].sum(dim=0, keepdim=True).clamp_min(1e-3) * brain_mask
    return Anatomy(tissues, brain_mask, warped[6].clamp_min(0), depth, atlas.grid)


def template_tissues(shape: Shape, spacing_mm: float) -> FloatArray:
    """Return the template's tissue fractions on a working grid, `(5, i, j, k)` in the order of `TISSUES`."""
    return _load_atlas(shape, spacing_mm).tissues.numpy()


def move_anatomy(anatomy: Anatomy, displacement_mm: torch.Tensor) -> Anatomy:
    """Return the brain read at x + displacement(x), inside the same skull (mass effect)."""
    channels = torch.cat([anatomy.tissues, anatomy.ventricle_distance_mm[None]])
    moved = sample(channels, displacement_mm, anatomy.spacing_mm)
    tissues = moved[:5] / moved[:5].sum(dim=0, keepdim=True).clamp_min(1e-3) * anatomy.brain_mask
    return replace(anatomy, tissues=tissues, ventricle_distance_mm=moved[5])


def _displacement(params: AnatomyParams, atlas: "_Atlas", shape: Shape, spacing_mm: float) -> torch.Tensor:
    """Return where each voxel of the subject lies in the template: affine, then the invertible warp."""
    position = coordinates_mm(shape, torch.from_numpy(atlas.grid.affine).float())
    centre = torch.tensor([0.0, -18.0, 6.0])
    angle = torch.deg2rad(torch.tensor(params.rotation_degrees))
    linear = torch.linalg.matrix_exp(
        torch.tensor([[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]])
    ) @ torch.diag(1 / torch.tensor(params.scale))
    flat = position.flatten(1) - centre[:, None]
    affine = (linear @ flat - flat - torch.tensor(params.translation_mm)[:, None]).view_as(position)
    coarse = smooth_vectors(shape, wavelength_mm=45, spacing_mm=spacing_mm, seed=params.seed)
    fine = smooth_vectors(shape, wavelength_mm=18, spacing_mm=spacing_mm, seed=params.seed + 10)
    velocity = params.warp_mm * (coarse + 0.35 * fine)
    # Towards the ventricles: what is read just outside the wall is then ventricle, so they grow.
    near = torch.exp(-((atlas.ventricle_distance_mm.clamp_min(0) / 14) ** 2))
    velocity = velocity - params.ventricle_mm * near * atlas.ventricle_gradient
    return compose(affine, exponentiate(velocity, spacing_mm), spacing_mm)


def _fold(
    tissues: torch.Tensor, depth_mm: torch.Tensor, params: AnatomyParams, shape: Shape, spacing_mm: float
) -> torch.Tensor:
    """Return crisp fractions: the average brain's uncertainty at the cortex is settled by individual folds.

    Sulci are sheets, and so is the zero level of a smooth random field: CSF lies along it, cortex on both sides.
    """
    field = smooth_noise(shape, wavelength_mm=11, spacing_mm=spacing_mm, seed=params.seed + 20)
    field = field + 0.35 * smooth_noise(shape, wavelength_mm=5, spacing_mm=spacing_mm, seed=params.seed + 21)
    width = 0.30 * math.exp(0.4 * params.sulcus)
    sulcus = torch.exp(-((field / width) ** 2))
    ribbon = torch.exp(-((field / (width + 0.42)) ** 2))
    cortical = torch.exp(-((depth_mm / 22) ** 4)) * (1 - tissues[DEEP] - tissues[VENTRICLE])

    logs = params.sharpness * torch.log(tissues.clamp_min(2e-3))
    crisp = torch.softmax(logs, dim=0)
    outer = torch.logsumexp(logs[[GM, CSF]], dim=0)
    not_white = torch.sigmoid(outer - logs[WM] + cortical * params.folding * (6 * ribbon - 2.5))
    prior = logs[CSF] - logs[GM]
    settled = prior.clamp(-2, 2) * cortical + prior * (1 - cortical)
    fluid = torch.sigmoid(settled + cortical * (params.folding * (7 * sulcus - 1.5) + params.sulcus))
    # Only the fractions of white matter, cortex and CSF are redistributed.
    shared = crisp[[WM, GM, CSF]].sum(dim=0)
    folded = crisp.clone()
    folded[WM] = shared * (1 - not_white)
    folded[GM] = shared * not_white * (1 - fluid)
    folded[CSF] = shared * not_white * fluid
    return folded


@dataclass(frozen=True)
class _Atlas:
    grid: Grid
    tissues: torch.Tensor
    brain: torch.Tensor
    ventricle_distance_mm: torch.Tensor
    ventricle_gradient: torch.Tensor


@lru_cache(maxsize=2)
def _load_atlas(shape: Shape, spacing_mm: float) -> _Atlas:
    """Return the template's tissue fractions on the working grid, split by where they lie."""
    grid, maps = working_grid(shape, spacing_mm), load_tissue_maps()
    gm, wm = resample(maps.grey, maps.grid, grid), resample(maps.white, maps.grid, grid)
    brain = resample(maps.brain.astype(np.float32), maps.grid, grid)
    inside = brain > 0.5
    csf = np.clip(1 - gm - wm, 0, 1) * inside
    x, y, z = (axis.numpy() for axis in coordinates_mm(shape, torch.from_numpy(grid.affine).float()))
    # Boxes in template space, mm: the ventricles with the third, and the basal ganglia with the thalami.
    near_ventricles = (np.abs(x) < 40) & (y > -58) & (y < 38) & (z > -14) & (z < 34)
    depth = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    ventricles = _connected((csf > 0.5) & near_ventricles & (depth > 20), (x, y, z))
    soft = np.clip(ndimage.gaussian_filter(ventricles.astype(np.float32), 2.0 / spacing_mm) * 3, 0, 1)
    nuclei = (np.abs(x) < 36) & (y > -36) & (y < 24) & (z > -12) & (z < 20)
    central = ndimage.gaussian_filter(nuclei.astype(np.float32), 4.0 / spacing_mm)
    central = central * np.clip((depth - 22) / 6, 0, 1)
    tissues = np.stack([wm, gm * (1 - central), gm * central, csf * (1 - soft), csf * soft])
    tissues = tissues / np.maximum(tissues.sum(axis=0), 1e-3)
    return _atlas_of(tissues, brain, ventricles, grid)


def _atlas_of(tissues: FloatArray, brain: FloatArray, ventricles: MaskArray, grid: Grid) -> _Atlas:
    """Return what the deformation of a brain needs: tissues, and signed distance and direction of the ventricles."""
    outside, inside = (
        ndimage.distance_transform_edt(mask, sampling=grid.spacing_mm[0]) for mask in (~ventricles, ventricles)
    )
    signed = ndimage.gaussian_filter(outside - inside, 1.0)
    gradient = np.stack(np.gradient(signed, grid.spacing_mm[0]))
    gradient = gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-3)
    arrays = (tissues, brain, signed, gradient)
    return _Atlas(grid, *(torch.from_numpy(np.asarray(array, dtype=np.float32)) for array in arrays))


def _connected(
    candidate: MaskArray,
    position: tuple[FloatArray, ...],
) -> MaskArray:
    """Return the components of `candidate` that reach the bodies of the lateral ventricles."""
    x, y, z = position
    labels, _ = ndimage.label(candidate)
    seed_box = (np.abs(x) < 22) & (np.abs(y) < 22) & (z > 8) & (z < 26)
    kept = np.unique(labels[seed_box & candidate])
    return np.isin(labels, kept[kept > 0])
