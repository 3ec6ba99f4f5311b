"""Moving the template's brain surface onto the edge that the scan shows: bright inside, dark outside.

Along the normal of every point of the surface, the intensities of the scan are read, and the offset is sought at which
tissue ends: in T1 and FLAIR at the dark rim of CSF and skull, in T2 at the skull below the bright CSF. Neighbours
pull on each other, and what lies beyond a dark gap (the scalp) is not reached. In the spirit of BET (Smith 2002), with
the template's surface for its sphere.

The surface is the hull of the gyri, in every contrast. In T1 the edge is a ramp, not a step: grey gyri alternate with
dark sulci, so the sharpest drop lies some mm below the tops of the gyri. There the surface is moved outward, to where
the brighter ones of the neighbouring profiles end.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.brain.prior import SHELL_MM, BrainPrior
from halebrain.preprocessing.geometry import Grid, resample

_STEPS_MM = np.arange(-16.0, 14.5, 1.0)
"""Offsets from the template's surface that are tried."""
_REACH = 6
"""Steps beyond them that are read, to see what lies inside and outside of the last ones."""
_PLATEAU = 0.8
"""Share of the brain's median from which all is alike: white against grey matter is no edge, bright CSF is inside."""
_STIFFNESS = 0.3
_SCALE_MM = 3.0
_EDGE_SHIFT_MM = 0.6
"""The sharpest drop lies between two steps."""
_ENOUGH = 0.5
"""Drop of intensity from which an edge is as good as any: the scalp's edge to air is the sharpest of all."""
_OUTWARD = 2.0
"""What an offset outward costs against one inward: out there is scalp to be caught by."""
_BRIGHT, _RIM_MM = 1.35, 7
"""What is below the surface is left out where it is brighter than this share of the brain's median, down to this depth:
CSF in T2, fat in T1. Lesions are that bright in FLAIR: only a thin layer goes there."""
_FLUID, _TISSUE, _DEEP_MM = 0.6, 0.7, -25.0
"""Shares of the brain's median: fluid is darker in the T1 template, tissue is brighter; so deep there are no sulci."""
_LIKE_T1 = 0.1
"""Correlation of tissue with that of the T1 template from which white matter is the brighter one."""
_HULL_NEIGHBOURS, _HULL_RANK = 24, 0.8
"""Neighbouring profiles that are combined, within about 5 mm; the fraction of them darker than their hull."""
_HULL_REACH = 5
"""Steps outward within which the hull is sought."""
_HULL_LEVEL, _HULL_SHARE = 0.2, 0.5
"""Where the hull ends, between the darkest outside (0) and the tissue inside (1), and at least at this share of the
tissue: CSF may be brighter than the skull beyond it."""
_HULL_RISE = 0.1
"""What gets brighter outward by more than this share of the brain's median is something else: dura, marrow, fat."""
_GAP, _GAP_FROM_MM = 0.45, -14.0
"""Share of the brain's median below which a gap begins; how far inside one looks for it."""


@dataclass(frozen=True)
class Surface:
    """A brain surface in template space: signed distance on the prior's grid, mm, and the contrast at each point.

    The distance is negative inside and cut at ± 20; the contrast is the drop of intensity as a share of the brain's
    median.
    """

    distance_mm: FloatArray
    contrast: npt.NDArray[np.float64]

    def mask(self, volume: Volume, prior: BrainPrior, template_to_native: Affine) -> MaskArray:
        """Return the brain on the grid of a scan, bool."""
        # What the prior's grid does not reach is outside; resampling fills with 0.
        inside = (SHELL_MM - self.distance_mm).astype(np.float32)
        native = Grid(volume.shape, volume.affine)
        back = np.asarray(np.linalg.inv(template_to_native), dtype=np.float64)
        return resample(inside, prior.grid, native, target_to_source=back, antialias=False) > SHELL_MM


