"""Infer the contrast of a scan from the intensities of white matter, grey matter and fluid.

Masks of pure tissue in the template: ICBM 2009a Nonlinear Symmetric (Fonov et al. 2009, 2011), as nilearn ships its
tissue maps.
"""

from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from halebrain.core.provenance import UNKNOWN
from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.template import load_tissue_maps

_SURE = 0.9
"""Share of white matter from which a voxel of the average brain is taken to be nothing else."""
_CORTEX = 0.65
"""Share of grey matter of the average cortex; no two people fold alike, so that it hardly gets higher."""
_FLUID = 0.7
_DEEP_MM = 22.0
CONTRASTS = ("T1w", "T2w", "FLAIR")
_ENOUGH = 60
"""Minimum number of voxels of a tissue to measure its intensity."""
_TOLD_APART = 2.5
"""Standard deviations of white matter that fluid must be away from it. Real scans: 6 to 29; virtual ones: from 3.5."""
_T1_GREY = (0.48, 0.97)
"""Grey matter between fluid (0) and white matter (1) in T1. Real scans: 0.65 to 0.93, the most with contrast agent."""
_FLAIR_GREY = (0.97, 1.6)
"""In FLAIR, where it lies beyond white matter. Real scans: 1.03 to 1.24; virtual ones: 0.93 to 1.48."""
_T2_GREY = (0.62, 1.08)
"""In T2, where fluid is the brightest. Real scans: 0.82 to 1.00; virtual ones: 0.84 to 0.93; with ventricles
so wide that they lie where the nuclei do in others, from 0.65; proton density: 0.5."""
_UNSURE = 0.05
"""Between these values, T1 with contrast agent and low-contrast FLAIR cannot be told apart by intensity."""
_FOREIGN = ("PDw", "PET", "SWI", "T2starw", "dwi", "ADC", "FA", "bold", "asl", "CT")
"""Names of contrasts other than T1, T2 and FLAIR."""


@dataclass(frozen=True)
class TissuePriors:
    """Bool masks on one grid of template space.

    Args:
        white: Deep white matter, a voxel away from everything else.
        cortex: Cortical grey matter.
        deep: Nuclei and thalami.
        ventricle: Middle of the lateral ventricles.
    """

    white: MaskArray
    cortex: MaskArray
    deep: MaskArray
    ventricle: MaskArray


def tissue_priors(grid: Grid) -> TissuePriors:
    """Return the places of the tissues on a grid in the space of the MNI template."""
    return _priors_on(grid.shape, tuple(float(value) for value in grid.affine.ravel()))


@lru_cache(maxsize=4)
def _priors_on(shape: tuple[int, int, int], affine: tuple[float, ...]) -> TissuePriors:
    grid, maps = Grid(shape, np.array(affine).reshape(4, 4)), load_tissue_maps()
    white, grey = (resample(data, maps.grid, grid) for data in (maps.white, maps.grey))
    inside = resample(maps.brain.astype(np.float32), maps.grid, grid) > 0.5
    position = apply_affine(grid.affine, np.indices(shape).reshape(3, -1).T.astype(float)).T.reshape(3, *shape)
    x, y, z = np.abs(position[0]), position[1], position[2]
    depth = ndimage.distance_transform_edt(inside, sampling=grid.spacing_mm)
    # Boxes in template space, mm: the bodies and horns of the lateral ventricles; the nuclei with the thalami.
    ventricles = (x < 36) & (y > -50) & (y < 36) & (z > 0) & (z < 32) & (depth > 20)
    nuclei = (x < 36) & (y > -36) & (y < 24) & (z > -12) & (z < 20) & (depth > _DEEP_MM)
    cerebrum = (z > -20) & ~nuclei
    fluid = inside & (1 - white - grey > _FLUID)
    return TissuePriors(
        white=ndimage.binary_erosion(white > _SURE) & cerebrum,
        cortex=(grey > _CORTEX) & inside & cerebrum & (depth < _DEEP_MM),
        deep=(grey > _CORTEX) & nuclei,
        ventricle=fluid & ventricles,
    )


