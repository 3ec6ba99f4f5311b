"""Pathologies: where lesions are and how they look, as parts with a soft extent, plus the push of a tumour.

Each simulator has two functions: one draws parameters, one turns them into `LesionPart`s on an anatomy. What counts
as lesion is exact: the union of all parts where their extent passes one half.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from halebrain.core.config import Config
from halebrain.core.registry import Registry
from halebrain.preprocessing.geometry import Grid
from halebrain.simulation.anatomy import CSF, DEEP, GM, VENTRICLE, WM, Anatomy
from halebrain.simulation.contrast_params import ContrastParams
from halebrain.simulation.fields import smooth_noise


class PartParams(Config):
    """One part of a lesion.

    Args:
        kind: Shape rule: "blob", "cap" or "territory".
        centre_mm: World coordinates.
        radii_mm: Half axes.
        irregularity: How far noise moves the border, relative to the radius.
        softness_mm: Width of the border.
        water: How much it looks like oedema or gliosis: bright on T2 and FLAIR, dark on T1.
        fluid: How much it looks like CSF (0 to 1).
        texture: Relative unevenness inside.
        avoid_grey: How strictly it keeps to white matter (0 to 1).
        fills_sulci: How much it replaces the CSF of sulci (0 to 1), as a growing mass does.
        seed: Seed of its noise.
        solid: How much it looks like grey matter, as dense tumours do (0 to 1).
        looks: How strongly water changes T1w, T2w and FLAIR, relative to plain oedema; below 0 inverts the change,
            as blood does.
    """

    kind: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    irregularity: float
    softness_mm: float
    water: float
    fluid: float = 0.0
    texture: float = 0.1
    avoid_grey: float = 0.0
    fills_sulci: float = 0.0
    seed: int
    solid: float = 0.0
    looks: tuple[float, float, float] = (1.0, 1.0, 1.0)


class LesionParams(Config):
    """Everything that was drawn for one patient's disease.

    Args:
        pathology: Name of the simulator.
        parts: Parts, later ones on top of earlier ones.
        push_mm: Largest displacement by mass effect.
        push_reach_mm: How far it reaches.
        push_centre_mm: Where it comes from.
        sign: +1, or −1 to invert the contrast change in a randomised modality.
    """

    pathology: str
    parts: tuple[PartParams, ...]
    push_mm: float = 0.0
    push_reach_mm: float = 1.0
    push_centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sign: int = 1


Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionPart:
    """A part of a lesion: its soft extent in [0, 1] inside `box`, outside of which there is nothing of it."""

    extent: torch.Tensor
    box: Box
    params: PartParams


Sampler = Callable[[Anatomy, torch.Generator], LesionParams]
PATHOLOGIES: Registry[Sampler] = Registry("pathology")


def sample_lesions(pathology: str, anatomy: Anatomy, generator: torch.Generator) -> LesionParams:
    """Draw the lesions of one patient; drawn again until at least 0.3 ml of lesion is left inside the brain."""
    sampler = PATHOLOGIES.get(pathology)
    for _ in range(20):
        params = sampler(anatomy, generator)
        if float(lesion_mask(build_lesions(anatomy, params), anatomy.shape).sum()) * anatomy.spacing_mm**3 >= 300:
            return params
    raise RuntimeError(f"the simulator '{pathology}' drew no visible lesion in 20 tries")


def build_lesions(anatomy: Anatomy, params: LesionParams) -> list[LesionPart]:
    """Return the lesion's parts on `anatomy`, without those that fall outside the grid; pure."""
    parts = []
    for part in params.parts:
        box = _box(anatomy, part)
        local = _crop(anatomy, box)
        if local.brain_mask.numel() > 0:
            parts.append(LesionPart(_EXTENTS[part.kind](local, part) * local.brain_mask, box, part))
    return parts