def fit_surface(volume: Volume, prior: BrainPrior, template_to_native: Affine, *, prior_sigma_mm: float) -> Surface:
    """Return the surface of the brain in a scan; `prior_sigma_mm` is its expected distance from the template's."""
    native = Grid(volume.shape, volume.affine)
    image = resample(volume.data, native, prior.grid, target_to_source=template_to_native)
    within = image[(prior.distance_mm < -8) & (image > 0)]
    median = float(np.median(within)) if within.size else 1.0
    profile = _profiles((image / median).astype(np.float32), prior)
    cost, edge = _costs(np.clip(profile / _PLATEAU, 0, 1), prior_sigma_mm)
    neighbours = prior.neighbours
    offset = _relax(cost, neighbours)
    chosen = np.abs(_STEPS_MM[None] - offset[:, None]).argmin(axis=1)
    contrast = edge[np.arange(len(offset)), chosen]
    like = _contrast(image / median, prior)
    # Over a sulcus the CSF is deep; the hull of the gyri is what is wanted.
    rim = _rim(profile, chosen, only_thin=like == "FLAIR")
    rim = np.percentile(rim[neighbours], 25, axis=1)
    edge_at = offset + _EDGE_SHIFT_MM
    if like == "T1w":
        edge_at = np.maximum(edge_at, offset + _hull(profile, chosen, neighbours))
    return Surface(_moved(prior, edge_at - rim), contrast)


def _contrast(image: FloatArray, prior: BrainPrior) -> Literal["T1w", "T2w", "FLAIR"]:
    """Return what a scan looks like: fluid bright (T2), or dark with white matter brighter (T1) or not (FLAIR)."""
    fluid = (prior.distance_mm < _DEEP_MM) & (prior.brightness < _FLUID)
    if np.percentile(image[fluid], 75) > _BRIGHT:
        return "T2w"
    tissue = (prior.distance_mm < -8) & (prior.brightness > _TISSUE) & (image > _TISSUE) & (image < 2 - _TISSUE)
    likeness = np.corrcoef(image[tissue], prior.brightness[tissue])[0, 1] if np.count_nonzero(tissue) > 1 else 1.0
    return "FLAIR" if likeness < _LIKE_T1 else "T1w"


def _profiles(image: FloatArray, prior: BrainPrior) -> npt.NDArray[np.float32]:
    """Return the intensities along the normal of each point, 1 mm apart, from deep inside to far outside."""
    spacing = float(np.linalg.norm(prior.affine[:3, 0]))
    read = np.arange(_STEPS_MM[0] - _REACH, _STEPS_MM[-1] + _REACH + 0.5, 1.0)
    places = prior.points[:, None] + prior.normals[:, None] * (read[None, :, None] / spacing)
    profile = ndimage.map_coordinates(image, places.reshape(-1, 3).T, order=1)
    return np.asarray(profile.reshape(len(prior.points), -1), dtype=np.float32)