@dataclass(frozen=True)
class TissueLevels:
    """How bright the tissues are, in the units of the image, by order statistics that lesions hardly move.

    Args:
        white: Median of deep white matter.
        cortex: Quartile of the cortex on the side away from fluid, which fills the sulci of half of its voxels.
        deep: Median of the nuclei and thalami.
        fluid: Tenth or ninetieth percentile of where ventricles lie, on the side away from white matter: those of
            young people fill little of it.
        spread: Robust standard deviation within deep white matter.
    """

    white: float
    cortex: float
    deep: float
    fluid: float
    spread: float

    @property
    def grey_position(self) -> float:
        """Where grey matter lies between fluid (0) and white matter (1), mean of cortex and nuclei; 0 without a gap."""
        gap = self.white - self.fluid
        return ((self.cortex + self.deep) / 2 - self.fluid) / gap if gap else 0.0

    @property
    def separation(self) -> float:
        """Difference of white matter and fluid, in standard deviations within white matter."""
        return abs(self.white - self.fluid) / max(self.spread, 1e-6)

    def rounded(self) -> dict[str, float]:
        """Return all of it under names, for quality control; JSON-able."""
        found = asdict(self) | {"grey_position": self.grey_position, "separation": self.separation}
        return {name: round(float(value), 3) for name, value in found.items()}


def measure_levels(image: FloatArray, brain_mask: MaskArray, grid: Grid) -> TissueLevels | None:
    """Return how bright the tissues are, any unit, of a brain registered to the MNI template.

    `None` where too little of a tissue is seen (a cut scan, a coarse grid).
    """
    priors = tissue_priors(grid)
    places = (priors.white, priors.cortex, priors.deep, priors.ventricle)
    values = [image[place & brain_mask].astype(np.float64) for place in places]
    if min(len(value) for value in values) < _ENOUGH:
        return None
    whites, cortex, deep, ventricle = values
    white = float(np.median(whites))
    is_bright = float(np.median(ventricle)) > white
    return TissueLevels(
        white=white,
        cortex=float(np.percentile(cortex, 25 if is_bright else 75)),
        deep=float(np.median(deep)),
        fluid=float(np.percentile(ventricle, 90 if is_bright else 10)),
        spread=1.4826 * float(np.median(np.abs(whites - white))),
    )


def recognise_contrast(levels: TissueLevels) -> str:
    """Return "T1w", "T2w", "FLAIR" or "unknown" (proton density, susceptibility, PET and the like).

    T1 with contrast agent is T1. Maps of diffusivity and images without diffusion weighting have the levels of T2,
    diffusion-weighted ones nearly those of FLAIR: they pass for these.
    """
    if levels.separation < _TOLD_APART:
        return UNKNOWN
    grey = levels.grey_position
    if levels.fluid > levels.white:
        return "T2w" if _T2_GREY[0] <= grey <= _T2_GREY[1] else UNKNOWN
    if _T1_GREY[0] <= grey < _T1_GREY[1]:
        return "T1w"
    return "FLAIR" if _FLAIR_GREY[0] <= grey <= _FLAIR_GREY[1] else UNKNOWN


def is_sure(levels: TissueLevels) -> bool:
    """Return whether T1 with contrast agent and FLAIR can be told apart reliably."""
    return levels.fluid > levels.white or abs(levels.grey_position - _T1_GREY[1]) > _UNSURE


def is_foreign(named: str | None) -> bool:
    """Return whether a name declares a contrast other than T1, T2 and FLAIR."""
    return named is not None and named.lower() in {name.lower() for name in _FOREIGN}


def contrast_flag(named: str | None, seen: str | None) -> str | None:
    """Return a warning if declared and inferred contrast differ, else `None`; `None` or an unknown word = not known."""
    if is_foreign(named):
        return f"its name says {named}: maps are not valid, as the model was trained on T1w, T2w and FLAIR"
    claimed = _family(named)
    if claimed is None or seen not in CONTRASTS or claimed == seen:
        return None
    return f"its name says {named}, but the image looks like {seen}: check the contrast"


def _family(named: str | None) -> str | None:
    if named is None:
        return None
    for family, starts in (("FLAIR", ("flair",)), ("T1w", ("t1",)), ("T2w", ("t2",))):
        if named.lower().startswith(starts):
            return family
    return None