def lesion_mask(parts: list[LesionPart], shape: tuple[int, int, int]) -> torch.Tensor:
    """Return where any part covers at least half a voxel, bool `shape`."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for part in parts:
        mask[part.box] |= part.extent > 0.5
    return mask


def paint(
    image: torch.Tensor, parts: list[LesionPart], contrast: ContrastParams, anatomy: Anatomy, *, sign: int
) -> torch.Tensor:
    """Return the ideal image with the lesion in it; outside the lesion's soft extent nothing changes."""
    painted = image.clone()
    for part in parts:
        here = painted[part.box]
        altered = _alter(here, part.params, contrast, anatomy.spacing_mm, sign)
        painted[part.box] = here + part.extent * (altered.clamp_min(0) - here)
    return painted


def _alter(here: torch.Tensor, p: PartParams, contrast: ContrastParams, spacing_mm: float, sign: int) -> torch.Tensor:
    """Return what tissue looks like where it is wholly lesion: wetter, emptier, or both."""
    shape = (here.shape[0], here.shape[1], here.shape[2])
    wm, gm, _, csf, _ = contrast.means
    grain = p.texture * smooth_noise(shape, wavelength_mm=7, spacing_mm=spacing_mm, seed=p.seed + 5)
    if contrast.modality == "T1w":
        altered = here * (1 - 0.45 * p.water * p.looks[0] * (1 + grain))
    elif contrast.modality == "random":
        altered = here + sign * p.water * 0.5 * (abs(gm - wm) + 0.15) * (1 + grain)
    else:  # T2w and FLAIR: free water brightens
        strength = 0.50 * p.looks[2] if contrast.modality == "FLAIR" else 0.42 * p.looks[1]
        altered = here + p.water * strength * (1 + grain)
    if p.solid > 0:
        altered = (1 - p.solid) * altered + p.solid * gm * (1 + grain)
    return (1 - p.fluid) * altered + p.fluid * csf * (1 + grain)


def push_field(params: LesionParams, anatomy: Anatomy) -> torch.Tensor | None:
    """Return the displacement `(3, i, j, k)` in mm at which a pushed brain is read, or `None` without mass effect."""
    if params.push_mm == 0:
        return None
    offset = anatomy.positions_mm() - torch.tensor(params.push_centre_mm)[:, None, None, None]
    distance = offset.norm(dim=0).clamp_min(1e-3)
    # Largest at the tumour's edge, fading with distance and at the skull, which does not move.
    strength = (distance / params.push_reach_mm) * torch.exp(0.5 - 0.5 * (distance / params.push_reach_mm) ** 2)
    free = (anatomy.surface_distance_mm / 12).clamp(0, 1)
    moved: torch.Tensor = -params.push_mm * strength * free * offset / distance
    return moved


def _blob(anatomy: Anatomy, p: PartParams) -> torch.Tensor:
    """Return an irregular ellipsoid with its half axes along x, y and z."""
    offset = anatomy.positions_mm() - torch.tensor(p.centre_mm)[:, None, None, None]
    radii = torch.tensor(p.radii_mm)[:, None, None, None]
    radius = float(torch.tensor(p.radii_mm).mean())
    reach = (offset / radii).norm(dim=0)
    extent = torch.sigmoid(((1 - reach) * radius + _border(anatomy, p, radius)) / p.softness_mm)
    return extent * _allowed(anatomy, p)


def _cap(anatomy: Anatomy, p: PartParams) -> torch.Tensor:
    """Return a band along the ventricle walls, `radii_mm[0]` wide, strongest around its centre."""
    offset = anatomy.positions_mm() - torch.tensor(p.centre_mm)[:, None, None, None]
    here = torch.exp(-0.5 * (offset.norm(dim=0) / p.radii_mm[1]) ** 2)
    width = p.radii_mm[0] * here + _border(anatomy, p, p.radii_mm[0])
    extent = torch.sigmoid((width - anatomy.ventricle_distance_mm) / p.softness_mm)
    return extent * _allowed(anatomy, p) * (here > 0.15)