def _costs(
    profile: npt.NDArray[np.float32], prior_sigma_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the cost of each offset at each point, and the drop of intensity there; both `(n, offsets)`."""
    first = int(_GAP_FROM_MM - _STEPS_MM[0]) + _REACH
    darkest = np.minimum.accumulate(ndimage.uniform_filter1d(profile, 3, axis=1)[:, first:], axis=1)
    edges, gaps = [], []
    for step in range(len(_STEPS_MM)):
        here = _REACH + step
        edges.append(profile[:, here - 5 : here].mean(axis=1) - profile[:, here + 1 : here + 4].min(axis=1))
        gaps.append(darkest[:, max(here - 1 - first, 0)])
    edge = np.stack(edges, axis=1).astype(np.float64)
    gap = np.clip(_GAP - np.stack(gaps, axis=1), 0, 1)
    far = 0.1 * (_STEPS_MM[None] / prior_sigma_mm) ** 2 * np.where(_STEPS_MM[None] > 0, _OUTWARD, 1.0)
    return -np.minimum(edge, _ENOUGH) - 0.1 * edge + 2 * gap + far, edge


def _rim(
    profile: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64], *, only_thin: bool
) -> npt.NDArray[np.float64]:
    """Return the thickness of the bright layer below the surface at each point, mm; `only_thin`: 0 for thick ones."""
    # The outermost step lies in the blur of the edge.
    steps = chosen[:, None] + _REACH - 2 - np.arange(_RIM_MM)[None]
    bright = np.take_along_axis(profile, steps, axis=1) > _BRIGHT
    run = np.cumprod(bright, axis=1).sum(axis=1)
    return np.where((run > 0) & ~(only_thin & (run == _RIM_MM)), run + 1.0, 0.0)


def _hull(
    profile: npt.NDArray[np.float32], chosen: npt.NDArray[np.int64], neighbours: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return how far beyond the edge the tops of the gyri lie at each point, mm, smooth over neighbours."""
    inside, outward = 6, _HULL_REACH + 2
    steps = np.minimum(chosen[:, None] + _REACH + np.arange(-inside, outward), profile.shape[1] - 1)
    around = neighbours[:, :_HULL_NEIGHBOURS]
    near = profile[around[:, :, None], steps[:, None, :]]
    rank = int(_HULL_RANK * _HULL_NEIGHBOURS)
    bright = np.partition(np.where(near > _BRIGHT, 0, near), rank, axis=1)[:, rank]
    tissue = np.minimum(np.median(bright[:, : inside - 1], axis=1), 1)
    darkest = near[:, :, inside:].mean(axis=1).min(axis=1)
    level = np.maximum(darkest + _HULL_LEVEL * (tissue - darkest), _HULL_SHARE * tissue)
    path = bright[:, inside - 1 :]
    follows = (path > level[:, None]) & (path <= np.minimum.accumulate(path, axis=1) + _HULL_RISE)
    run = np.cumprod(follows, axis=1).sum(axis=1)
    # Where it falls below the level, the place between two steps; where it rises, the last step.
    to = np.clip(run, 1, path.shape[1] - 1)[:, None]
    last, first = (np.take_along_axis(path, index, axis=1)[:, 0] for index in (to - 1, to))
    between = np.where(first < level, np.clip((last - level) / np.maximum(last - first, 1e-6), 0, 1), 0)
    beyond = np.where(run == path.shape[1], _HULL_REACH, run - 2 + between)
    beyond = np.where(run == 0, 0, np.clip(beyond, 0, _HULL_REACH))
    smooth: npt.NDArray[np.float64] = np.maximum(beyond, _EDGE_SHIFT_MM)[neighbours].mean(axis=1)
    return smooth


def _relax(cost: npt.NDArray[np.float64], neighbours: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the offset of each point, mm: cheap, and near those of its neighbours."""
    offset: npt.NDArray[np.float64] = _STEPS_MM[cost.argmin(axis=1)]
    for turn in range(20):
        # The median first, which the scalp's false edges do not move.
        around = np.median(offset[neighbours], axis=1) if turn < 5 else offset[neighbours].mean(axis=1)
        pull = _STIFFNESS * ((_STEPS_MM[None] - around[:, None]) / _SCALE_MM) ** 2
        offset = _STEPS_MM[(cost + pull).argmin(axis=1)]
    smooth: npt.NDArray[np.float64] = offset[neighbours].mean(axis=1)
    return smooth


def _moved(prior: BrainPrior, offset: npt.NDArray[np.float64]) -> FloatArray:
    """Return the signed distance to the prior's surface moved by `offset` along its normals."""
    distance = np.clip(prior.distance_mm, -SHELL_MM, SHELL_MM)
    distance[prior.shell] = np.clip(prior.distance_mm[prior.shell] - prior.to_shell(offset), -SHELL_MM, SHELL_MM)
    return distance.astype(np.float32)