def _territory(anatomy: Anatomy, p: PartParams) -> torch.Tensor:
    """Return a wedge: an irregular ellipsoid of one hemisphere that widens towards the surface, CSF spared."""
    position = anatomy.positions_mm()
    offset = position - torch.tensor(p.centre_mm)[:, None, None, None]
    radii = torch.tensor(p.radii_mm)[:, None, None, None]
    radius = float(torch.tensor(p.radii_mm).mean())
    wedge = (1 - anatomy.surface_distance_mm / 45).clamp(0.2, 1)
    reach = (offset / radii).norm(dim=0) / wedge.sqrt()
    side = 1.0 if p.centre_mm[0] > 0 else -1.0
    same_side = torch.sigmoid(side * position[0] / 1.5)
    extent = torch.sigmoid(((1 - reach) * radius + _border(anatomy, p, radius)) / p.softness_mm) * same_side
    fluid = anatomy.tissues[CSF] + anatomy.tissues[VENTRICLE]
    return extent * (1 - fluid * (1 - p.fluid))


_EXTENTS: dict[str, Callable[[Anatomy, PartParams], torch.Tensor]] = {
    "blob": _blob,
    "cap": _cap,
    "territory": _territory,
}


def _border(anatomy: Anatomy, p: PartParams, radius: float) -> torch.Tensor:
    coarse, fine = anatomy.noise(max(6.0, 1.2 * radius), p.seed), anatomy.noise(max(4.0, 0.5 * radius), p.seed + 1)
    return p.irregularity * radius * (0.7 * coarse + 0.4 * fine)


def _allowed(anatomy: Anatomy, p: PartParams) -> torch.Tensor:
    """Return how much of each voxel a part may take."""
    tissues = anatomy.tissues
    grey = (1 - p.avoid_grey) * (tissues[GM] + tissues[DEEP])
    return (tissues[WM] + grey + p.fills_sulci * tissues[CSF]).clamp(0, 1)


def _box(anatomy: Anatomy, p: PartParams) -> Box:
    """Return the voxels that a part can reach: its largest radius, its irregular border and its softness."""
    largest = max(p.radii_mm)
    reach = largest * (1 + 2.5 * p.irregularity) + 5 * p.softness_mm
    if p.kind == "cap":
        reach = 2 * p.radii_mm[1]
    affine, slices = anatomy.grid.affine, []
    for axis, size in enumerate(anatomy.brain_mask.shape):
        centre = (p.centre_mm[axis] - affine[axis, 3]) / affine[axis, axis]
        radius = reach / affine[axis, axis]
        slices.append(slice(max(0, int(centre - radius)), min(size, max(0, int(centre + radius) + 2))))
    return slices[0], slices[1], slices[2]


def _crop(anatomy: Anatomy, box: Box) -> Anatomy:
    """Return the anatomy inside a box, with the affine that keeps its place."""
    affine = anatomy.grid.affine.copy()
    affine[:3, 3] += [affine[axis, axis] * box[axis].start for axis in range(3)]
    mask = anatomy.brain_mask[box]
    return replace(
        anatomy,
        tissues=anatomy.tissues[(slice(None), *box)],
        brain_mask=mask,
        ventricle_distance_mm=anatomy.ventricle_distance_mm[box],
        surface_distance_mm=anatomy.surface_distance_mm[box],
        grid=Grid((mask.shape[0], mask.shape[1], mask.shape[2]), affine),
    )


def pick_point(weight: torch.Tensor, anatomy: Anatomy, generator: torch.Generator) -> tuple[float, float, float]:
    """Return the world coordinates in mm of a voxel drawn with probability proportional to `weight`."""
    cumulative = weight.clamp_min(0).flatten().double().cumsum(0)
    target = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
    index = int(torch.searchsorted(cumulative, target).clamp_max(weight.numel() - 1))
    x, y, z = (float(v) for v in anatomy.positions_mm().flatten(1)[:, index])
    return x, y, z


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw a number between `low` and `high`."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def draw_sign(generator: torch.Generator) -> int:
    """Draw whether water brightens a randomised contrast (+1, more often) or darkens it (−1)."""
    return 1 if uniform(generator, 0, 1) < 0.6 else -1


def new_part(generator: torch.Generator, **values: Any) -> PartParams:
    """Return a part with a freshly drawn seed."""
    return PartParams(seed=int(torch.randint(2**40, (), generator=generator)), **values)
